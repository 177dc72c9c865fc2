package cluster

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	firstWait = 200 * time.Millisecond
	longWait  = 5 * time.Second
)

// backoffWait is the time between attempts: doubled each time, from firstWait
// to longWait, and a random part of it, so that the nodes of a cluster do not
// come back in step.
type backoffWait struct{ next time.Duration }

// take returns how long to wait now.
func (b *backoffWait) take() time.Duration {
	full := max(b.next, firstWait)
	b.next = min(2*full, longWait)
	return full/2 + rand.N(full/2+1)
}

// sleep waits for d or until ctx ends, and tells whether ctx lives.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}
