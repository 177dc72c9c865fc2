package stats

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/trace"

	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/keepalive"
)

// Counters are the counters of a limiter. They are atomic, because every call updates
// them.
type Counters struct {
	since                         time.Time
	starts, heartbeats, stops     counts
	renewals, callsFailed, synced counts
	lateRenewals, leaderChanges   atomic.Int64
	batchSize, batchWait          histogram
	calls                         [callRenew + 1]histogram
	term                          atomic.Uint64 // the last one observed
	expired                       atomic.Int64  // last result of Expired
	mostStreams                   atomic.Int64  // largest number that AddUnusedNumbers has observed
	refused, wouldRefuse          limitCounts
	tracer                        trace.Tracer
}

// counts are counters by outcome.
type counts [8]atomic.Int64

func (c *counts) named(names []string) map[string]int64 {
	out := make(map[string]int64, len(names))
	for i, name := range names {
		out[name] = c[i].Load()
	}
	return out
}

// New returns counters. tracer creates the spans of calls to etcd; nil disables them.
func New(tracer trace.Tracer) *Counters {
	c := &Counters{
		since: time.Now(), tracer: tracer, batchSize: newHistogram(sizeBounds, 1), batchWait: newHistogram(timeBounds, 1e9),
	}
	for i := range c.calls {
		c.calls[i] = newHistogram(timeBounds, 1e9)
	}
	return c
}

// Start counts a start.
func (c *Counters) Start(o StartOutcome) { c.starts[o].Add(1) }

// Refused counts a start that limits rejected, for each of their names. Without names it was
// the limit of a plan that has only one.
func (c *Counters) Refused(limits []string) {
	if len(limits) == 0 {
		limits = []string{totalLimit}
	}
	c.refused.add(limits)
}

// WouldRefuse counts an admitted start that limits which only observe would have rejected,
// for each of their names.
func (c *Counters) WouldRefuse(limits []string) { c.wouldRefuse.add(limits) }

// Heartbeat counts a heartbeat that was not coalesced.
func (c *Counters) Heartbeat(o HeartbeatOutcome) { c.heartbeats[o].Add(1) }

// HeartbeatCoalesced counts a heartbeat that was answered without a renewal.
func (c *Counters) HeartbeatCoalesced() { c.renewals[renewCoalesced].Add(1) }

// Stop counts a stop or a removal.
func (c *Counters) Stop(o StopOutcome) { c.stops[o].Add(1) }

// Sync counts a provisional stream that is not provisional any more.
func (c *Counters) Sync(o SyncOutcome) { c.synced[o].Add(1) }

// LateRenewal counts a renewal on a separate stream.
func (c *Counters) LateRenewal(r keepalive.Result) {
	c.lateRenewals.Add(1)
	c.countRenewal(r)
}

// BatchSent implements commit.Observer.
func (c *Counters) BatchSent(writes int) { c.batchSize.observe(int64(writes)) }

// WriteWaited implements commit.Observer.
func (c *Counters) WriteWaited(d time.Duration) { c.batchWait.observe(int64(d)) }

// StartRenewal implements keepalive.Observer.
func (c *Counters) StartRenewal(ctx context.Context) trace.Span { return c.startSpan(ctx, callRenew) }

// EndRenewal implements keepalive.Observer.
func (c *Counters) EndRenewal(span trace.Span, r keepalive.Result, took time.Duration) {
	endSpan(span, r.Err)
	if took > 0 {
		c.calls[callRenew].observe(int64(took))
	}
	c.countRenewal(r)
}

func (c *Counters) countRenewal(r keepalive.Result) {
	i := renewFailed
	switch {
	case r.Err == nil:
		i = renewDone
	case errors.Is(r.Err, etcdop.ErrLeaseGone):
		i = renewGone
	case errors.Is(r.Err, keepalive.ErrStalled):
		i = renewStalled
	}
	c.renewals[i].Add(1)
}

// Since returns when the counters were created.
func (c *Counters) Since() time.Time { return c.since }

// Expired returns now, the number of expired streams, but never less than before: the
// replica corrects its count, and a decreasing counter would be taken for a restart.
func (c *Counters) Expired(now int64) int64 {
	for {
		last := c.expired.Load()
		if now <= last {
			return last
		}
		if c.expired.CompareAndSwap(last, now) {
			return now
		}
	}
}

// AddUnusedNumbers adds 0 to users for each number of streams that no user has, up to
// limit and up to the largest number that was in an earlier call.
func (c *Counters) AddUnusedNumbers(users map[int]int, limit int) {
	most := max(c.mostStreams.Load(), int64(limit))
	for n := range users {
		most = max(most, int64(n))
	}
	c.mostStreams.Store(most)
	for n := range int(most) {
		users[n+1] += 0
	}
}

// Snapshot returns a Snapshot with all counters. Its fields for the state are not set.
func (c *Counters) Snapshot() *Snapshot {
	out := &Snapshot{
		Starts: c.starts.named(startOutcomes), Heartbeats: c.heartbeats.named(heartbeatOutcomes),
		Stops: c.stops.named(stopOutcomes), Renewals: c.renewals.named(renewOutcomes), LateRenewals: c.lateRenewals.Load(),
		BatchSize: c.batchSize.distribution(), BatchWait: c.batchWait.distribution(),
		Calls: make(map[string]Distribution, len(etcdCalls)), CallsFailed: c.callsFailed.named(etcdCalls),
		LeaderChanges: c.leaderChanges.Load(), Synced: c.synced.named(syncOutcomes),
		Refused: c.refused.snapshot(), WouldRefuse: c.wouldRefuse.snapshot(),
	}
	out.Heartbeats["alive"] += out.Renewals["coalesced"]
	for i, name := range etcdCalls {
		out.Calls[name] = c.calls[i].distribution()
	}
	return out
}
