package leasepool

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"streamcount/internal/retry"
	"streamcount/lease/internal/keepalive"
)

// A Pool keeps leases ready for starts, so that a start needs one round trip to etcd: as
// many leases as starts need in about a quarter of a second. It revokes excess leases
// slowly, because each revocation costs an fsync in etcd's apply loop, which delays all
// other calls.
type Pool struct {
	inventory inventory
	granter   granter
	renewer   renewer
	ttl       time.Duration // of new leases
	timeout   time.Duration // of renewals

	grantedTTL atomic.Int64 // of the last granted lease, a time.Duration
	taken      atomic.Int64 // starts since the last update of demand
	granting   atomic.Int32
	demand     demand
}

// granter is what the pool needs of a [Granter].
type granter interface {
	Grant(ctx context.Context, ttl time.Duration) (Lease, error)
	Revoke(ctx context.Context, id int64) error
}

// renewer is what the pool needs of a [keepalive.Renewer].
type renewer interface {
	Renew(ctx context.Context, id int64) <-chan keepalive.Result
}

// NewPool returns an empty pool of leases of ttl. timeout bounds a renewal.
func NewPool(g granter, r renewer, ttl, timeout time.Duration) *Pool {
	return &Pool{granter: g, renewer: r, ttl: ttl, timeout: timeout}
}

const (
	poolInterval      = 50 * time.Millisecond
	poolHorizon       = 250 * time.Millisecond // the pool covers the starts of this time
	minIdleLeases     = 4
	maxIdleLeases     = 4096
	maxParallelGrants = 16
	revokesPerSecond  = 10
	drainTimeout      = 2 * time.Second
)

// Acquire returns a lease for a start. It grants one if none is ready. Unless
// allowReused is set, no stream has used the lease before.
func (p *Pool) Acquire(ctx context.Context, allowReused bool) (Lease, error) {
	p.taken.Add(1)
	if g, ok := p.inventory.take(time.Now(), allowReused); ok {
		return g, nil
	}
	return p.grantOne(ctx)
}

// PutBack returns a lease that a start acquired and did not use.
func (p *Pool) PutBack(l Lease) { p.inventory.putBack(l) }

// DiscardUsed discards the leases that a stream has used before, after etcd was restored.
func (p *Pool) DiscardUsed() { p.inventory.discardUsed() }

// Sizes returns how many leases are ready, and how many are to be revoked.
func (p *Pool) Sizes() (ready, toRevoke int) { return p.inventory.sizes() }

// Moves counts how leases entered and left the pool.
func (p *Pool) Moves() Moves { return p.inventory.moveCounts() }

// IDs returns the ids of the leases that are ready, and of those that are to be revoked.
func (p *Pool) IDs() (ready, toRevoke []int64) { return p.inventory.ids() }

func (p *Pool) grantOne(ctx context.Context) (Lease, error) {
	g, err := p.granter.Grant(ctx, p.ttl)
	if err == nil {
		p.grantedTTL.Store(int64(g.TTL))
	}
	return g, err
}

// Release adds the lease of a stream that has ended. Only the owner may call it. A lease
// whose TTL differs from that of new leases is not reused, because its next stream would
// not expire when its client expects.
func (p *Pool) Release(g Lease) {
	if g.TTL != time.Duration(p.grantedTTL.Load()) {
		g.Renewed = time.Time{}
	}
	p.inventory.release(g, time.Now())
}

// Run maintains the pool until ctx ends, then revokes its leases.
func (p *Pool) Run(ctx context.Context) error {
	var g errgroup.Group
	tick := time.NewTicker(poolInterval)
	defer tick.Stop()
	p.demand.updatedAt = time.Now()
	for {
		now := time.Now()
		target, revokes := p.demand.update(now, p.taken.Swap(0))
		p.renewDue(ctx, &g, target, now)
		p.grantMissing(ctx, &g, target)
		p.demand.spendRevokes(p.revokeExcess(ctx, &g, 2*target, revokes))
		select {
		case <-ctx.Done():
			_ = g.Wait() // its functions return nil
			p.drain()
			return nil
		case <-tick.C:
		}
	}
}

// demand estimates how many idle leases are needed, and limits the rate of revocations.
type demand struct {
	updatedAt    time.Time
	rate         float64 // starts per second, a moving average
	revokeBudget float64
}

// update adds the starts since the last update. It returns how many idle leases the pool
// should have, and how many it may revoke now.
func (d *demand) update(now time.Time, starts int64) (target, revokes int) {
	elapsed := now.Sub(d.updatedAt).Seconds()
	d.updatedAt = now
	if elapsed > 0 {
		current := float64(starts) / elapsed
		d.rate += (1 - math.Exp(-elapsed)) * (current - d.rate) // with a time constant of one second
		d.rate = max(d.rate, current/2)                         // rises fast, falls slowly
	}
	d.revokeBudget = min(d.revokeBudget+elapsed*revokesPerSecond, maxParallelGrants)
	target = max(minIdleLeases, min(maxIdleLeases, int(d.rate*poolHorizon.Seconds())))
	return target, int(d.revokeBudget)
}

func (d *demand) spendRevokes(n int) { d.revokeBudget -= float64(n) }

// missingGrants is how many more grants to send.
func missingGrants(target, idle, inFlight int) int {
	return max(0, min(target-idle, maxParallelGrants)-inFlight)
}

// renewDue renews the idle leases that would become stale.
func (p *Pool) renewDue(ctx context.Context, g *errgroup.Group, target int, now time.Time) {
	due := p.inventory.maintain(target, now)
	if len(due) == 0 {
		return
	}
	g.Go(func() error {
		call, cancel := context.WithTimeout(ctx, p.timeout)
		defer cancel()
		renewals := make([]<-chan keepalive.Result, len(due))
		for i, d := range due {
			renewals[i] = p.renewer.Renew(call, d.ID)
		}
		for i, d := range due {
			r := keepalive.Wait(call, renewals[i])
			if r.Err != nil {
				p.inventory.renewalFailed(d)
				continue
			}
			d.Renewed, d.TTL = r.Sent, r.TTL
			p.inventory.putBack(d)
		}
		return nil
	})
}

// grantMissing grants leases until target leases are idle.
func (p *Pool) grantMissing(ctx context.Context, g *errgroup.Group, target int) {
	idle, _ := p.inventory.sizes()
	for range missingGrants(target, idle, int(p.granting.Load())) {
		p.granting.Add(1)
		g.Go(func() error {
			defer p.granting.Add(-1)
			for ctx.Err() == nil {
				got, err := p.grantOne(ctx)
				if err != nil {
					_ = retry.Sleep(ctx, grantRetryDelay) // run starts the next attempt
					return nil
				}
				p.inventory.put(got)
				if idle, _ := p.inventory.sizes(); idle >= target {
					return nil
				}
			}
			return nil
		})
	}
}

// revokeExcess revokes at most n leases in excess of keep, and returns how many.
func (p *Pool) revokeExcess(ctx context.Context, g *errgroup.Group, keep, n int) int {
	if n == 0 {
		return 0
	}
	excess := p.inventory.takeExcess(keep, n)
	if len(excess) > 0 {
		g.Go(func() error {
			p.revokeAll(context.WithoutCancel(ctx), excess)
			return nil
		})
	}
	return len(excess)
}

// revokeAll makes one attempt for each lease. If it fails, the lease expires.
func (p *Pool) revokeAll(ctx context.Context, leases []Lease) {
	ctx, cancel := context.WithTimeout(ctx, drainTimeout)
	defer cancel()
	var g errgroup.Group
	g.SetLimit(maxParallelGrants)
	for _, l := range leases {
		g.Go(func() error {
			if ctx.Err() == nil {
				_ = p.granter.Revoke(ctx, l.ID) // if it fails, the lease expires
			}
			return nil
		})
	}
	_ = g.Wait() // its functions return nil
}

// drain revokes all leases, when the node stops.
func (p *Pool) drain() {
	p.revokeAll(context.Background(), p.inventory.takeExcess(0, math.MaxInt))
}
