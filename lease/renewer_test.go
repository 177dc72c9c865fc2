package lease

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"streamcount/internal/etcdtest"
)

func runRenewer(t *testing.T, c pb.LeaseClient) *renewer {
	t.Helper()
	r := newRenewer(c)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	return r
}

func TestRenewer_AnswersEachItsOwn(t *testing.T) {
	c := etcdtest.Client(t)
	r := runRenewer(t, clientv3.RetryLeaseClient(c))
	type pending struct {
		alive bool
		done  <-chan renewal
	}
	var all []pending
	for i := range 600 {
		id, alive := randomLease(), i%3 != 0
		if alive {
			_, err := clientv3.RetryLeaseClient(c).LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: id, TTL: 30})
			require.NoError(t, err)
		}
		all = append(all, pending{alive, r.begin(t.Context(), id)})
	}
	for i, p := range all {
		got := await(t.Context(), p.done)
		if !p.alive {
			assert.ErrorIs(t, got.err, errLeaseGone, "%d", i)
			continue
		}
		require.NoError(t, got.err, "%d", i)
		assert.Equal(t, 30*time.Second, got.ttl)
	}
}

// scriptedLease is etcd's lease service as far as keep-alive streams go: it
// answers in order, never answers for a stuck lease, and breaks where it is told.
type scriptedLease struct {
	pb.LeaseClient
	stuck  map[int64]bool
	broke  func() bool
	answer func(int64) int64 // the lease that an answer names; the one asked for if nil

	mu      sync.Mutex
	streams int
}

func (s *scriptedLease) LeaseKeepAlive(ctx context.Context, _ ...grpc.CallOption) (pb.Lease_LeaseKeepAliveClient, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams++
	return &scriptedStream{ctx: ctx, s: s, asked: make(chan int64, 1<<16)}, nil
}

type scriptedStream struct {
	grpc.ClientStream
	ctx   context.Context
	s     *scriptedLease
	asked chan int64
}

func (s *scriptedStream) Send(r *pb.LeaseKeepAliveRequest) error {
	select {
	case <-s.ctx.Done():
		return io.EOF
	case s.asked <- r.ID:
		return nil
	}
}

func (s *scriptedStream) Recv() (*pb.LeaseKeepAliveResponse, error) {
	select {
	case <-s.ctx.Done():
		return nil, s.ctx.Err()
	case id := <-s.asked:
		if s.s.stuck[id] {
			<-s.ctx.Done()
			return nil, s.ctx.Err()
		}
		if s.s.broke != nil && s.s.broke() {
			return nil, errors.New("connection reset")
		}
		named := id
		if s.s.answer != nil {
			named = s.s.answer(id)
		}
		return &pb.LeaseKeepAliveResponse{ID: named, TTL: id}, nil
	}
}

// A lease that holds its stream up delays the healthy ones behind it by half a
// second, and is the only one that fails.
func TestRenewer_AStuckLeaseIsLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runRenewer(t, &scriptedLease{stuck: map[int64]bool{50: true}})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		var all []<-chan renewal
		for id := int64(1); id <= 400; id++ {
			all = append(all, r.begin(ctx, id))
		}
		began := time.Now()
		for i, done := range all {
			got := await(ctx, done)
			if i+1 == 50 {
				assert.ErrorIs(t, got.err, errRenewStalled)
				continue
			}
			require.NoError(t, got.err)
			assert.Equal(t, time.Duration(i+1)*time.Second, got.ttl)
		}
		assert.Less(t, time.Since(began), 2*renewStall)
		cancel()
	})
}

// A start does not wait for heartbeats, however many are held up.
func TestRenewer_StartsHaveAStreamOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runRenewer(t, &scriptedLease{stuck: map[int64]bool{50: true}})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		for range 4 * renewLanes {
			r.begin(ctx, 50)
		}
		synctest.Wait()
		began := time.Now()
		got := await(ctx, r.beginStart(ctx, 7))
		require.NoError(t, got.err)
		assert.Equal(t, 7*time.Second, got.ttl)
		assert.Zero(t, time.Since(began))
		cancel()
	})
}

// Streams that break all the time cost repetitions, not answers: each renewal is
// answered for its own lease, or fails.
func TestRenewer_BrokenStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &scriptedLease{broke: func() bool { return rand.N(50) == 0 }}
		r := runRenewer(t, c)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var all []<-chan renewal
		for id := int64(1); id <= 4000; id++ {
			all = append(all, r.begin(ctx, id))
		}
		failed := 0
		for i, done := range all {
			got := await(ctx, done)
			if got.err != nil {
				failed++
				continue
			}
			require.Equal(t, time.Duration(i+1)*time.Second, got.ttl)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		assert.Greater(t, c.streams, 10)
		assert.Less(t, failed, len(all), "some are answered")
	})
}

func TestRenewer_HonoursTheCallersContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runRenewer(t, &scriptedLease{stuck: map[int64]bool{1: true}})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		got := await(ctx, r.begin(ctx, 1))
		assert.ErrorIs(t, got.err, context.DeadlineExceeded)
	})
}

// An answer for a lease that was not asked for next goes to nobody: it would tell
// a viewer that another's stream lives.
func TestRenewer_AnAnswerForAnotherLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runRenewer(t, &scriptedLease{answer: func(id int64) int64 { return id + 1000 }})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		got := await(ctx, r.begin(ctx, 1))
		require.Error(t, got.err)
		assert.NotErrorIs(t, got.err, errLeaseGone, "nothing is known of it")
	})
}
