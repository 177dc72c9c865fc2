package lease

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"streamcount/internal/testing/etcdsim"
	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/policy"
)

// observedLease counts the renewals that are sent on shared streams. etcd's responses
// arrive when release is closed.
type observedLease struct {
	pb.LeaseClient
	release chan struct{}

	mu   sync.Mutex
	sent map[int64]int
}

func (o *observedLease) LeaseKeepAlive(ctx context.Context, opts ...grpc.CallOption) (pb.Lease_LeaseKeepAliveClient, error) {
	s, err := o.LeaseClient.LeaseKeepAlive(ctx, opts...)
	return &observedStream{s, ctx, o}, err
}

// sentOf returns how many of the leases of streams were renewed, and how often in all.
func (o *observedLease) sentOf(t *testing.T, l *Limiter, streams []HeartbeatRequest) (leases, renewals int) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, s := range streams {
		who, err := l.parseID(s.User, s.ID)
		require.NoError(t, err)
		if n := o.sent[who.Lease]; n > 0 {
			leases, renewals = leases+1, renewals+n
		}
	}
	return leases, renewals
}

type observedStream struct {
	pb.Lease_LeaseKeepAliveClient
	ctx context.Context
	o   *observedLease
}

func (s *observedStream) Send(r *pb.LeaseKeepAliveRequest) error {
	s.o.mu.Lock()
	s.o.sent[r.ID]++
	s.o.mu.Unlock()
	return s.Lease_LeaseKeepAliveClient.Send(r)
}

func (s *observedStream) Recv() (*pb.LeaseKeepAliveResponse, error) {
	select {
	case <-s.o.release:
		return s.Lease_LeaseKeepAliveClient.Recv()
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	}
}

// newObserved returns a node that has renewed none of the streams of n users.
func newObserved(t *testing.T, n int) (o *observedLease, l *Limiter, streams []HeartbeatRequest) {
	t.Helper()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	starter := newLimiter(t, c, Config{Prefix: prefix, Limit: 3})
	for i := range n {
		user := fmt.Sprint("user-", i)
		streams = append(streams, HeartbeatRequest{user, mustStart(t, starter, user, Request{}).Stream.ID})
	}
	e := FromClient(c)
	o = &observedLease{LeaseClient: e.Lease, release: make(chan struct{}), sent: make(map[int64]int)}
	e.Lease = o
	l = runLimiter(t, e, Config{Prefix: prefix, Limit: 3, Timeout: 20 * time.Second})
	require.Eventually(t, func() bool {
		totals, err := l.Totals(t.Context())
		return err == nil && totals.Streams == n
	}, time.Minute, time.Millisecond)
	return o, l, streams
}

func TestHeartbeats_EqualRequestsRunOnce(t *testing.T) {
	t.Parallel()
	o, l, streams := newObserved(t, 3)
	close(o.release)
	var batch []HeartbeatRequest
	for range 20 {
		batch = append(batch, streams...)
	}
	for i, r := range l.Heartbeats(t.Context(), batch) {
		require.NoError(t, r.Err)
		assert.False(t, r.Degraded)
		again := l.Heartbeats(t.Context(), batch[i:i+1])[0] // which is not renewed again
		assert.WithinDuration(t, again.ExpiresAt, r.ExpiresAt, time.Microsecond, "the result of its own stream")
	}
	leases, renewals := o.sentOf(t, l, streams)
	assert.Equal(t, 3, leases)
	assert.Less(t, renewals, len(batch)/2, "a slow etcd receives a renewal again")
}

// A large batch verifies a stream after it has waited for room, because the stream may end
// while the batch waits, and its lease may then be in use by another stream.
func TestHeartbeats_VerifiesAfterWaitingForRoom(t *testing.T) {
	t.Parallel()
	etcdsim.Bubble(t, func(t *testing.T) {
		t.Helper()
		etcd := etcdsim.New()
		here, there := &etcdsim.Link{Etcd: etcd}, &etcdsim.Link{Etcd: etcd}
		cfg := Config{Prefix: "/p", Limit: 3, Timeout: 3 * time.Second}
		starter := runLimiter(t, Etcd{KV: there.KV(), Lease: there.Lease(), Watch: there.Watcher()}, cfg)
		var streams []HeartbeatRequest
		for i := range 600 {
			user := fmt.Sprint("user-", i)
			streams = append(streams, HeartbeatRequest{user, mustStart(t, starter, user, Request{}).Stream.ID})
		}
		o := &observedLease{LeaseClient: here.Lease(), release: make(chan struct{}), sent: make(map[int64]int)}
		l := runLimiter(t, Etcd{KV: here.KV(), Lease: o, Watch: here.Watcher()}, cfg)

		results := make(chan []HeartbeatResult, 1)
		go func() { results <- l.Heartbeats(t.Context(), streams) }()
		synctest.Wait()
		stopped := map[HeartbeatRequest]bool{}
		for _, s := range streams {
			if leases, _ := o.sentOf(t, l, []HeartbeatRequest{s}); leases == 0 {
				stopped[s] = true
				_, err := starter.Stop(t.Context(), s.User, s.ID)
				require.NoError(t, err)
			}
		}
		require.NotEmpty(t, stopped, "the batch waits for room")
		synctest.Wait()
		close(o.release)
		for i, r := range <-results {
			if !stopped[streams[i]] {
				require.NoError(t, r.Err)
				assert.False(t, r.Degraded)
				continue
			}
			requireEnded(t, r.Err, policy.ReasonStopped)
			leases, _ := o.sentOf(t, l, streams[i:i+1])
			assert.Zero(t, leases, "the lease of an ended stream is not renewed")
		}
	})
}
