package leasepool

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// revoker is an etcd that fails to revoke leases until it has received failures calls.
type revoker struct {
	pb.LeaseClient
	failures, calls atomic.Int32
	last            atomic.Int64
}

func (r *revoker) LeaseRevoke(
	_ context.Context, in *pb.LeaseRevokeRequest, _ ...grpc.CallOption,
) (*pb.LeaseRevokeResponse, error) {
	r.last.Store(in.ID)
	if r.calls.Add(1) <= r.failures.Load() {
		return nil, errors.New("etcd is unavailable")
	}
	return &pb.LeaseRevokeResponse{}, nil
}

func TestCleaner_RepeatsUntilRevoked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		etcd := &revoker{}
		etcd.failures.Store(3)
		c := NewCleaner(time.Minute, slog.New(slog.DiscardHandler))
		g := NewGranter(etcd, time.Second, c)
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		g.RevokeLater(7)
		g.RevokeLater(0) // a key without a lease
		time.Sleep(10 * time.Second)
		assert.EqualValues(t, 4, etcd.calls.Load())
		assert.EqualValues(t, 7, etcd.last.Load())
		cancel()
		assert.NoError(t, <-done)
	})
}

func TestCleaner_StopsWhenTheLeaseHasExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var attempts atomic.Int32
		c := NewCleaner(10*time.Second, slog.New(slog.DiscardHandler))
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		c.Enqueue(func(context.Context) error {
			attempts.Add(1)
			return errors.New("etcd is unavailable")
		})
		time.Sleep(time.Minute)
		n := attempts.Load()
		time.Sleep(time.Minute)
		assert.Equal(t, n, attempts.Load(), "attempts after the deadline")
		cancel()
		assert.NoError(t, <-done)
	})
}

func TestCleaner_LastAttemptsAtShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		etcd := &revoker{}
		c := NewCleaner(time.Minute, slog.New(slog.DiscardHandler))
		g := NewGranter(etcd, time.Second, c)
		for i := range 100 {
			g.RevokeLater(int64(i + 1))
		}
		assert.NoError(t, c.Run(ctx))
		assert.EqualValues(t, 100, etcd.calls.Load())
	})
}
