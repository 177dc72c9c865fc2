package keepalive

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
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/internal/etcdop"
)

// noObserver records nothing.
type noObserver struct{}

func (noObserver) StartRenewal(context.Context) trace.Span      { return nil }
func (noObserver) EndRenewal(trace.Span, Result, time.Duration) {}

func runRenewer(t *testing.T, c pb.LeaseClient) *Renewer {
	t.Helper()
	r := New(c, func() bool { return false }, noObserver{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	return r
}

func TestRenewer_DeliversEachResultToItsRequest(t *testing.T) {
	c := etcdtest.Client(t)
	r := runRenewer(t, clientv3.RetryLeaseClient(c))
	type pending struct {
		alive bool
		done  <-chan Result
	}
	var all []pending
	for i := range 600 {
		id, alive := int64(rand.Int32N(1<<30)+1)<<20|int64(i), i%3 != 0
		if alive {
			_, err := clientv3.RetryLeaseClient(c).LeaseGrant(t.Context(), &pb.LeaseGrantRequest{ID: id, TTL: 30})
			require.NoError(t, err)
		}
		all = append(all, pending{alive, r.Renew(t.Context(), id)})
	}
	for i, p := range all {
		got := Wait(t.Context(), p.done)
		if !p.alive {
			assert.ErrorIs(t, got.Err, etcdop.ErrLeaseGone, "%d", i)
			continue
		}
		require.NoError(t, got.Err, "%d", i)
		assert.Equal(t, 30*time.Second, got.TTL)
	}
}

// scriptedLease simulates the keep-alive streams of etcd. It responds in order, does not
// respond for a stuck lease, and breaks a stream when broke returns true.
type scriptedLease struct {
	pb.LeaseClient
	stuck  map[int64]bool
	broke  func() bool
	answer func(int64) int64 // the lease that a response names; the requested one if nil

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

// A lease that blocks its stream delays the other renewals by half a second, and is the
// only one that fails.
func TestRenewer_AStuckLeaseFailsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runRenewer(t, &scriptedLease{stuck: map[int64]bool{50: true}})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		var all []<-chan Result
		for id := int64(1); id <= 400; id++ {
			all = append(all, r.Renew(ctx, id))
		}
		began := time.Now()
		for i, done := range all {
			got := Wait(ctx, done)
			if i+1 == 50 {
				assert.ErrorIs(t, got.Err, ErrStalled)
				continue
			}
			require.NoError(t, got.Err)
			assert.Equal(t, time.Duration(i+1)*time.Second, got.TTL)
		}
		assert.Less(t, time.Since(began), 2*StallTimeout)
		cancel()
	})
}

// A start does not wait for heartbeats that are blocked.
func TestRenewer_StartsHaveASeparateStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runRenewer(t, &scriptedLease{stuck: map[int64]bool{50: true}})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		for range 4 * numStreams {
			r.Renew(ctx, 50)
		}
		synctest.Wait()
		began := time.Now()
		got := Wait(ctx, r.RenewForStart(ctx, 7))
		require.NoError(t, got.Err)
		assert.Equal(t, 7*time.Second, got.TTL)
		assert.Zero(t, time.Since(began))
		cancel()
	})
}

// When streams break, requests are sent again: each renewal gets the result for its lease,
// or fails.
func TestRenewer_BrokenStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &scriptedLease{broke: func() bool { return rand.N(50) == 0 }}
		r := runRenewer(t, c)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var all []<-chan Result
		for id := int64(1); id <= 4000; id++ {
			all = append(all, r.Renew(ctx, id))
		}
		failed := 0
		for i, done := range all {
			got := Wait(ctx, done)
			if got.Err != nil {
				failed++
				continue
			}
			require.Equal(t, time.Duration(i+1)*time.Second, got.TTL)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		assert.Greater(t, c.streams, 10)
		assert.Less(t, failed, len(all), "some succeed")
	})
}

func TestRenewer_HonoursTheCallersContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runRenewer(t, &scriptedLease{stuck: map[int64]bool{1: true}})
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		got := Wait(ctx, r.Renew(ctx, 1))
		assert.ErrorIs(t, got.Err, context.DeadlineExceeded)
	})
}

// A response for another lease than the next requested one is discarded: it would confirm
// the stream of another viewer.
func TestRenewer_DiscardsAResponseForAnotherLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := runRenewer(t, &scriptedLease{answer: func(id int64) int64 { return id + 1000 }})
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		got := Wait(ctx, r.Renew(ctx, 1))
		require.Error(t, got.Err)
		assert.NotErrorIs(t, got.Err, etcdop.ErrLeaseGone, "the outcome is unknown")
	})
}
