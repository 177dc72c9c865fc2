package shard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"golang.org/x/sync/errgroup"

	"streamcount/internal/retry"
	"streamcount/lease"
)

// A Connection is an open shard.
type Connection struct {
	Limiter *lease.Limiter
	// Run runs what the shard needs besides Limiter.Run, until its context ends.
	Run func(context.Context) error
	// Close releases the shard's resources, after Run has returned.
	Close func() error
}

// Config configures a [Router].
type Config struct {
	// Shards are the configured shards. With Mapped they are the first map of a service that
	// has none, and the first shard stores it. Without Mapped there is one shard, and a map may
	// be created later.
	Shards []Shard
	Mapped bool
	// Open connects to a shard, and retries until ctx ends. Only with first it may create what
	// all shards share.
	Open func(ctx context.Context, s Shard, first bool) (*Connection, error)
	TTL  time.Duration // in answers to heartbeats without a shard
	Log  *slog.Logger
	// Audit records changes of the map that this node uses; nil disables it.
	Audit *slog.Logger
	By    string // the author of maps, for Move
}

// A Router is a limiter for users on several shards. [Router.Run] must run while the Router
// is used.
type Router struct {
	cfg        Config
	current    atomic.Pointer[Map]       // nil before the first
	movedUsers *lru.Cache[string, int64] // the epoch in which the user had moved off the previous shard
	ready      chan struct{}

	mu     sync.Mutex
	shards map[string]*shardConn // open, or being opened
	group  *errgroup.Group
	ctx    context.Context // of Run; nil before
}

// A shardConn is a node's connection to a shard.
type shardConn struct {
	Shard
	opened      atomic.Pointer[Connection] // nil before the shard was reached
	lastReading atomic.Pointer[mapReading]
	stop        context.CancelFunc
	began       time.Time     // of the attempt to open it
	reached     chan struct{} // closed when the shard was reached
}

// A mapReading is a put of a shard's map, decoded.
type mapReading struct {
	key *lease.RoutingRecord
	m   *Map // nil if the shard has none
	err error
}

// New returns a Router. [Router.Run] opens the shards.
func New(cfg Config) (*Router, error) {
	if err := Check(cfg.Shards); err != nil {
		return nil, err
	}
	left, err := lru.New[string, int64](1 << 17)
	if err != nil {
		return nil, err
	}
	r := &Router{cfg: cfg, movedUsers: left, ready: make(chan struct{}), shards: map[string]*shardConn{}}
	if !cfg.Mapped {
		r.current.Store(&Map{Shards: cfg.Shards})
	}
	return r, nil
}

// Run opens the shards and runs them until ctx ends.
func (r *Router) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	r.mu.Lock()
	r.group, r.ctx = group, ctx
	for i, s := range r.cfg.Shards {
		r.openLocked(s, i == 0)
	}
	r.mu.Unlock()
	group.Go(func() error {
		r.waitForShards(ctx)
		<-ctx.Done() // shards may be added and removed until then
		return nil
	})
	return group.Wait()
}

// Ready returns a channel that is closed when the Router has a map and has reached all shards,
// or at least one of them after a timeout.
func (r *Router) Ready() <-chan struct{} { return r.ready }

const openTimeout = 5 * time.Second

func (r *Router) waitForShards(ctx context.Context) {
	for began := time.Now(); retry.Sleep(ctx, 5*time.Millisecond) == nil; {
		all, open := r.Each(), 0
		for _, s := range all {
			if s.limiter != nil {
				open++
			}
		}
		if open > 0 && (open == len(all) || time.Since(began) > openTimeout) {
			close(r.ready)
			return
		}
	}
}

func (r *Router) openLocked(s Shard, first bool) *shardConn {
	if p := r.shards[s.Name]; p != nil || r.ctx == nil || r.ctx.Err() != nil {
		return p
	}
	ctx, stop := context.WithCancel(r.ctx)
	p := &shardConn{Shard: s, stop: stop, began: time.Now(), reached: make(chan struct{})}
	r.shards[s.Name] = p
	r.group.Go(func() error {
		defer stop()
		err := r.runShard(ctx, p, first)
		if ctx.Err() != nil { // the node stops, or the shard is no longer needed
			return nil
		}
		return err
	})
	return p
}

// runShard opens a shard and runs it until ctx ends.
func (r *Router) runShard(ctx context.Context, p *shardConn, first bool) (err error) {
	o, err := r.cfg.Open(ctx, p.Shard, first)
	if err != nil {
		return fmt.Errorf("shard %s: %w", p.Name, err)
	}
	group, work := errgroup.WithContext(ctx)
	group.Go(func() error { return o.Limiter.Run(work) })
	if o.Run != nil {
		group.Go(func() error { return o.Run(work) })
	}
	group.Go(func() error { return r.bootstrap(work, p, o, first) })
	err = group.Wait()
	p.opened.Store(nil)
	if o.Close != nil {
		err = errors.Join(err, o.Close())
	}
	return err
}

// bootstrap reads the map of a shard that was just reached, and creates the first map of the
// service if there is none.
func (r *Router) bootstrap(ctx context.Context, p *shardConn, o *Connection, first bool) error {
	for {
		err := r.loadMap(ctx, p, o, first)
		if err == nil {
			p.opened.Store(o)
			close(p.reached)
			return nil
		}
		if errors.Is(err, errForeignMap) || errors.Is(err, lease.ErrInUse) {
			return fmt.Errorf("shard %s: %w", p.Name, err)
		}
		r.cfg.Log.Warn("cannot read the shard map, retrying", "shard", p.Name, "err", err)
		if retry.Sleep(ctx, time.Second) != nil {
			return nil
		}
	}
}

func (r *Router) loadMap(ctx context.Context, p *shardConn, o *Connection, first bool) error {
	key, err := o.Limiter.ReadRouting(ctx)
	if err != nil {
		return err
	}
	if key.Revision == 0 && r.cfg.Mapped && first && r.current.Load() == nil {
		m := &Map{ID: newID(), Epoch: 1, Shards: r.cfg.Shards}
		if key, err = o.Limiter.PutRouting(ctx, m.encode(), key, len(m.Shards) > 1); err != nil {
			return err
		}
	}
	if key.Revision == 0 {
		return nil
	}
	got := p.readMap(key)
	if got.err != nil {
		return got.err
	}
	return r.useMap(got.m)
}

// readMap decodes the shard's map, once for each put.
func (p *shardConn) readMap(key *lease.RoutingRecord) *mapReading {
	if r := p.lastReading.Load(); r != nil && r.key == key {
		return r
	}
	r := &mapReading{key: key}
	if key.Revision != 0 {
		r.m, r.err = decode(key.Value)
	}
	p.lastReading.Store(r)
	return r
}

var errForeignMap = errors.New("it belongs to the shard map of another service: use other shards, or another --etcd-prefix")

// useMap makes m the current map, unless there is a later one.
func (r *Router) useMap(m *Map) error {
	for {
		old := r.current.Load()
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
		if r.current.CompareAndSwap(old, m) {
			r.cfg.Log.Info("the shard map has changed", "epoch", m.Epoch, "shards", m.Shards, "from", m.Previous)
			if r.cfg.Audit != nil && old != nil {
				r.cfg.Audit.Info("audit", "what", "move shards", "user", "", "caller", cmp.Or(m.By, "unknown"),
					"epoch", m.Epoch, "shards", m.Shards, "from", m.Previous)
			}
			r.closeUnused(m)
			return nil
		}
	}
}

// closeUnused closes the shards that m does not contain.
func (r *Router) closeUnused(m *Map) {
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

// limiter returns the limiter of the shard. It waits for a shard that is just being opened.
func (p *shardConn) limiter(ctx context.Context) (*lease.Limiter, error) {
	o := p.opened.Load()
	if left := openTimeout - time.Since(p.began); o == nil && left > 0 {
		soon, cancel := context.WithTimeout(ctx, left)
		defer cancel()
		select {
		case <-p.reached:
			o = p.opened.Load()
		case <-soon.Done():
		}
	}
	if o == nil {
		return nil, fmt.Errorf("%w: shard %s has not been reached", lease.ErrUnavailable, p.Name)
	}
	return o.Limiter, nil
}
