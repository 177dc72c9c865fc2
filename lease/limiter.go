package lease

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
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
	// Limit is how many streams a user may have, 0 to [MaxLimit]; 0 admits
	// nobody.
	Limit  int
	TTL    time.Duration // how long a silent stream keeps its slot, in whole seconds; [DefaultTTL] if 0
	Region string        // written on every stream that starts here
	Secret []byte        // signs stream ids; the same on all nodes, at least 16 bytes
	// Timeout bounds each call, whatever etcd does; 3 s if 0. A caller's
	// shorter deadline wins.
	Timeout time.Duration
	Log     *slog.Logger // discards if nil
}

func (c Config) withDefaults() (Config, error) {
	c.Prefix = cmp.Or(c.Prefix, "/streamcount")
	c.TTL = cmp.Or(c.TTL, DefaultTTL)
	c.Timeout = cmp.Or(c.Timeout, 3*time.Second)
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	switch {
	case c.Limit < 0 || c.Limit > MaxLimit:
		return c, fmt.Errorf("lease: limit %d is not between 0 and %d", c.Limit, MaxLimit)
	case c.TTL < MinTTL || c.TTL > MaxTTL || c.TTL%time.Second != 0:
		return c, fmt.Errorf("lease: TTL %v is not a whole number of seconds between %v and %v", c.TTL, MinTTL, MaxTTL)
	case len(c.Secret) < 16:
		return c, fmt.Errorf("lease: a secret of %d bytes cannot sign stream ids: want 16 or more", len(c.Secret))
	}
	return c, nil
}

// A Limiter admits, renews and ends streams. All truth is in etcd; what a
// Limiter remembers are hints. [Limiter.Run] must run while it is used.
type Limiter struct {
	cfg    Config
	kv     clientv3.KV
	leases etcdserverpb.LeaseClient
	watch  clientv3.Watcher
	keys   keys
	ids    signer

	graves  *graveyard
	cleaner *cleaner
	lapses  *recent[string, []lifetime] // what etcd last said of the leases of users who were refused
	lookups singleflight.Group          // one look-up of lifetimes a user at a time
	ends    *recent[nonce, Reason]      // how streams of any node ended, for their last heartbeat
	totals  totals

	admitted, refused, expired atomic.Int64
}

// New returns a Limiter on c. It starts nothing and asks etcd nothing.
func New(c *clientv3.Client, cfg Config) (*Limiter, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	l := &Limiter{
		cfg:    cfg,
		kv:     c.KV,
		leases: clientv3.RetryLeaseClient(c),
		watch:  c.Watcher,
		keys:   keys{cfg.Prefix},
		ids:    signer{cfg.Prefix, cfg.Secret},
		lapses: newRecent[string, []lifetime](10*time.Second, 1<<14),
		ends:   newRecent[nonce, Reason](cfg.TTL, 1<<16),
	}
	l.graves = &graveyard{fresh: cfg.TTL / 4, grant: l.grantGrave}
	l.cleaner = newCleaner(l.revoke, cfg.TTL, cfg.Log)
	return l, nil
}

// Run does the background work until ctx ends: it revokes leases that ended
// streams or unknown outcomes left behind, and follows how streams end. It
// returns when all of that has stopped.
func (l *Limiter) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.cleaner.run(ctx) })
	g.Go(func() error { return l.followEndings(ctx) })
	return g.Wait()
}

// bound gives a call its deadline. It is cut off from the caller's
// cancellation, so that a hang-up cannot leave a write half done.
func (l *Limiter) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline := time.Now().Add(l.cfg.Timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	return context.WithDeadline(context.WithoutCancel(ctx), deadline)
}

// stream is what callers learn of a record that holds a slot.
func (l *Limiter) stream(user string, slot int, leaseID int64, r record) Stream {
	s := Stream{
		ID:        l.ids.sign(user, ident{uint16(slot), leaseID, r.Nonce}),
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

func (l *Limiter) usage(user string, count int) Usage {
	return Usage{User: user, Count: count, Limit: l.cfg.Limit}
}

// leaveBehind hands the leases of streams that are over to the cleaner.
func (l *Limiter) leaveBehind(ends []ending) {
	for _, e := range ends {
		l.cleaner.add(e.lease)
	}
}

func isLimit(err error) bool { return errors.Is(err, ErrLimit) }
