package lease

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"
)

// circuit says whether it makes sense to ask etcd. It asks for a linearizable read
// itself, all the time; when none has been answered for a while it opens, and calls
// fail at once instead of at their deadline. It closes with the first answer.
//
// An election takes less than circuitPatience, so calls wait for those.
type circuit struct {
	ask func(context.Context) error
	log *slog.Logger

	open     atomic.Bool
	opened   atomic.Int64 // how often
	closed   atomic.Int64 // the instant when it was last closed again; 0 for never
	answered time.Time    // when the last question was asked that was answered; only heard uses it
}

const (
	circuitPatience = 3 * time.Second // without an answer
	circuitPulse    = 500 * time.Millisecond
	circuitHurry    = 100 * time.Millisecond // between questions while none is answered
	circuitAnswer   = time.Second            // for one question
)

var errCircuitOpen = errors.New("etcd has not answered for some seconds; it is asked again all the time")

// run asks until ctx ends.
func (c *circuit) run(ctx context.Context) error {
	c.answered = time.Now()
	for {
		call, cancel := context.WithTimeout(ctx, circuitAnswer)
		began := time.Now()
		err := c.ask(call)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(c.heard(began, time.Now(), err)):
		}
	}
}

// heard takes in what became at now of the question that began at began, and returns
// how long to wait before the next.
func (c *circuit) heard(began, now time.Time, err error) time.Duration {
	switch {
	case err == nil:
		c.answered = began
		if c.open.CompareAndSwap(true, false) {
			c.closed.Store(int64(instantOf(now)))
			c.log.Info("etcd answers again")
		}
		return circuitPulse
	case now.Sub(c.answered) >= circuitPatience && c.open.CompareAndSwap(false, true):
		c.opened.Add(1)
		c.log.Warn("etcd does not answer: calls that need it fail at once until it does", "err", err)
	}
	return circuitHurry
}

// closedSince reports whether the circuit was open less than d ago, or is.
func (c *circuit) closedSince(d time.Duration) bool {
	at := instant(c.closed.Load())
	return c.open.Load() || at != 0 && time.Since(at.time()) < d
}

// probe is one question to etcd.
func (l *Limiter) probe(ctx context.Context) error {
	_, err := l.etcd.KV.Range(ctx, oneKey(l.keys.shardsKey()).read())
	return err
}
