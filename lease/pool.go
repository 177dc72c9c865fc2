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
	pace     pace
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

// take returns a lease for a start, granting one if none is ready; only where
// handOn is set it may be one that a stream had before.
func (p *pool) take(ctx context.Context, handOn bool) (granted, error) {
	p.taken.Add(1)
	if g, ok := p.book.take(time.Now(), handOn); ok {
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
	p.pace.last = time.Now()
	for {
		now := time.Now()
		want, revokes := p.pace.look(now, p.taken.Swap(0))
		p.renewDue(ctx, &g, want, now)
		p.grantMissing(ctx, &g, want)
		p.pace.revoked(p.revokeSurplus(ctx, &g, 2*want, revokes))
		select {
		case <-ctx.Done():
			_ = g.Wait() // its functions return nil
			p.drain()
			return nil
		case <-look.C:
		}
	}
}

// pace says how many leases should wait, and how many too many may be revoked.
type pace struct {
	last    time.Time
	rate    float64 // starts a second, lately
	revokes float64 // that may be made by now
}

// look takes in how many starts there were since the last look.
func (p *pace) look(now time.Time, taken int64) (want, revokes int) {
	since := now.Sub(p.last).Seconds()
	p.last = now
	if since > 0 {
		lately := float64(taken) / since
		p.rate += (1 - math.Exp(-since)) * (lately - p.rate) // a second's memory
		p.rate = max(p.rate, lately/2)                       // up fast, down slowly
	}
	p.revokes = min(p.revokes+since*poolRevokes, poolGrants)
	return max(poolMin, min(poolMax, int(p.rate*poolAhead.Seconds()))), int(p.revokes)
}

func (p *pace) revoked(n int) { p.revokes -= float64(n) }

// grants is how many more grants are to be under way.
func grants(want, waiting, granting int) int {
	return max(0, min(want-waiting, poolGrants)-granting)
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
	for range grants(want, waiting, int(p.granting.Load())) {
		p.granting.Add(1)
		g.Go(func() error {
			defer p.granting.Add(-1)
			for ctx.Err() == nil {
				got, err := p.grantOne(ctx)
				if err != nil {
					pauseFor(ctx, grantRest)
					return nil // a later look tries again
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
