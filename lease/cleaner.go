package lease

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
)

// cleaner finishes in the background what could not be finished in time: it
// revokes the leases of starts whose outcome is unknown, and carries stops out.
// What it cannot take or cannot do, etcd ends by itself one TTL later, because
// nobody renews it.
type cleaner struct {
	keep  time.Duration // after this a lease has expired by itself
	log   *slog.Logger
	queue chan chore

	revoke func(context.Context, int64) error
}

// A chore is repeated until it returns nil.
type chore struct {
	do    func(context.Context) error
	until time.Time
}

const (
	cleanerQueue   = 1 << 16
	cleanerWorkers = 4
	cleanerCall    = 2 * time.Second // bounds one try, and the last round after Run's end
)

func newCleaner(revoke func(context.Context, int64) error, ttl time.Duration, log *slog.Logger) *cleaner {
	return &cleaner{revoke: revoke, keep: 2 * ttl, log: log, queue: make(chan chore, cleanerQueue)}
}

// revokeLater leaves a lease to the cleaner. Only its owner may call it.
func (c *cleaner) revokeLater(lease int64) {
	if lease == 0 {
		return // a key of somebody else's, without a lease
	}
	c.later(func(ctx context.Context) error { return c.revoke(ctx, lease) })
}

// later has do carried out. It never blocks.
func (c *cleaner) later(do func(context.Context) error) {
	c.add(chore{do, time.Now().Add(c.keep)})
}

func (c *cleaner) add(ch chore) {
	select {
	case c.queue <- ch:
	default:
		c.log.Warn("too much waits to be cleaned up; etcd ends this lease when its time is over")
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
			c.repeat(ctx, ch)
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
			_ = ch.do(ctx) // etcd ends it otherwise
		default:
			return
		}
	}
}

// repeat tries until it is answered, the lease must have expired, or ctx ends;
// then the chore goes back for the last round.
func (c *cleaner) repeat(ctx context.Context, ch chore) {
	for wait := 50 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanerCall)
		err := ch.do(call)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(ch.until) {
			c.log.Warn("gave up cleaning up; etcd ends the lease by itself", "err", err)
			return
		}
		select {
		case <-ctx.Done():
			c.add(ch)
			return
		case <-time.After(wait/2 + rand.N(wait)):
		}
	}
}
