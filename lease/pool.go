package lease

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// pool keeps leases ready for starts, so that a start costs one round: as many
// as about a quarter of a second needs. What is too many, it revokes slowly,
// because each lease that ends costs etcd an fsync in its apply loop, for which
// everybody else waits.
type pool struct {
	book    book
	grant   func(context.Context) (granted, error)
	revoke  func(context.Context, int64) error
	renew   func(context.Context, int64) <-chan renewal
	timeout time.Duration

	ttl      atomic.Int64 // of the last lease that etcd granted, a time.Duration
	taken    atomic.Int64 // starts since the last look
	granting atomic.Int32
	rate     float64 // starts a second, lately
}

const (
	poolLook    = 50 * time.Millisecond
	poolAhead   = 250 * time.Millisecond // what the pool is to last for
	poolMin     = 4
	poolMax     = 4096
	poolGrants  = 16 // grants under way at once
	poolRevokes = 10 // a second
	poolDrain   = 2 * time.Second
)

// take returns a lease for a start, granting one if none is ready.
func (p *pool) take(ctx context.Context) (granted, error) {
	p.taken.Add(1)
	if g, ok := p.book.take(time.Now()); ok {
		return g, nil
	}
	return p.grantOne(ctx)
}

func (p *pool) grantOne(ctx context.Context) (granted, error) {
	g, err := p.grant(ctx)
	if err == nil {
		p.ttl.Store(int64(g.ttl))
	}
	return g, err
}

// retire takes the lease of a stream that is over from its owner. One of another
// TTL than leases have here today is not for a new stream: it would end at
// another time than its client is told.
func (p *pool) retire(g granted) {
	if g.ttl != time.Duration(p.ttl.Load()) {
		g.renewed = time.Time{}
	}
	p.book.retire(g, time.Now())
}

// run keeps the pool until ctx ends, then revokes what it holds.
func (p *pool) run(ctx context.Context) error {
	var g errgroup.Group
	look := time.NewTicker(poolLook)
	defer look.Stop()
	last := time.Now()
	revokes := 0.0
	for {
		now := time.Now()
		want := p.want(now.Sub(last))
		revokes = min(revokes+now.Sub(last).Seconds()*poolRevokes, poolGrants)
		last = now
		p.renewDue(ctx, &g, want, now)
		p.grantMissing(ctx, &g, want)
		revokes -= float64(p.revokeSurplus(ctx, &g, 2*want, int(revokes)))
		select {
		case <-ctx.Done():
			_ = g.Wait() // its functions return nil
			p.drain()
			return nil
		case <-look.C:
		}
	}
}

// want is how many leases should wait, by the starts of the last moments.
func (p *pool) want(since time.Duration) int {
	if since > 0 {
		now := float64(p.taken.Swap(0)) / since.Seconds()
		weight := 1 - math.Exp(-since.Seconds()) // a second's memory
		p.rate += weight * (now - p.rate)
		p.rate = max(p.rate, now/2) // up fast, down slowly
	}
	return max(poolMin, min(poolMax, int(p.rate*poolAhead.Seconds())))
}

// renewDue keeps waiting leases fresh.
func (p *pool) renewDue(ctx context.Context, g *errgroup.Group, want int, now time.Time) {
	due := p.book.tend(want, now)
	if len(due) == 0 {
		return
	}
	g.Go(func() error {
		call, cancel := context.WithTimeout(ctx, p.timeout)
		defer cancel()
		answers := make([]<-chan renewal, len(due))
		for i, d := range due {
			answers[i] = p.renew(call, d.lease)
		}
		for i, d := range due {
			r := await(call, answers[i])
			if r.err != nil {
				p.book.lost(d)
				continue
			}
			d.renewed, d.ttl = r.sent, r.ttl
			p.book.renewed(d)
		}
		return nil
	})
}

// grantMissing grants until enough leases wait.
func (p *pool) grantMissing(ctx context.Context, g *errgroup.Group, want int) {
	waiting, _ := p.book.sizes()
	for missing := want - waiting; missing > int(p.granting.Load()) && p.granting.Load() < poolGrants; {
		p.granting.Add(1)
		g.Go(func() error {
			defer p.granting.Add(-1)
			for ctx.Err() == nil {
				got, err := p.grantOne(ctx)
				if err != nil {
					return nil // the next look tries again
				}
				p.book.put(got)
				if waiting, _ := p.book.sizes(); waiting >= want {
					return nil
				}
			}
			return nil
		})
	}
}

// revokeSurplus revokes at most n leases beyond keep, and tells how many.
func (p *pool) revokeSurplus(ctx context.Context, g *errgroup.Group, keep, n int) int {
	if n == 0 {
		return 0
	}
	gone := p.book.surplus(keep, n)
	if len(gone) > 0 {
		g.Go(func() error {
			p.revokeAll(context.WithoutCancel(ctx), gone)
			return nil
		})
	}
	return len(gone)
}

// revokeAll is one try for each; what is left expires by itself.
func (p *pool) revokeAll(ctx context.Context, leases []granted) {
	ctx, cancel := context.WithTimeout(ctx, poolDrain)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(poolGrants)
	for _, l := range leases {
		g.Go(func() error {
			if ctx.Err() == nil {
				_ = p.revoke(ctx, l.lease) // etcd expires it otherwise
			}
			return nil
		})
	}
	_ = g.Wait() // its functions return nil
}

// drain revokes all that waits, when the node stops.
func (p *pool) drain() {
	p.revokeAll(context.Background(), p.book.surplus(0, math.MaxInt))
}
