package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"streamcount/api"
	"streamcount/api/apitype"
	"streamcount/cluster"
	"streamcount/events"
	"streamcount/internal/config"
	"streamcount/internal/retry"
	"streamcount/internal/stalecache"
	"streamcount/lease"
	"streamcount/lease/rules"
	"streamcount/lease/streamid"
	"streamcount/shard"
)

// backend holds the connections to the etcd clusters of the service.
type backend struct {
	cfg    *config.Config
	logs   logger
	tracer trace.Tracer
	// self is the registration of the node; nil for a command.
	self     *cluster.Node
	embedded *cluster.Embedded // nil unless the node runs an embedded etcd
	audit    *slog.Logger      // nil for a command, or if there is no audit log
	actor    string            // the user who runs a command; "" for a node
	feed     *events.Feed      // receives the events of all shards; nil for a command
	bars     *lease.Bars       // of all shards

	mu      sync.Mutex
	clients map[string]*clientv3.Client // by name of the open shards
	etcds   map[string]*shardInfo       // likewise
	secret  []byte                      // signs stream ids; nil until it was read from a shard
	// networkKey computes the networks of viewers; nil until it was read, or if there are none.
	networkKey []byte
	// edgeKey is the secret of the edge; nil until it was read, or if there is no edge.
	edgeKey []byte
	nodes   *stalecache.Cache[[]cluster.Node]
	older   olderNodes
}

// newRouter returns a router over the configured shards. If mapped is set, the
// configuration contains the complete list of shards, and not one of them.
func (b *backend) newRouter(mapped bool) (*shard.Router, error) {
	b.clients, b.etcds = make(map[string]*clientv3.Client), make(map[string]*shardInfo)
	b.nodes = newInfoCache[[]cluster.Node]()
	b.bars = lease.NewBars(b.cfg.Cooldown)
	return shard.New(shard.Config{
		Shards: b.cfg.EtcdClusters(), Mapped: mapped, Open: b.open, TTL: b.cfg.TTL, Log: b.logs.slog,
		Audit: b.audit, By: b.actor,
	})
}

// open connects to a shard and creates its limiter. It retries until ctx ends. first is set
// for the shard that stores the secret of the service.
func (b *backend) open(ctx context.Context, s shard.Shard, first bool) (*shard.Connection, error) {
	cfg, inProcess := b.clientConfig(s.Endpoints), len(s.Endpoints) == 0 && b.embedded != nil
	if inProcess {
		local := b.embedded.ClientConfig()
		cfg.Endpoints, cfg.DialOptions = local.Endpoints, local.DialOptions
	}
	cfg, err := cfg.WithSession()
	if err != nil {
		return nil, err
	}
	members := cluster.NewMembers(cfg, b.cfg.NearEndpoints(cfg.Endpoints))
	c, err := cluster.Connect(ctx, members.Config())
	if err != nil {
		return nil, err
	}
	secret, err := b.sharedSecret(ctx, c, first)
	if err == nil && b.cfg.NetworkAttribute {
		_, err = b.shared(ctx, c, first, cluster.NetworkKey(b.cfg.EtcdPrefix), &b.networkKey, bytes.Equal)
	}
	if err == nil && b.cfg.EdgeListen != "" {
		_, err = b.shared(ctx, c, first, cluster.EdgeKey(b.cfg.EtcdPrefix), &b.edgeKey, bytes.Equal)
	}
	if err != nil {
		return nil, errors.Join(err, closeClient(c))
	}
	etcd, follow := overNetwork(c, cfg)
	if inProcess {
		etcd, follow = overInProcess(b.embedded)
	}
	limiter, err := lease.New(etcd, lease.Config{
		Prefix: b.cfg.EtcdPrefix, Limit: b.cfg.Limit, MaxStreams: b.cfg.MaxStreams, TTL: b.cfg.TTL, Region: b.cfg.Region,
		Cooldown: b.cfg.Cooldown, Bars: b.bars, MaxStreamAge: b.cfg.MaxStreamAge, Outage: lease.Outage(b.cfg.OnOutage), Secret: secret, Log: b.logs.slog,
		Observer: b.feed.Publisher(s.Name), Shard: s.Name, Audit: b.audit,
		Tracer: b.tracer, Nodes: func(ctx context.Context) ([]rules.Node, error) { return ruleNodes(ctx, c, b.cfg.EtcdPrefix) },
	})
	if err != nil {
		return nil, errors.Join(err, closeClient(c))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clients[s.Name], b.etcds[s.Name] = c, &shardInfo{client: c, endpoints: cfg.Endpoints, status: newInfoCache[etcdStatus]()}
	return &shard.Connection{
		Limiter: limiter,
		Run:     func(ctx context.Context) error { return b.runShard(ctx, c, members, follow) },
		Close: func() error {
			b.mu.Lock()
			delete(b.clients, s.Name)
			delete(b.etcds, s.Name)
			b.mu.Unlock()
			return closeClient(c)
		},
	}, nil
}

// runShard checks the members of a shard, follows its leader and registers the node there
// until ctx ends.
func (b *backend) runShard(
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

// sharedSecret returns the secret that signs stream ids.
func (b *backend) sharedSecret(ctx context.Context, c *clientv3.Client, first bool) ([]byte, error) {
	return b.shared(ctx, c, first, cluster.StreamIDSecret(b.cfg.EtcdPrefix), &b.secret, secretsRelated)
}

// shared returns a secret that is the same on all shards, and which the node keeps in known.
// It creates the secret only on the first shard, and copies it to shards that have none.
func (b *backend) shared(
	ctx context.Context, c *clientv3.Client, first bool, from cluster.Shared, known *[]byte, related func(a, b []byte) bool,
) ([]byte, error) {
	for {
		b.mu.Lock()
		secret := *known
		b.mu.Unlock()
		var err error
		switch {
		case secret != nil:
			return secret, from.Share(ctx, c, secret, related)
		case first:
			secret, err = from.GetOrCreate(ctx, c)
		default:
			secret, err = from.Find(ctx, c)
		}
		if err != nil {
			return nil, err
		}
		if secret != nil {
			b.mu.Lock()
			if *known == nil {
				*known = secret
			}
			b.mu.Unlock()
			continue // and compare it with the secrets of the other shards
		}
		if err := retry.Sleep(ctx, findSecretInterval); err != nil {
			return nil, err
		}
	}
}

// findSecretInterval is how often a shard without a secret checks for the secret of the
// first shard.
const findSecretInterval = 200 * time.Millisecond

// secretsRelated reports whether two shards have secrets of the same service. The secrets
// may differ after an interrupted rotation.
func secretsRelated(a, b []byte) bool {
	one, err := streamid.ParseSecrets(a)
	other, err2 := streamid.ParseSecrets(b)
	return err == nil && err2 == nil && one.Overlaps(other)
}

// overNetwork returns etcd through c. Keep-alives are sent directly to the leader of etcd
// while follow runs.
func overNetwork(c *clientv3.Client, cfg cluster.ClientConfig) (etcd lease.Etcd, follow background) {
	leader := cluster.NewLeaderLease(c, cfg)
	etcd = lease.FromClient(c)
	etcd.Lease = leader
	return etcd, leader.Run
}

// overInProcess returns the embedded etcd without a network connection.
func overInProcess(e *cluster.Embedded) (etcd lease.Etcd, follow background) {
	in := e.InProcess()
	etcd = lease.Etcd{KV: in.KV, Lease: in.Lease, Watch: in.Watch, MaxTxnOps: e.MaxTxnOps()}
	return etcd, func(context.Context) error { return nil }
}

func (b *backend) clientConfig(endpoints []string) cluster.ClientConfig {
	return cluster.ClientConfig{
		Endpoints: endpoints,
		CertFile:  b.cfg.EtcdCert, KeyFile: b.cfg.EtcdKey, CAFile: b.cfg.EtcdCA,
		User: b.cfg.EtcdUser, PasswordFile: b.cfg.EtcdPasswordFile, InsecurePassword: b.cfg.EtcdInsecurePassword,
		Prefix: b.cfg.EtcdPrefix, Log: b.logs.zap,
	}
}

// apiBackend returns the functions that the HTTP server calls.
func (b *backend) apiBackend(r *shard.Router) api.Backend {
	b.mu.Lock()
	networkKey := b.networkKey
	b.mu.Unlock()
	return api.Backend{
		NetworkKey: networkKey,

		Limiter: r,
		Rules:   r,
		Data:    r,
		Ready:   b.ready,
		Shards:  func(ctx context.Context) ([]apitype.Shard, error) { return b.describeShards(ctx, r) },

		Measures: r.Stats,
		Nodes:    b.listNodes,

		Compatibility: func() rules.Compatibility { return b.compatibility(r) },

		TopUsers: r.TopUsers,
		Feed:     b.feed,
	}
}

// ready returns nil if any shard is available. If only some are, the node stays ready,
// because other nodes cannot serve the users of the other shards either.
func (b *backend) ready(ctx context.Context) error {
	b.mu.Lock()
	answers := make(chan error, len(b.clients))
	shards := len(b.clients)
	for name, c := range b.clients {
		go func() {
			err := cluster.Ready(ctx, c, b.cfg.EtcdPrefix)
			if err != nil && shards > 1 {
				err = fmt.Errorf("shard %s: %w", name, err)
			}
			answers <- err
		}()
	}
	b.mu.Unlock()
	all := errors.New("etcd has not been reached yet")
	for i := range shards {
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
