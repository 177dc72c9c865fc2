// Package readiness has the answers of /readyz: whether a node can be sent requests, and which
// rules are not applied completely.
package readiness

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/singleflight"
)

// A Check checks whether the node can be sent requests. It is safe for concurrent use.
type Check struct {
	timeout  time.Duration
	ready    func(context.Context) error
	group    singleflight.Group
	draining atomic.Bool
}

// New returns a Check that calls ready, which has the given time, at most once at a time.
// ready returns nil, or a readable reason why the node is not ready.
func New(timeout time.Duration, ready func(context.Context) error) *Check {
	return &Check{timeout: timeout, ready: ready}
}

var errDraining = errors.New("the node is draining: it is about to stop")

// Drain makes the node not ready.
func (c *Check) Drain() { c.draining.Store(true) }

// Draining reports whether Drain was called.
func (c *Check) Draining() bool { return c.draining.Load() }

// Err returns nil if the node is ready, and otherwise the reason. Callers at the same time
// share one check, because health checks must not become load on an etcd that is already slow.
func (c *Check) Err(ctx context.Context) error {
	if c.Draining() {
		return errDraining
	}
	answer := c.group.DoChan("", func() (any, error) {
		// The check must not end with the first of the requests that share it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.timeout)
		defer cancel()
		return nil, call(ctx, c.ready)
	})
	select {
	case <-ctx.Done():
		return fmt.Errorf("the request ended first: %w", context.Cause(ctx))
	case a := <-answer:
		return a.Err
	}
}

// call converts a panic to an error, because singleflight would exit the process.
func call(ctx context.Context, ready func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the readiness check panicked: %v", v)
		}
	}()
	return ready(ctx)
}
