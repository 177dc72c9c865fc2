// Package breaker detects that etcd does not answer, so that calls fail at once instead
// of at their deadline.
package breaker

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"streamcount/internal/retry"
	"streamcount/lease/internal/monotonic"
)

// A Breaker is a circuit breaker. It probes etcd continuously. It opens if no probe
// succeeds for some seconds, and closes with the first successful probe. A leader
// election takes less time than the breaker needs to open.
type Breaker struct {
	probe func(context.Context) error
	log   *slog.Logger
	after time.Duration // opens after this time without a successful probe

	open       atomic.Bool
	openings   atomic.Int64
	closedAt   atomic.Int64 // instant at which it last closed; 0 for never
	lastAnswer time.Time    // beginning of the last successful probe; used by Run only
}

const (
	openAfter         = 3 * time.Second // unless the timeout of calls is longer
	probeInterval     = 500 * time.Millisecond
	probeIntervalOpen = 100 * time.Millisecond // between failing probes
	probeTimeout      = time.Second            // of one probe
)

// ErrOpen is the error of a call that was not sent because the breaker is open.
var ErrOpen = errors.New("etcd has not answered for some seconds; the node keeps probing it")

// New returns a closed Breaker. probe sends one request to etcd. timeout is that of the
// calls that the breaker protects.
func New(probe func(context.Context) error, timeout time.Duration, log *slog.Logger) *Breaker {
	return &Breaker{probe: probe, log: log, after: max(openAfter, timeout)}
}

// Run probes etcd until ctx ends.
func (b *Breaker) Run(ctx context.Context) error {
	b.lastAnswer = time.Now()
	for {
		call, cancel := context.WithTimeout(ctx, probeTimeout)
		began := time.Now()
		err := b.probe(call)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		if retry.Sleep(ctx, b.observe(began, time.Now(), err)) != nil {
			return nil
		}
	}
}

// observe records the result of the probe that began at began, and returns how long to
// wait before the next probe.
func (b *Breaker) observe(began, now time.Time, err error) time.Duration {
	switch {
	case err == nil:
		b.lastAnswer = began
		if b.open.CompareAndSwap(true, false) {
			b.closedAt.Store(int64(monotonic.Of(now)))
			b.log.Info("etcd answers again")
		}
		return probeInterval
	case now.Sub(b.lastAnswer) >= b.after && b.open.CompareAndSwap(false, true):
		b.openings.Add(1)
		b.log.Warn("etcd does not answer: calls that need it fail at once until it answers again", "err", err)
	}
	return probeIntervalOpen
}

// IsOpen reports whether the breaker is open.
func (b *Breaker) IsOpen() bool { return b.open.Load() }

// Openings returns how many times the breaker has opened.
func (b *Breaker) Openings() int64 { return b.openings.Load() }

// WasOpen reports whether the breaker was open within the last d, or is open.
func (b *Breaker) WasOpen(d time.Duration) bool {
	at := monotonic.Time(b.closedAt.Load())
	return b.open.Load() || at != 0 && time.Since(at.Time()) < d
}
