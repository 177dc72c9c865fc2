package overload

import (
	"context"
	"net/netip"
	"sync/atomic"
	"time"
)

// A Class says how a request is treated under overload. It is a property of the route.
type Class int

// The classes.
const (
	Ordinary Class = iota
	Start          // limited by the latency of starts
	Read           // limited by the latency of reads
	Reserved       // may use the reserved slots: it keeps or ends a stream
)

// A Config sets the maxima of a Control. Rates are per second; 0 means no limit.
type Config struct {
	MaxInFlight                             int
	RatePerUser, RatePerAddress, RatePerKey float64
}

// A Control accepts or rejects requests. It is safe for concurrent use.
type Control struct {
	slots         *slots
	starts, reads *concurrencyLimiter
	delay         *schedulerDelay
	rates         [numBounds]*rateLimiter
	eventStreams  atomic.Int64
	maxEvents     int64
	eventCallers  *quota[string]
	delayed       chan struct{} // holds a value for each rejection that is delayed
	rejected      [numBounds]atomic.Int64
}

// New returns a Control.
func New(c Config) *Control {
	delay := newSchedulerDelay()
	maxEvents := max(1, min(EventStreams.Max(), c.MaxInFlight/4))
	control := &Control{
		slots: newSlots(c.MaxInFlight), delay: delay,
		starts: newConcurrencyLimiter(c.MaxInFlight, delay.current), reads: newConcurrencyLimiter(c.MaxInFlight, delay.current),
		maxEvents: int64(maxEvents), eventCallers: newQuota[string](min(EventStreamsPerCaller.Max(), max(4, maxEvents/8))),
		delayed: make(chan struct{}, maxDelayedRejections),
	}
	control.rates[RatePerUser] = newRateLimiter(c.RatePerUser)
	control.rates[RatePerAddress] = newRateLimiter(c.RatePerAddress)
	control.rates[RatePerKey] = newRateLimiter(c.RatePerKey)
	control.rates[LinearizableLists] = newRateLimiter(float64(LinearizableLists.Max()))
	return control
}

// Run measures the scheduler delay until ctx ends. Without it the Control assumes that
// there is none.
func (c *Control) Run(ctx context.Context) error { return c.delay.run(ctx) }

// A Request is a request that [Control.Admit] decides on.
type Request struct {
	Class     Class
	Client    netip.Prefix // requests of one Client count together
	Unlimited bool         // Client may use all slots
}

// An Admission is a request that was accepted.
type Admission struct {
	control *Control
	slot    slot
	limiter *concurrencyLimiter // nil for none
	started time.Time           // if there is a limiter
}

// Admit accepts a request, or returns the bound that rejects it and counts the rejection.
// The caller calls [Admission.Done] after an accepted request.
func (c *Control) Admit(r Request) (Admission, Bound) {
	slot, bound := c.slots.acquire(r)
	if bound != None {
		c.Count(bound)
		return Admission{}, bound
	}
	a := Admission{control: c, slot: slot}
	switch r.Class {
	case Start:
		a.limiter, bound = c.starts, ConcurrentStarts
	case Read:
		a.limiter, bound = c.reads, ConcurrentReads
	case Ordinary, Reserved:
		return a, None
	}
	a.started = time.Now()
	if !a.limiter.acquire(a.started) {
		c.slots.release(slot)
		c.Count(bound)
		return Admission{}, bound
	}
	return a, None
}

// Done ends the request.
func (a Admission) Done() {
	if a.limiter != nil {
		now := time.Now()
		a.limiter.release(now, now.Sub(a.started))
	}
	a.control.slots.release(a.slot)
}

// InFlight returns the number of requests that were admitted and have not ended.
func (c *Control) InFlight() int { return int(c.slots.inFlight.Load()) }

const (
	// A rejection by a rate is delayed: a client that ignores Retry-After and repeats its
	// request at once would otherwise send faster the more it is rejected. Measured without
	// the delay: 16,000 requests a second over 16 connections, and three times the latency
	// for all other clients.
	rejectionDelay = 250 * time.Millisecond
	// maxDelayedRejections limits the number of delayed rejections. Others are immediate.
	maxDelayedRejections = 512
)

// HasRate reports whether a rate has a limit.
func (c *Control) HasRate(b Bound) bool { return c.rates[b] != nil }

// TakeRate counts a request of key against a rate. It returns 0, or the time after which
// the next request would be accepted; in that case it counts the rejection, and returns
// after a delay.
func (c *Control) TakeRate(ctx context.Context, b Bound, key string) time.Duration {
	wait := c.rates[b].take(key, time.Now())
	if wait <= 0 {
		return 0
	}
	c.Count(b)
	select {
	case c.delayed <- struct{}{}:
		defer func() { <-c.delayed }()
		delay := time.NewTimer(rejectionDelay)
		defer delay.Stop()
		select {
		case <-delay.C:
		case <-ctx.Done():
		}
	default:
	}
	return wait
}

// AdmitEventStream accepts an event stream of a caller, or returns the bound that
// rejects it. The caller calls done after an accepted stream.
func (c *Control) AdmitEventStream(caller string) (done func(), bound Bound) {
	if !c.eventCallers.acquire(caller) {
		c.Count(EventStreamsPerCaller)
		return nil, EventStreamsPerCaller
	}
	if c.eventStreams.Add(1) > c.maxEvents {
		c.eventStreams.Add(-1)
		c.eventCallers.release(caller)
		c.Count(EventStreams)
		return nil, EventStreams
	}
	return func() {
		c.eventStreams.Add(-1)
		c.eventCallers.release(caller)
	}, None
}

// EventStreams returns the number of event streams.
func (c *Control) EventStreams() int { return int(c.eventStreams.Load()) }

// Count counts a rejection by b.
func (c *Control) Count(b Bound) { c.rejected[b].Add(1) }

// Rejected returns the number of requests rejected by each bound that rejects requests.
func (c *Control) Rejected() map[string]int64 {
	out := make(map[string]int64)
	for b := range numBounds {
		if Table[b].Status != 0 {
			out[b.String()] = c.rejected[b].Load()
		}
	}
	return out
}
