// Package stalecache caches values that are expensive to fetch and may be out of date.
package stalecache

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// ErrNotFetched is returned by Get if the first fetch has not finished in time.
var ErrNotFetched = errors.New("not fetched yet")

// A Cache holds the result of one function. It calls the function at most once at a time,
// and only when a caller needs a newer result. Set MaxAge and MaxWait before the first call
// of Get. A Cache is safe for concurrent use.
type Cache[T any] struct {
	MaxAge  time.Duration // how long a result is returned without fetching another
	MaxWait time.Duration // how long Get waits for a fetch before it returns an older result

	latest   atomic.Pointer[result[T]] // nil until the first fetch has finished
	inFlight singleflight.Group
}

type result[T any] struct {
	value     T
	err       error
	requested time.Time // when the fetch began
}

// Get returns the result of fetch, which may be that of an earlier call, error included.
// If the latest result is older than MaxAge it starts a fetch and waits for it until
// MaxWait has passed or ctx ends, and then returns the latest result. fetch continues
// after ctx has ended, so it must limit its duration.
func (c *Cache[T]) Get(ctx context.Context, fetch func(context.Context) (T, error)) (T, error) {
	if r := c.latest.Load(); r != nil && time.Since(r.requested) < c.MaxAge {
		return r.value, r.err
	}
	fetched := c.inFlight.DoChan("", func() (any, error) {
		r := &result[T]{requested: time.Now()}
		r.value, r.err = fetch(context.WithoutCancel(ctx))
		c.latest.Store(r)
		return nil, nil
	})
	timeout := time.NewTimer(c.MaxWait)
	defer timeout.Stop()
	select {
	case <-fetched:
	case <-timeout.C:
	case <-ctx.Done():
	}
	if r := c.latest.Load(); r != nil {
		return r.value, r.err
	}
	var none T
	return none, ErrNotFetched
}
