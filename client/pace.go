package client

import (
	"context"
	"math/rand/v2"
	"time"

	"streamcount/api/apitype"
	"streamcount/internal/retry"
)

const (
	firstBackoff = 250 * time.Millisecond
	// maxTTL is the maximum TTL of the service.
	maxTTL = 24 * time.Hour
)

// backoff returns the wait before the n-th retry, at most limit. Half of it is random, so
// that clients that failed at the same time do not retry at the same time.
func backoff(n int, limit time.Duration) time.Duration {
	d := limit
	if n < 16 {
		d = min(limit, firstBackoff<<n)
	}
	return d/2 + rand.N(d/2+1)
}

// retry calls f until it succeeds, fails with an error that is not transient, or has failed
// Config.Attempts times. It does not begin a wait that is longer than ctx lasts.
func (c *Client) retry(ctx context.Context, f func() error) error {
	for n := range c.cfg.Attempts - 1 {
		err := f()
		if err == nil || !transient(err) || ctx.Err() != nil {
			return err
		}
		wait := max(backoff(n, c.cfg.Timeout), min(retryAfter(err), c.cfg.Timeout))
		if end, ok := ctx.Deadline(); ok && time.Until(end) <= wait {
			return err
		}
		c.cfg.Log.DebugContext(ctx, "retrying", "in", wait, "err", err)
		if retry.Sleep(ctx, wait) != nil {
			return err
		}
	}
	return f()
}

// A schedule determines when a stream sends its next heartbeat and when its lease expires.
// All times use the monotonic clock, so changes of the wall clock have no effect.
type schedule struct {
	every time.Duration // Config.Every

	ttl, interval time.Duration
	// expires is when the lease has expired if no further heartbeat is answered.
	expires  time.Time
	failures int       // consecutive failed heartbeats; a degraded answer counts as one
	rejected bool      // one of these failures was a rejection, which was reported
	next     time.Time // of the next heartbeat
}

// renewed records an answer that renewed the lease, to a request that was sent at sent. etcd
// counts the TTL from a later moment, so the client may consider the lease expired too early,
// never too late.
func (p *schedule) renewed(sent time.Time, s apitype.Stream) {
	p.ttl = min(time.Duration(min(s.TTLSeconds, int(maxTTL/time.Second)))*time.Second, maxTTL)
	p.interval = time.Duration(min(s.HeartbeatSeconds, s.TTLSeconds)) * time.Second
	if p.interval <= 0 || p.interval >= p.ttl {
		p.interval = p.ttl / 3 // the lease would expire before the next heartbeat
	}
	if p.every > 0 {
		p.interval = min(p.interval, p.every)
	}
	p.expires = sent.Add(p.ttl)
	p.failures, p.rejected = 0, false
	p.next = sent.Add(retry.Spread(p.interval))
}

// started records the answer to a start that was sent at sent. The lease may have been
// renewed shortly before the start: it expires as long after it as the two times of the
// answer, by one clock, say.
func (p *schedule) started(sent time.Time, s apitype.Stream) {
	p.renewed(sent, s)
	if s.StartedAt == nil || s.ExpiresAt == nil {
		return
	}
	if left := s.ExpiresAt.Sub(s.StartedAt.Time); left > p.interval && left < p.ttl {
		p.expires = sent.Add(left)
	}
}

// degraded records an answer, at now, of a node that could not reach etcd. If etcd has no
// quorum, no lease expires, and the next leader gives every lease its full TTL. So the lease
// lasts at least one TTL from now. If only that node is cut off, this may be too long: the
// slot may expire and be taken while playback continues, until a heartbeat reaches etcd. The
// client follows the service and continues.
func (p *schedule) degraded(now time.Time) {
	p.expires = now.Add(p.ttl)
	p.failed(now, 0)
}

// failed records a heartbeat that failed at now without information about the stream. It
// respects Retry-After up to the regular interval.
func (p *schedule) failed(now time.Time, after time.Duration) {
	wait := max(backoff(p.failures, p.interval), min(after, p.interval))
	p.failures++
	p.next = now.Add(wait)
}

// timeout returns the timeout of a heartbeat: limit, but no more than two thirds of the TTL.
func (p *schedule) timeout(limit time.Duration) time.Duration {
	return min(limit, p.ttl*2/3)
}
