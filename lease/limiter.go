package lease

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"
)

// Bounds of [Config.TTL]. Below 5 s a leader election of etcd's default length
// would leave heartbeats no second try.
const (
	MinTTL     = 5 * time.Second
	MaxTTL     = 24 * time.Hour
	DefaultTTL = 90 * time.Second
)

// Config is how a [Limiter] limits.
type Config struct {
	Prefix string // of all etcd keys; "/streamcount" if empty
	// Limit is how many streams a user may have, 0 to [MaxLimit]. 0 admits
	// nobody, but that a stream which runs may go on under its own session.
	Limit  int
	TTL    time.Duration // how long a silent stream keeps its slot, in whole seconds; [DefaultTTL] if 0
	Region string        // written on every stream that starts here
	// Cooldown is for how long a client that was evicted may not evict in turn;
	// 0 for not at all. It lasts up to a sixth longer, or 2 s if that is more.
	Cooldown time.Duration
	Outage   Outage // what becomes of starts while etcd does not answer; [OutageDeny] if empty
	Secret   []byte // signs stream ids; the same on all nodes, at least 16 bytes
	// Timeout bounds each call, whatever etcd does; 3 s if 0. A caller's
	// shorter deadline wins.
	Timeout time.Duration
	Log     *slog.Logger // discards if nil
	// Feed is told what happens; nil for nobody. Limiters of several shards share
	// one, and Shard tells them apart; "default" if empty.
	Feed   *Feed
	Shard  string
	Tracer trace.Tracer // makes spans for callers whose own is recorded; none if nil
}

func (c Config) withDefaults() (Config, error) {
	c.Prefix = cmp.Or(c.Prefix, "/streamcount")
	c.TTL = cmp.Or(c.TTL, DefaultTTL)
	c.Timeout = cmp.Or(c.Timeout, 3*time.Second)
	c.Shard = cmp.Or(c.Shard, bareShard)
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	switch {
	case c.Limit < 0 || c.Limit > MaxLimit:
		return c, fmt.Errorf("lease: limit %d is not between 0 and %d", c.Limit, MaxLimit)
	case c.TTL < MinTTL || c.TTL > MaxTTL || c.TTL%time.Second != 0:
		return c, fmt.Errorf("lease: TTL %v is not a whole number of seconds between %v and %v", c.TTL, MinTTL, MaxTTL)
	case c.Cooldown < 0 || c.Cooldown > 24*time.Hour:
		return c, fmt.Errorf("lease: cool-down %v is not between 0 and 24h", c.Cooldown)
	case c.Outage != "" && c.Outage != OutageDeny && c.Outage != OutageAdmit:
		return c, fmt.Errorf("lease: outage policy %q is neither deny nor admit", c.Outage)
	case len(c.Secret) < 16:
		return c, fmt.Errorf("lease: a secret of %d bytes cannot sign stream ids: want 16 or more", len(c.Secret))
	}
	return c, nil
}

// A Limiter admits, renews and ends streams. All truth is in etcd; what a
// Limiter remembers are hints. [Limiter.Run] must run while it is used.
type Limiter struct {
	cfg  Config
	etcd Etcd
	keys keys
	ids  signer

	view    *view
	wrote   *recent[string, int64] // the revision of this node's last write to a user
	gates   *gates
	batch   *batcher
	graves  *graveyard
	cooling *graveyard // of the marks on evicted clients
	pool    *pool
	renewer *renewer
	circuit *circuit
	pending *provisionals
	late    chan struct{} // holds one for each renewal that is on a stream of its own
	cleaner *cleaner
	lapses  *recent[string, []lifetime] // what etcd last said of the leases of users who were full
	lookups singleflight.Group          // one question about the same leases at a time
	terms   terms
	full    census // users at a limit of their own
	usual   Plan   // where etcd has no default plan
	guard   atomic.Pointer[pb.Compare]

	admitted, refused atomic.Int64
	m                 *measures
}

const (
	// viewPatience is how long a call waits for the view to show this node's own
	// last write, before it asks etcd.
	viewPatience = 100 * time.Millisecond
	lateRenewals = 64
)

// New returns a Limiter on etcd. It starts nothing and asks etcd nothing.
func New(etcd Etcd, cfg Config) (*Limiter, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	m := newMeasures()
	m.tracer = cfg.Tracer
	etcd = etcd.timed(m)
	l := &Limiter{
		m:       m,
		cfg:     cfg,
		usual:   Plan{Limit: cfg.Limit, OnLimit: ReplaceOldest},
		etcd:    etcd,
		keys:    keys{cfg.Prefix},
		ids:     newSigner(cfg.Prefix, cfg.Secret),
		wrote:   newRecent[string, int64](5*time.Second, 1<<17),
		gates:   newGates(),
		renewer: newRenewer(etcd.Lease),
		late:    make(chan struct{}, lateRenewals),
		lapses:  newRecent[string, []lifetime](10*time.Second, 1<<14),
	}
	l.terms.ask = l.term
	l.circuit = &circuit{ask: l.probe, log: cfg.Log}
	l.pending = &provisionals{users: make(map[string][]*provisional)}
	l.view = newView(etcd, l.keys, viewConfig{timeout: cfg.Timeout, log: cfg.Log, span: cfg.TTL})
	l.view.told = cfg.Feed.teller(l)
	l.graves = newGraveyard(l.grant, cfg.TTL, cfg.Timeout, cfg.Log)
	l.batch = newBatcher(etcd, l.keys, l.graves, cfg.Timeout)
	l.batch.m = m
	l.renewer.measureBy(m)
	l.cooling = newCooling(l.grantFor, cfg)
	l.pool = &pool{grant: l.grant, revoke: l.revoke, renew: l.renewer.begin, timeout: cfg.Timeout}
	l.view.onRestore = l.pool.book.restored
	l.cleaner = newCleaner(l.revoke, cfg.TTL, cfg.Log)
	return l, nil
}

// Run does the background work until ctx ends: it follows what etcd holds, sends
// writes and renewals, keeps leases ready, and finishes what was left behind. It
// returns when all of that has stopped and the leases that were ready are
// revoked, or that took too long; a few seconds.
func (l *Limiter) Run(ctx context.Context) error {
	l.view.told.enter()
	defer l.view.told.leave()
	last := context.WithoutCancel(ctx)
	sending, stopSending := context.WithCancel(last)
	defer stopSending()
	var senders, workers errgroup.Group
	senders.Go(func() error { return l.batch.run(sending) })
	senders.Go(func() error { return l.renewer.run(sending) })
	workers.Go(func() error { return l.view.run(ctx) })
	workers.Go(func() error { return l.graves.run(ctx) })
	workers.Go(func() error { return l.cooling.run(ctx) })
	workers.Go(func() error { return l.pool.run(ctx) })
	workers.Go(func() error { return l.cleaner.run(ctx) })
	workers.Go(func() error { return l.circuit.run(ctx) })
	if l.cfg.Outage == OutageAdmit {
		workers.Go(func() error { return l.catchUp(ctx) })
	}
	err := workers.Wait()
	stopSending() // after all who send
	return errors.Join(err, senders.Wait())
}

// bound gives a call its deadline, which is now if etcd has not answered anybody for
// a while. It is cut off from the caller's cancellation, so that a hang-up cannot
// leave a write half done.
func (l *Limiter) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if l.circuit.open.Load() {
		ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		cancel(errCircuitOpen)
		return ctx, func() {}
	}
	deadline := time.Now().Add(l.cfg.Timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	return context.WithDeadline(context.WithoutCancel(ctx), deadline)
}

// stream is what callers learn of the stream that holds h.
func (l *Limiter) stream(user string, h held) Stream {
	return streamOf(user, l.ids.sign(user, h.ident()), h.value)
}

// streamOf is the stream that a stored record describes.
func streamOf(user, id string, value []byte) Stream { return recordOf(value).stream(user, id) }

// stream is the stream that r describes.
func (r record) stream(user, id string) Stream {
	s := Stream{
		ID:        id,
		User:      user,
		StartedAt: r.started(),
		TTL:       time.Duration(r.TTL) * time.Second,
		Region:    r.Region,
		Session:   r.Session,
		Device:    r.device(),
	}
	if r.Content != nil {
		s.Content = *r.Content
	}
	return s
}

func isLimit(err error) bool { return errors.Is(err, ErrLimit) }
