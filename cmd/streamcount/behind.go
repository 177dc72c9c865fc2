package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"streamcount/api"
	"streamcount/api/apitype"
	"streamcount/cluster"
	"streamcount/lease"
	"streamcount/shard"
)

// behind is the etcd clusters that a node stands on.
type behind struct {
	cfg    *Config
	logs   logs
	tracer trace.Tracer
	// self is how the node is listed; nil for a command that is no node.
	self     *cluster.Node
	embedded *cluster.Embedded // nil unless the node runs an etcd of its own
	feed     *lease.Feed       // is told what happens on all shards; nil for a command

	mu      sync.Mutex
	clients map[string]*clientv3.Client // of the shards that are open
	etcds   map[string]*etcdInfo        // of those as well
	secret  []byte                      // nil until one shard has told it
	nodes   cached[[]cluster.Node]
}

// router returns a router over the shards that the configuration names.
func (b *behind) router(mapped bool) (*shard.Router, error) {
	b.clients, b.etcds = make(map[string]*clientv3.Client), make(map[string]*etcdInfo)
	return shard.New(shard.Config{
		Shards: b.cfg.shards(), Mapped: mapped, Open: b.open, TTL: b.cfg.TTL, Log: b.logs.slog,
	})
}

// open reaches a shard, however long that takes.
func (b *behind) open(ctx context.Context, s shard.Shard, first bool) (*shard.Opened, error) {
	endpoints, inside := s.Endpoints, len(s.Endpoints) == 0 && b.embedded != nil
	if inside {
		endpoints = b.embedded.Endpoints()
	}
	members := cluster.NewMembers(b.clientConfig(endpoints), b.cfg.near(endpoints))
	c, err := cluster.Connect(ctx, members.Config())
	if err != nil {
		return nil, err
	}
	secret, err := b.secretOf(ctx, c, first)
	if err != nil {
		return nil, errors.Join(err, closeClient(c))
	}
	etcd, follow := b.overNetwork(c, endpoints)
	if inside {
		etcd, follow = inProcess(b.embedded)
	}
	limiter, err := lease.New(etcd, lease.Config{
		Prefix: b.cfg.EtcdPrefix, Limit: b.cfg.Limit, TTL: b.cfg.TTL, Region: b.cfg.Region,
		Cooldown: b.cfg.Cooldown, Outage: lease.Outage(b.cfg.OnOutage), Secret: secret, Log: b.logs.slog,
		Feed: b.feed, Shard: s.Name,
		Tracer: b.tracer,
	})
	if err != nil {
		return nil, errors.Join(err, closeClient(c))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clients[s.Name], b.etcds[s.Name] = c, &etcdInfo{client: c, endpoints: endpoints}
	return &shard.Opened{
		Limiter: limiter,
		Run:     func(ctx context.Context) error { return b.accompany(ctx, c, members, follow) },
		Close: func() error {
			b.mu.Lock()
			delete(b.clients, s.Name)
			delete(b.etcds, s.Name)
			b.mu.Unlock()
			return closeClient(c)
		},
	}, nil
}

// accompany follows a shard's members and leader, and keeps the node listed there.
func (b *behind) accompany(
	ctx context.Context, c *clientv3.Client, members *cluster.Members, follow background,
) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return members.Run(ctx, c) })
	group.Go(func() error { return follow(ctx) })
	if b.self != nil {
		group.Go(func() error {
			r := cluster.NewRegistration(c, b.cfg.EtcdPrefix, *b.self, b.logs.slog)
			if b.feed != nil {
				r.Counters = b.counters
			}
			return r.Run(ctx)
		})
	}
	return group.Wait()
}

// secretOf is the key that signs stream ids, the same on all shards. Only the
// first may make one: another that has none yet gets the first's.
func (b *behind) secretOf(ctx context.Context, c *clientv3.Client, first bool) ([]byte, error) {
	for {
		b.mu.Lock()
		known := b.secret
		b.mu.Unlock()
		var err error
		switch {
		case known != nil:
			return known, cluster.ShareSecret(ctx, c, b.cfg.EtcdPrefix, known)
		case first:
			known, err = cluster.Secret(ctx, c, b.cfg.EtcdPrefix)
		default:
			known, err = cluster.FindSecret(ctx, c, b.cfg.EtcdPrefix)
		}
		if err != nil {
			return nil, err
		}
		if known != nil {
			b.mu.Lock()
			if b.secret == nil {
				b.secret = known
			}
			b.mu.Unlock()
			continue // and hold it against the others'
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// overNetwork reaches etcd through c, with renewals that go straight to etcd's
// leader while follow runs.
func (b *behind) overNetwork(c *clientv3.Client, endpoints []string) (etcd lease.Etcd, follow background) {
	leader := cluster.NewLeaderLease(c, b.clientConfig(endpoints))
	etcd = lease.Over(c)
	etcd.Lease = leader
	return etcd, leader.Run
}

// inProcess reaches the embedded etcd without a network.
func inProcess(e *cluster.Embedded) (etcd lease.Etcd, follow background) {
	in := e.InProcess()
	etcd = lease.Etcd{KV: in.KV, Lease: in.Lease, Watch: in.Watch, MaxTxnOps: e.MaxTxnOps()}
	return etcd, func(context.Context) error { return nil }
}

func (b *behind) clientConfig(endpoints []string) cluster.ClientConfig {
	return cluster.ClientConfig{
		Endpoints: endpoints,
		CertFile:  b.cfg.EtcdCert, KeyFile: b.cfg.EtcdKey, CAFile: b.cfg.EtcdCA,
		User: b.cfg.EtcdUser, PasswordFile: b.cfg.EtcdPasswordFile,
		Prefix: b.cfg.EtcdPrefix, Log: b.logs.zap,
	}
}

// backend is what the HTTP server stands on.
func (b *behind) backend(r *shard.Router) api.Backend {
	return api.Backend{
		Limiter: r,
		Rules:   r,
		Ready:   b.ready,
		Shards:  func(ctx context.Context) ([]apitype.Shard, error) { return b.describe(ctx, r) },

		Measures: r.Measures,
		Nodes:    b.listNodes,
		Busiest:  r.Busiest,
		Feed:     b.feed,
	}
}

// ready is nil when any shard answers: what is wrong with another is its users'
// trouble, and no reason to send all the others elsewhere.
func (b *behind) ready(ctx context.Context) error {
	b.mu.Lock()
	answers := make(chan error, len(b.clients))
	asked := len(b.clients)
	for name, c := range b.clients {
		go func() {
			err := cluster.Ready(ctx, c, b.cfg.EtcdPrefix)
			if err != nil && asked > 1 {
				err = fmt.Errorf("shard %s: %w", name, err)
			}
			answers <- err
		}()
	}
	b.mu.Unlock()
	all := errors.New("etcd has not been reached yet")
	for i := range asked {
		err := <-answers
		if err == nil {
			return nil
		}
		if i == 0 {
			all = err
		} else {
			all = errors.Join(all, err)
		}
	}
	return all
}
