package lease

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// graveyard holds the lease under which tombstones lie. Nobody renews it, so no
// tombstone outlives one TTL; it is changed while most of its time is left, and
// before so many keys hang on it that their end would hold etcd up.
type graveyard struct {
	grant func(context.Context) (granted, error)
	fresh time.Duration // how long a lease is used
	wait  time.Duration // how long a write may wait for one
	log   *slog.Logger
	wake  chan struct{}
	lazy  bool // grant nothing before it is asked for

	mu    sync.Mutex // never held across I/O
	lease int64
	used  int
	until time.Time
	ready chan struct{} // closed when lease is set
	shun  time.Time     // until then no tombstones are written at all
}

const maxGraves = 1000 // keys on one lease, as Kubernetes has it

func newGraveyard(
	grant func(context.Context) (granted, error), ttl, timeout time.Duration, log *slog.Logger,
) *graveyard {
	return &graveyard{
		grant: grant, fresh: ttl / 4, wait: timeout / 8, log: log,
		wake: make(chan struct{}, 1), ready: make(chan struct{}),
	}
}

// take returns the lease for one more tombstone, or 0 where there is none in
// time: that a slot comes back matters more than the reason.
func (g *graveyard) take() int64 {
	id, ready := g.current()
	if ready == nil {
		return id
	}
	select {
	case <-ready:
		id, _ = g.current()
	case <-time.After(g.wait):
	}
	return id
}

// current is the lease in use, or what to wait for.
func (g *graveyard) current() (int64, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := time.Now()
	switch {
	case now.Before(g.shun):
		return 0, nil
	case g.lease == 0 || g.used >= maxGraves || !now.Before(g.until.Add(g.fresh)):
		g.ask()
		if g.lease != 0 {
			g.lease, g.ready = 0, make(chan struct{})
		}
		return 0, g.ready
	case g.used >= maxGraves/2 || !now.Before(g.until):
		g.ask()
	}
	g.used++
	return g.lease, nil
}

func (g *graveyard) ask() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

// drop forgets a lease that turned out to be gone.
func (g *graveyard) drop(id int64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if id != 0 && g.lease == id {
		g.lease, g.ready = 0, make(chan struct{})
		g.ask()
	}
}

// avoid does without tombstones for a while, because etcd takes no more puts.
func (g *graveyard) avoid() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shun = time.Now().Add(g.fresh)
}

// avoided reports whether etcd took no more puts lately.
func (g *graveyard) avoided() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return time.Now().Before(g.shun)
}

// run grants a lease at once, or if lazy when it is first asked to, and a new one
// whenever it is asked again.
func (g *graveyard) run(ctx context.Context) error {
	if g.lazy {
		select {
		case <-ctx.Done():
			return nil
		case <-g.wake:
		}
	}
	for {
		sent := time.Now()
		if got, err := g.grant(ctx); err == nil {
			g.use(got.lease, sent)
		} else if ctx.Err() == nil {
			g.log.Debug("no lease for tombstones", "err", err)
			if pauseFor(ctx, grantRest) {
				return nil
			}
			continue
		}
		for stale := false; !stale; stale = g.stale() { // asked for may be what is there by now
			select {
			case <-ctx.Done():
				return nil
			case <-g.wake:
			}
		}
	}
}

// stale reports whether a new lease is wanted.
func (g *graveyard) stale() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.lease == 0 || g.used >= maxGraves/2 || !time.Now().Before(g.until)
}

func (g *graveyard) use(id int64, sent time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.lease == 0 {
		close(g.ready)
	}
	g.lease, g.used, g.until = id, 0, sent.Add(g.fresh)
}
