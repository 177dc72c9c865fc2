package leasepool

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"streamcount/internal/retry"
)

// A Cleaner completes in the background what did not complete in time: it revokes the
// leases of starts whose outcome is unknown, and repeats stops. If it drops a task or
// cannot complete it, the lease expires after one TTL, because no node renews it.
type Cleaner struct {
	maxAge time.Duration // of a task; older leases have expired
	log    *slog.Logger
	queue  chan task
}

// A task is retried until it returns nil or the deadline has passed.
type task struct {
	do       func(context.Context) error
	deadline time.Time
}

const (
	maxQueuedTasks     = 1 << 16
	cleanerWorkers     = 4
	cleanerCallTimeout = 2 * time.Second // of one attempt, and of the last attempts after ctx ends
)

// NewCleaner returns a Cleaner for leases of at most ttl.
func NewCleaner(ttl time.Duration, log *slog.Logger) *Cleaner {
	return &Cleaner{maxAge: 2 * ttl, log: log, queue: make(chan task, maxQueuedTasks)}
}

// Enqueue runs do in the background. It does not block.
func (c *Cleaner) Enqueue(do func(context.Context) error) {
	c.push(task{do, time.Now().Add(c.maxAge)})
}

// Queued is the number of tasks that wait.
func (c *Cleaner) Queued() int { return len(c.queue) }

func (c *Cleaner) push(t task) {
	select {
	case c.queue <- t:
	default:
		c.log.Warn("the cleanup queue is full; the lease will expire instead")
	}
}

// Run executes tasks until ctx ends, then makes one last attempt for each queued task.
func (c *Cleaner) Run(ctx context.Context) error {
	var g errgroup.Group
	for range cleanerWorkers {
		g.Go(func() error {
			c.work(ctx)
			return nil
		})
	}
	return g.Wait()
}

func (c *Cleaner) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			c.runQueued(context.WithoutCancel(ctx))
			return
		case t := <-c.queue:
			c.runUntilDone(ctx, t)
		}
	}
}

// runQueued makes one attempt for each queued task.
func (c *Cleaner) runQueued(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, cleanerCallTimeout)
	defer cancel()
	for ctx.Err() == nil {
		select {
		case t := <-c.queue:
			_ = t.do(ctx) // if it fails, the lease expires
		default:
			return
		}
	}
}

// runUntilDone runs t until it succeeds, its deadline has passed, or ctx ends. If ctx ends, it
// puts t back into the queue.
func (c *Cleaner) runUntilDone(ctx context.Context, t task) {
	backoff := retry.Backoff{Min: 50 * time.Millisecond, Max: 2 * time.Second}
	for {
		call, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanerCallTimeout)
		err := t.do(call)
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(t.deadline) {
			c.log.Warn("a cleanup task failed until its deadline; the lease will expire instead", "err", err)
			return
		}
		if retry.Sleep(ctx, backoff.Next()) != nil {
			c.push(t)
			return
		}
	}
}
