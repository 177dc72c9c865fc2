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
)

// fakeGranter grants leases by a function.
type fakeGranter func(context.Context) (Lease, error)

func (g fakeGranter) Grant(ctx context.Context, _ time.Duration) (Lease, error) { return g(ctx) }
func (g fakeGranter) Revoke(context.Context, int64) error                       { return nil }

func runRotatingLease(ctx context.Context, useFor time.Duration, g fakeGranter) (*RotatingLease, <-chan error) {
	r := NewRotatingLease(g, RotatingConfig{
		UseFor: useFor, MaxWait: 3 * time.Second / 8, Log: slog.New(slog.DiscardHandler),
	})
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return r, done
}

func TestRotatingLease_IsReplacedInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var grants atomic.Int64
		r, done := runRotatingLease(ctx, time.Minute, func(context.Context) (Lease, error) {
			time.Sleep(100 * time.Millisecond) // so that callers wait
			return Lease{ID: grants.Add(1)}, nil
		})
		ids := make(chan int64, 50)
		for range 50 {
			go func() { ids <- r.Acquire() }()
		}
		for range 50 {
			assert.EqualValues(t, 1, <-ids, "one grant for all callers that wait")
		}
		for range MaxKeysPerLease/2 - 50 {
			assert.EqualValues(t, 1, r.Acquire())
		}
		assert.EqualValues(t, 1, r.Acquire(), "at half of its keys it is used until the next is granted")
		time.Sleep(time.Second)
		assert.EqualValues(t, 2, r.Acquire())
		time.Sleep(time.Minute)
		assert.EqualValues(t, 2, r.Acquire(), "it is used until the next is granted")
		time.Sleep(time.Second)
		assert.EqualValues(t, 3, r.Acquire())
		r.Invalidate(2)
		assert.EqualValues(t, 3, r.Acquire())
		r.Invalidate(3)
		assert.EqualValues(t, 4, r.Acquire(), "Acquire waits for the next lease")
		assert.EqualValues(t, 4, r.Current())
		cancel()
		assert.NoError(t, <-done)
	})
}

func TestRotatingLease_DoesNotBlockAStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r, done := runRotatingLease(ctx, 15*time.Second, func(ctx context.Context) (Lease, error) {
			<-ctx.Done()
			return Lease{}, errors.New("etcd is unavailable")
		})
		began := time.Now()
		assert.Zero(t, r.Acquire())
		assert.Less(t, time.Since(began), time.Second)
		cancel()
		assert.NoError(t, <-done)
	})
}

// A failing etcd gets four grant requests per second.
func TestRotatingLease_BacksOffWhileGrantsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		var requests atomic.Int64
		_, done := runRotatingLease(ctx, 15*time.Second, func(context.Context) (Lease, error) {
			requests.Add(1)
			return Lease{}, errors.New("etcd is full")
		})
		time.Sleep(10 * time.Second)
		assert.InDelta(t, 10/grantRetryDelay.Seconds(), requests.Load(), 2)
		cancel()
		assert.NoError(t, <-done)
	})
}
