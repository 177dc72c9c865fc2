package lease

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
)

// cleaner revokes leases in the background: those of streams that are over, and
// those of starts whose outcome is unknown. What it cannot take or cannot
// revoke, etcd expires by itself, because nobody renews it.
type cleaner struct {
	revoke func(context.Context, int64) error
	keep   time.Duration // after this a lease has expired by itself
	log    *slog.Logger
	queue  chan chore
}

type chore struct {
	lease int64
	until time.Time
}

const (
	cleanerQueue   = 1 << 16
	cleanerWorkers = 4
	cleanerCall    = 2 * time.Second // bounds one revoke, and the last round after Run's end
)

func newCleaner(revoke func(context.Context, int64) error, ttl time.Duration, log *slog.Logger) *cleaner {
	return &cleaner{revoke: revoke, keep: 2 * ttl, log: log, queue: make(chan chore, cleanerQueue)}
}

// add leaves a lease to the cleaner. It never blocks.
func (c *cleaner) add(lease int64) {
	if lease == 0 {
		return // a key of somebody else's, without a lease
	}
	select {
	case c.queue <- chore{lease, time.Now().Add(c.keep)}:
	default:
		c.log.Warn("too many leases wait to be revoked; etcd expires this one", "lease", lease)
	}
}

// run works until ctx ends, then takes what is queued for a little longer.
func (c *cleaner) run(ctx context.Context) error {
	var g errgroup.Group
	for range cleanerWorkers {
		g.Go(func() error {
			c.work(ctx)
			return nil
		})
	}
	return g.Wait()
}

func (c *cleaner) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			c.finish(context.WithoutCancel(ctx))
			return
		case ch := <-c.queue:
			c.do(ctx, ch)
		}
	}
}

// finish is one last try for what is queued.
func (c *cleaner) finish(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cleanerCall)
	defer cancel()
	for ctx.Err() == nil {
		select {
		case ch := <-c.queue:
			_ = c.revoke(ctx, ch.lease) // etcd expires it otherwise
		default:
			return
		}
	}
}

// do repeats the revoke until it is answered, the lease must have expired, or
// ctx ends; then the lease goes back for the last round.
func (c *cleaner) do(ctx context.Context, ch chore) {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanerCall)
		err := c.revoke(call, ch.lease)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(ch.until) {
			c.log.Warn("gave up revoking a lease; etcd expires it", "lease", ch.lease, "err", err)
			return
		}
		select {
		case <-ctx.Done():
			c.add(ch.lease)
			return
		case <-time.After(wait/2 + rand.N(wait)):
		}
	}
}
