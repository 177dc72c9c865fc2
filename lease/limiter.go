package lease

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"streamcount/lease/bulkend"
	"streamcount/lease/internal/breaker"
	"streamcount/lease/internal/cachedcount"
	"streamcount/lease/internal/commit"
	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/keepalive"
	"streamcount/lease/internal/leasepool"
	"streamcount/lease/internal/leasestatus"
	"streamcount/lease/internal/provisional"
	"streamcount/lease/internal/replica"
	"streamcount/lease/internal/schema"
	"streamcount/lease/internal/ttlmap"
	"streamcount/lease/internal/userlock"
	"streamcount/lease/migration"
	"streamcount/lease/policy"
	"streamcount/lease/rules"
	"streamcount/lease/stats"
	"streamcount/lease/streamid"
	"streamcount/lease/userdata"
)

// Bounds and default of [Config.TTL]. With less than 5 s, a leader election of etcd's
// default length would leave no time for a second heartbeat.
const (
	MinTTL     = 5 * time.Second
	MaxTTL     = 24 * time.Hour
	DefaultTTL = 90 * time.Second
)

// Config configures a [Limiter].
type Config struct {
	Prefix string // prefix of all etcd keys; "/streamcount" if empty
	// Limit is the maximum number of streams of a user, 0 to [policy.MaxLimit]. 0 admits
	// only starts that take over a running stream of the same session.
	Limit int
	// MaxStreams is the maximum number of streams of a user however they are counted, 1
	// to [policy.MaxLimit]; 0 means [policy.MaxLimit]. It bounds the gain of clients that
	// report a false device or content.
	MaxStreams int
	TTL        time.Duration // how long a stream without heartbeats keeps its slot, in whole seconds; [DefaultTTL] if 0
	Region     string        // region of the streams that start on this node
	// Cooldown is how long an evicted client may not evict others; 0 disables it. It lasts
	// up to a sixth longer, or 2 s if that is more.
	Cooldown time.Duration
	// Bars are those of the node. The limiters of its shards share them, because tombstones do
	// not move with their user. Nil means that the limiter is the only one.
	Bars *Bars
	// MaxStreamAge is the age at which a stream ends although it gets heartbeats, so that
	// its player must start again with a credential that is valid then. 0 means never;
	// the minimum is [MinStreamAge].
	MaxStreamAge time.Duration
	Outage       Outage // what happens to starts while etcd does not answer; [OutageDeny] if empty
	Secret       []byte // the secrets that sign stream ids, as etcd contains them
	// Timeout is the maximum duration of a call; 3 s if 0. An earlier deadline of the
	// caller takes precedence.
	Timeout time.Duration
	Log     *slog.Logger // nil discards
	// Audit records changes of the secrets; nil discards.
	Audit    *slog.Logger
	Observer Observer // receives what happens to the streams; nil for none
	// Nodes lists the registered nodes of the service. A rule that one of them does not support
	// is not written. Nil if no other version of the service uses the keys.
	Nodes  func(context.Context) ([]rules.Node, error)
	Shard  string       // name in the audit log; "default" if empty
	Tracer trace.Tracer // creates spans for callers whose span is recorded; nil disables it
}

func (c Config) withDefaults() (Config, error) {
	c.Prefix = cmp.Or(c.Prefix, "/streamcount")
	c.TTL = cmp.Or(c.TTL, DefaultTTL)
	c.Timeout = cmp.Or(c.Timeout, 3*time.Second)
	c.Shard = cmp.Or(c.Shard, "default")
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	c.Bars = cmp.Or(c.Bars, NewBars(c.Cooldown))
	switch {
	case c.Limit < 0 || c.Limit > policy.MaxLimit:
		return c, fmt.Errorf("lease: limit %d is not between 0 and %d", c.Limit, policy.MaxLimit)
	case c.MaxStreams < 0 || c.MaxStreams > policy.MaxLimit:
		return c, fmt.Errorf("lease: maximum of %d streams is not between 0 and %d", c.MaxStreams, policy.MaxLimit)
	case c.TTL < MinTTL || c.TTL > MaxTTL || c.TTL%time.Second != 0:
		return c, fmt.Errorf("lease: TTL %v is not a whole number of seconds between %v and %v", c.TTL, MinTTL, MaxTTL)
	case c.Cooldown < 0 || c.Cooldown > 24*time.Hour:
		return c, fmt.Errorf("lease: cool-down %v is not between 0 and 24h", c.Cooldown)
	case c.MaxStreamAge != 0 && c.MaxStreamAge < MinStreamAge:
		return c, fmt.Errorf("lease: maximum stream age %v is neither 0 nor %v or more", c.MaxStreamAge, MinStreamAge)
	case c.Outage != "" && c.Outage != OutageDeny && c.Outage != OutageAdmit:
		return c, fmt.Errorf("lease: outage policy %q is neither deny nor admit", c.Outage)
	}
	return c, nil
}

// Etcd holds the clients by which a [Limiter] calls etcd. They take etcd's own
// request types, because building a request through the options of clientv3 costs
// more than sending it.
type Etcd struct {
	KV    etcdserverpb.KVClient
	Lease etcdserverpb.LeaseClient
	Watch clientv3.Watcher
	// MaxTxnOps is the value of etcd's flag --max-txn-ops, the maximum number of
	// operations in a transaction. 0 means 128, etcd's default.
	MaxTxnOps int
}

// FromClient returns an Etcd that uses the connection of c.
func FromClient(c *clientv3.Client) Etcd {
	return Etcd{KV: clientv3.RetryKVClient(c), Lease: clientv3.RetryLeaseClient(c), Watch: replica.NewWatcher(c)}
}

const defaultMaxTxnOps = 128

func (e Etcd) maxTxnOps() int { return cmp.Or(e.MaxTxnOps, defaultMaxTxnOps) }

// A Limiter admits, renews and ends streams. etcd contains the whole state; a Limiter
// only caches it. [Limiter.Run] must run while a Limiter is used. A Limiter is safe for
// concurrent use.
type Limiter struct {
	*migration.Store // Export, Import and the routing record

	cfg            Config
	etcd           Etcd
	keys           schema.Keys
	ids            streamid.Signer
	appliedSecrets []byte // last argument of applySecrets; used by the replica only

	replica        *replica.Replica
	ownWrites      *ttlmap.Map[string, int64] // the revision of this node's last write to a user
	userLocks      *userlock.Locks
	batch          *commit.Batcher
	tombstoneLease *leasepool.RotatingLease
	cooldownLease  *leasepool.RotatingLease // of the cooldown keys
	granter        *leasepool.Granter
	pool           *leasepool.Pool
	renewer        *keepalive.Renewer
	breaker        *breaker.Breaker
	provisional    *provisional.Set
	localAdmission sync.Mutex    // held while a provisional stream is admitted
	slowRenewals   chan struct{} // semaphore of renewals on separate streams
	renewals       atomic.Int64  // number of renewals in the background
	renewing       singleflight.Group
	cleaner        *leasepool.Cleaner
	leaseStatus    *leasestatus.Reader
	rules          *rules.Store
	userData       *userdata.Store
	bulkEnd        *bulkend.Store
	atLimitCount   cachedcount.Count // number of users at their limit
	defaults       policy.Defaults

	admitted, refused atomic.Int64
	counters          *stats.Counters
}

const (
	// ownWriteWait is how long a call waits for the replica to contain the last write of
	// this node, before it reads etcd.
	ownWriteWait = 100 * time.Millisecond
	// endReasonWait is how long the answer that a stream has ended waits for the replica
	// to contain the reason. It is longer than ownWriteWait, because the first answer is
	// the one that players show.
	endReasonWait   = time.Second
	maxSlowRenewals = 64
)

// New returns a Limiter that uses etcd. It sends no request and starts no goroutine.
func New(etcd Etcd, cfg Config) (*Limiter, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	secrets, err := streamid.ParseSecrets(cfg.Secret)
	if err != nil {
		return nil, fmt.Errorf("lease: %w", err)
	}
	counters := stats.New(cfg.Tracer)
	etcd.KV, etcd.Lease = counters.KV(etcd.KV), counters.Lease(etcd.Lease)
	l := &Limiter{
		counters: counters,
		cfg:      cfg,
		defaults: policy.Defaults{
			Plan: policy.Plan{Limit: cfg.Limit, OnLimit: policy.ReplaceOldest}, MaxStreams: cfg.MaxStreams,
		},
		etcd:         etcd,
		keys:         schema.Keys{Prefix: cfg.Prefix},
		ids:          streamid.NewSigner(cfg.Prefix, secrets),
		ownWrites:    ttlmap.New[string, int64](5*time.Second, 1<<17),
		userLocks:    userlock.New(),
		slowRenewals: make(chan struct{}, maxSlowRenewals),
	}
	l.leaseStatus = leasestatus.New(etcd.KV, etcd.Lease, l.keys, cfg.Timeout)
	l.breaker = breaker.New(l.probe, cfg.Timeout, cfg.Log)
	l.provisional = provisional.New()
	l.cleaner = leasepool.NewCleaner(cfg.TTL, cfg.Log)
	l.granter = leasepool.NewGranter(etcd.Lease, cfg.Timeout, l.cleaner)
	l.tombstoneLease = leasepool.NewRotatingLease(l.granter, leasepool.RotatingConfig{
		// It is used for up to twice that, so that a tombstone exists for three quarters of a TTL.
		TTL: cfg.TTL, UseFor: cfg.TTL / 8, MaxWait: cfg.Timeout / 8, Log: cfg.Log,
	})
	l.cooldownLease = newCooldownLease(l.granter, cfg)
	var observer replica.Observer
	if cfg.Observer != nil {
		observer = &replicaObserver{Observer: cfg.Observer}
	}
	l.replica = replica.New(etcd.KV, etcd.Watch, l.keys, replica.Config{
		Timeout: cfg.Timeout, Log: cfg.Log, Bars: cfg.Bars, EndingsTTL: cfg.TTL, Observer: observer,
		OnSecrets: l.applySecrets, OnRestore: func() { l.pool.DiscardUsed() }, BeaconLease: l.tombstoneLease.Acquire,
	})
	l.rules = rules.New(rules.Config{
		KV: etcd.KV, Keys: l.keys, Replica: l.replica, WithDeadline: l.withDeadline, Limit: l.displayLimit,
		Defaults: l.defaults, Nodes: cfg.Nodes, Granter: l.granter,
	})
	l.batch = commit.New(commit.Config{
		KV: etcd.KV, Keys: l.keys, TombstoneLease: l.tombstoneLease, MaxOps: etcd.maxTxnOps(), Timeout: cfg.Timeout,
		FullFor: cfg.TTL / 4, Observer: counters, Tracer: cfg.Tracer,
	})
	l.userData = userdata.New(userdata.Config{
		KV: etcd.KV, Keys: l.keys, Batch: l.batch, Statuses: l.leaseStatus, Replica: l.replica, WithDeadline: l.withDeadline,
		StreamID: func(user string, e schema.Entry) string { return l.ids.Sign(user, e.StreamID()) },
		LeaseOf:  l.leaseOf, Written: l.recordOwnWrite, Ended: l.afterEnding,
	})
	l.bulkEnd = bulkend.New(bulkend.Config{
		KV: etcd.KV, Keys: l.keys, Replica: l.replica, Waiting: l.batch.Waiting, WithDeadline: l.withDeadline,
		Locate: l.locate, End: l.endRemoved, Count: l.countStop,
		StreamID: func(user string, e schema.Entry) string { return l.ids.Sign(user, e.StreamID()) },
	})
	l.renewer = keepalive.New(etcd.Lease, l.replica.NeedsBeacons, counters)
	l.Store = migration.New(migration.Config{
		KV: etcd.KV, Lease: etcd.Lease, Keys: l.keys, Replica: l.replica, Rules: l.rules, Granter: l.granter, Renewer: l.renewer,
		TTL: cfg.TTL, WithDeadline: l.withDeadline, RecordOwnWrite: l.recordOwnWrite,
	})
	l.pool = leasepool.NewPool(l.granter, l.renewer, cfg.TTL, cfg.Timeout)
	return l, nil
}

// Run does the background work until ctx ends: it updates the replica, sends writes and
// renewals, keeps leases ready, and repeats what could not be completed. It returns
// after the idle leases are revoked, or after a few seconds if that takes longer.
func (l *Limiter) Run(ctx context.Context) error {
	if o := l.cfg.Observer; o != nil {
		o.Attach(l)
		defer o.Detach()
	}
	last := context.WithoutCancel(ctx)
	sending, stopSending := context.WithCancel(last)
	defer stopSending()
	var senders, workers errgroup.Group
	senders.Go(func() error { return l.batch.Run(sending) })
	senders.Go(func() error { return l.renewer.Run(sending) })
	workers.Go(func() error { return l.replica.Run(ctx) })
	workers.Go(func() error {
		l.replica.WarnWhenStale(ctx)
		return nil
	})
	workers.Go(func() error { return l.tombstoneLease.Run(ctx) })
	workers.Go(func() error { return l.cooldownLease.Run(ctx) })
	workers.Go(func() error { return l.pool.Run(ctx) })
	workers.Go(func() error { return l.cleaner.Run(ctx) })
	workers.Go(func() error { return l.breaker.Run(ctx) })
	workers.Go(func() error { return l.rules.Run(ctx) })
	if l.cfg.Outage == OutageAdmit {
		workers.Go(func() error { return l.syncProvisional(ctx) })
	}
	err := workers.Wait()
	stopSending() // after the workers, which send
	return errors.Join(err, senders.Wait())
}

// withDeadline returns a context with the deadline of a call. It has ended already if
// the circuit breaker is open. It does not end with ctx, so that a client that
// disconnects does not interrupt a write.
func (l *Limiter) withDeadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if l.breaker.IsOpen() {
		ctx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
		cancel(breaker.ErrOpen)
		return ctx, func() {}
	}
	deadline := time.Now().Add(l.cfg.Timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	return context.WithDeadline(context.WithoutCancel(ctx), deadline)
}

// probe sends one linearizable read.
func (l *Limiter) probe(ctx context.Context) error {
	_, err := l.etcd.KV.Range(ctx, etcdop.Key(l.keys.Routing()).Request())
	return err
}

// Current reports whether this node's replica is at most a few seconds behind etcd.
func (l *Limiter) Current() bool { return l.replica.Current() }

// Rules returns the rules of the users of l.
func (l *Limiter) Rules() *rules.Store { return l.rules }

// UserData returns the store of everything that etcd contains about a user.
func (l *Limiter) UserData() *userdata.Store { return l.userData }

// BulkEnd returns the store that ends the streams that fulfil conditions.
func (l *Limiter) BulkEnd() *bulkend.Store { return l.bulkEnd }

// stream returns the stream with the key e.
func (l *Limiter) stream(user string, h schema.Entry) Stream {
	return streamOf(user, l.ids.Sign(user, h.StreamID()), h.Value)
}

// streamOf returns the stream that a stored record describes.
func streamOf(user, id string, value []byte) Stream {
	return newStream(user, id, schema.DecodeRecord(value))
}

func isLimit(err error) bool { return errors.Is(err, ErrLimit) }
