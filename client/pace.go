package client

import (
	"context"
	"math/rand/v2"
	"time"

	"streamcount/api/apitype"
)

const (
	firstBackoff = 250 * time.Millisecond
	// maxTTL is the longest lease that the service knows.
	maxTTL = 24 * time.Hour
)

// backoff is the wait before the n-th retry, at most limit. Half of it is left
// to chance, so that clients who failed together do not come back together.
func backoff(n int, limit time.Duration) time.Duration {
	d := limit
	if n < 16 {
		d = min(limit, firstBackoff<<n)
	}
	return d/2 + rand.N(d/2+1)
}

// around is d with a tenth either way left to chance.
func around(d time.Duration) time.Duration {
	return d - d/10 + rand.N(d/5+1)
}

// pause waits, or returns early with why ctx ended.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// persist calls f until it succeeds, fails for good, or has failed
// Config.Attempts times. It does not begin a wait that ctx would cut short.
func (c *Client) persist(ctx context.Context, f func() error) error {
	for n := range c.cfg.Attempts - 1 {
		err := f()
		if err == nil || !transient(err) || ctx.Err() != nil {
			return err
		}
		wait := max(backoff(n, c.cfg.Timeout), min(retryAfter(err), c.cfg.Timeout))
		if end, ok := ctx.Deadline(); ok && time.Until(end) <= wait {
			return err
		}
		c.cfg.Log.DebugContext(ctx, "trying again", "in", wait, "err", err)
		if pause(ctx, wait) != nil {
			return err
		}
	}
	return f()
}

// A pulse is what a stream knows of its lease, and when it should be heard
// from next. All times carry the monotonic clock, so a wall clock that is set
// has no effect.
type pulse struct {
	every time.Duration // Config.Every

	ttl, pace time.Duration
	// lapses is when the lease must have run out if nothing is heard until
	// then.
	lapses   time.Time
	failures int       // in a row; a degraded answer is one
	next     time.Time // of the next heartbeat
}

// renewed is called for an answer that renewed the lease, to a request that
// left at sent: etcd may count from any moment after that, so we may believe
// the lease dead too early, never too late.
func (p *pulse) renewed(sent time.Time, s apitype.Stream) {
	p.ttl = min(time.Duration(min(s.TTLSeconds, int(maxTTL/time.Second)))*time.Second, maxTTL)
	p.pace = time.Duration(min(s.HeartbeatSeconds, s.TTLSeconds)) * time.Second
	if p.pace <= 0 || p.pace >= p.ttl {
		p.pace = p.ttl / 3 // no pace that a lease survives
	}
	if p.every > 0 {
		p.pace = min(p.pace, p.every)
	}
	p.lapses = sent.Add(p.ttl)
	p.failures = 0
	p.next = sent.Add(around(p.pace))
}

// degraded is called when a node answered at now that it could not reach etcd.
// Where that is because etcd has no quorum nothing expires, and the leader that
// it elects later gives every lease its full TTL. So the lease lasts at least
// one TTL from now. Where only that node is cut off this may be too long: the
// slot may lapse and be taken while we play on, until a heartbeat reaches etcd
// and says so. We do as the service says and play on.
func (p *pulse) degraded(now time.Time) {
	p.lapses = now.Add(p.ttl)
	p.failed(now, 0)
}

// failed is called when a heartbeat was not answered at now, or not by a word
// on the stream. A Retry-After is obeyed up to the pace: the service cannot
// mean to hear less from us than when all is well.
func (p *pulse) failed(now time.Time, after time.Duration) {
	wait := max(backoff(p.failures, p.pace), min(after, p.pace))
	p.failures++
	p.next = now.Add(wait)
}

// patience is how long a heartbeat may wait for its answer: the request's own
// limit, but with a short lease not all that is left of it.
func (p *pulse) patience(limit time.Duration) time.Duration {
	return min(limit, p.ttl*2/3)
}
