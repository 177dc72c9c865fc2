package shard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	lru "github.com/hashicorp/golang-lru/v2"

	"streamcount/lease"
)

// Opened is a shard that has been reached.
type Opened struct {
	Limiter *lease.Limiter
	// Run does what the shard needs besides Limiter.Run, until its context ends.
	Run func(context.Context) error
	// Close gives back what the shard holds, after Run has returned.
	Close func() error
}

// Config is what a [Router] is made from.
type Config struct {
	// Shards are those that the node was told of. With Mapped they are the first
	// map, unless there is one already; the first of them keeps it. Else there is
	// one, and a map may come later.
	Shards []Shard
	Mapped bool
	// Open reaches a shard, however long that takes, and with first is the one
	// that may make what all shards share.
	Open func(ctx context.Context, s Shard, first bool) (*Opened, error)
	TTL  time.Duration // of heartbeats that nobody can answer
	Log  *slog.Logger
}

// A Router is a limiter for users who live on several shards. [Router.Run] must
// run while it is used.
type Router struct {
	cfg   Config
	now   atomic.Pointer[Map]       // nil until one is known
	left  *lru.Cache[string, int64] // the epoch in which a user was seen to have left his old home
	ready chan struct{}

	mu     sync.Mutex
	shards map[string]*place // opened, or being opened
	group  *errgroup.Group
	ctx    context.Context // of Run; nil before
}

// place is a shard as a node knows it.
type place struct {
	Shard
	opened atomic.Pointer[Opened] // nil while it has not been reached
	read   atomic.Pointer[reading]
	stop   context.CancelFunc
	began  time.Time     // of the attempt to reach it
	known  chan struct{} // closed once it was reached
}

// reading is a put of the shard's key, and what it says.
type reading struct {
	key *lease.ShardsKey
	m   *Map // nil if there is none
	err error
}

// New returns a Router. It opens nothing before [Router.Run].
func New(cfg Config) (*Router, error) {
	if err := Check(cfg.Shards); err != nil {
		return nil, err
	}
	left, err := lru.New[string, int64](1 << 17)
	if err != nil {
		return nil, err
	}
	r := &Router{cfg: cfg, left: left, ready: make(chan struct{}), shards: map[string]*place{}}
	if !cfg.Mapped {
		r.now.Store(&Map{Shards: cfg.Shards})
	}
	return r, nil
}

// Run opens the shards and keeps them until ctx ends.
func (r *Router) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	r.mu.Lock()
	r.group, r.ctx = group, ctx
	for i, s := range r.cfg.Shards {
		r.openLocked(s, i == 0)
	}
	r.mu.Unlock()
	group.Go(func() error {
		r.awaitShards(ctx)
		<-ctx.Done() // shards come and go
		return nil
	})
	return group.Wait()
}

// Ready is closed as soon as the Router knows where users live and has reached all
// shards, or some of them and the others are away for long.
func (r *Router) Ready() <-chan struct{} { return r.ready }

const openPatience = 5 * time.Second

func (r *Router) awaitShards(ctx context.Context) {
	for began := time.Now(); wait(ctx, 5*time.Millisecond); {
		all, open := r.Each(), 0
		for _, s := range all {
			if s.limiter != nil {
				open++
			}
		}
		if open > 0 && (open == len(all) || time.Since(began) > openPatience) {
			close(r.ready)
			return
		}
	}
}

func (r *Router) openLocked(s Shard, first bool) *place {
	if p := r.shards[s.Name]; p != nil || r.ctx == nil || r.ctx.Err() != nil {
		return p
	}
	ctx, stop := context.WithCancel(r.ctx)
	p := &place{Shard: s, stop: stop, began: time.Now(), known: make(chan struct{})}
	r.shards[s.Name] = p
	r.group.Go(func() error {
		defer stop()
		err := r.keep(ctx, p, first)
		if ctx.Err() != nil { // the node stops, or the shard is not needed any more
			return nil
		}
		return err
	})
	return p
}

// keep opens a shard and runs it until ctx ends.
func (r *Router) keep(ctx context.Context, p *place, first bool) (err error) {
	o, err := r.cfg.Open(ctx, p.Shard, first)
	if err != nil {
		return fmt.Errorf("shard %s: %w", p.Name, err)
	}
	group, work := errgroup.WithContext(ctx)
	group.Go(func() error { return o.Limiter.Run(work) })
	if o.Run != nil {
		group.Go(func() error { return o.Run(work) })
	}
	group.Go(func() error { return r.greet(work, p, o, first) })
	err = group.Wait()
	p.opened.Store(nil)
	if o.Close != nil {
		err = errors.Join(err, o.Close())
	}
	return err
}

// greet finds out what map a shard has that was just reached, and makes the first
// map where there is none.
func (r *Router) greet(ctx context.Context, p *place, o *Opened, first bool) error {
	for {
		err := r.learn(ctx, p, o, first)
		if err == nil {
			p.opened.Store(o)
			close(p.known)
			return nil
		}
		if errors.Is(err, errForeignMap) || errors.Is(err, lease.ErrInUse) {
			return fmt.Errorf("shard %s: %w", p.Name, err)
		}
		r.cfg.Log.Warn("a shard does not say how users are spread, will keep trying", "shard", p.Name, "err", err)
		if !wait(ctx, time.Second) {
			return nil
		}
	}
}

func (r *Router) learn(ctx context.Context, p *place, o *Opened, first bool) error {
	key, err := o.Limiter.ReadShards(ctx)
	if err != nil {
		return err
	}
	if key.Mod == 0 && r.cfg.Mapped && first && r.now.Load() == nil {
		m := &Map{ID: newID(), Epoch: 1, Shards: r.cfg.Shards}
		if key, err = o.Limiter.PutShards(ctx, m.encode(), key, len(m.Shards) > 1); err != nil {
			return err
		}
	}
	if key.Mod == 0 {
		return nil
	}
	got := p.reading(key)
	if got.err != nil {
		return got.err
	}
	return r.adopt(got.m)
}

// reading is what the shard's key says.
func (p *place) reading(key *lease.ShardsKey) *reading {
	if r := p.read.Load(); r != nil && r.key == key {
		return r
	}
	r := &reading{key: key}
	if key.Mod != 0 {
		r.m, r.err = decode(key.Value)
	}
	p.read.Store(r)
	return r
}

var errForeignMap = errors.New("it belongs to another service's map of shards: give this one a prefix or shards of its own")

// adopt goes by m from now on, unless a later map is known.
func (r *Router) adopt(m *Map) error {
	for {
		old := r.now.Load()
		switch {
		case old != nil && old.ID != "" && old.ID != m.ID:
			return errForeignMap
		case old != nil && old.Epoch >= m.Epoch:
			return nil
		}
		r.mu.Lock()
		for _, s := range m.all() {
			r.openLocked(s, false)
		}
		r.mu.Unlock()
		if r.now.CompareAndSwap(old, m) {
			r.cfg.Log.Info("users are spread by another map", "epoch", m.Epoch, "shards", m.Shards, "from", m.From)
			r.dropOthers(m)
			return nil
		}
	}
}

// dropOthers closes the shards that m does not know.
func (r *Router) dropOthers(m *Map) {
	r.mu.Lock()
	defer r.mu.Unlock()
	needed := map[string]bool{}
	for _, s := range m.all() {
		needed[s.Name] = true
	}
	for name, p := range r.shards {
		if !needed[name] {
			delete(r.shards, name)
			p.stop()
		}
	}
}

// await returns the open shard. One that this node has only just heard of is
// waited for.
func (p *place) await(ctx context.Context) (*lease.Limiter, error) {
	o := p.opened.Load()
	if left := openPatience - time.Since(p.began); o == nil && left > 0 {
		soon, cancel := context.WithTimeout(ctx, left)
		defer cancel()
		select {
		case <-p.known:
			o = p.opened.Load()
		case <-soon.Done():
		}
	}
	if o == nil {
		return nil, fmt.Errorf("%w: shard %s has not been reached", lease.ErrUnavailable, p.Name)
	}
	return o.Limiter, nil
}

func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
