// Package retry holds what loops that repeat a failed call have in common.
package retry

import (
	"context"
	"math/rand/v2"
	"time"
)

// Sleep waits for d. It returns the cause if ctx ends first, and nil otherwise.
func Sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}

// Jitter returns a random duration between half of d and one and a half d.
func Jitter(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return d/2 + rand.N(d)
}

// Backoff computes the pauses between the attempts of a call. Before jitter, they double
// from Min to Max.
type Backoff struct {
	Min, Max time.Duration
	last     time.Duration
}

// Next returns the next pause, with jitter.
func (b *Backoff) Next() time.Duration {
	b.last = min(max(2*b.last, b.Min), b.Max)
	return Jitter(b.last)
}

// Reset begins again with Min, after an attempt that succeeded.
func (b *Backoff) Reset() { b.last = 0 }

// Spread returns d, randomly up to a tenth longer or shorter. Processes that repeat a task at
// an interval use it so that they do not act at the same time.
func Spread(d time.Duration) time.Duration {
	if d <= 0 {
		return 0
	}
	return d - d/10 + rand.N(d/5+1)
}
