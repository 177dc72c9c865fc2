package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/retry"
)

const (
	nodeTTL    = 15 * time.Second
	renewEvery = nodeTTL / 3
	// leaveTimeout is the timeout of unregistering a node. If that fails, the node stays in the
	// list for up to nodeTTL.
	leaveTimeout = 2 * time.Second
)

// A Node is one API process, as registered in etcd.
type Node struct {
	ID        string    `json:"id"` // unique among the nodes, without a slash
	Region    string    `json:"region,omitempty"`
	Address   string    `json:"address,omitempty"`
	Version   string    `json:"version,omitempty"`
	StartedAt time.Time `json:"startedAt"`
	// Supports are the needs of rules that the node supports; empty for nodes of earlier
	// versions.
	Supports []string `json:"supports,omitempty"`
	// The counters since the node started, and the time of the last report; zero for nodes of
	// earlier versions.
	Admitted   int64     `json:"admitted,omitempty"`
	Refused    int64     `json:"refused,omitempty"`
	ReportedAt time.Time `json:"reportedAt,omitzero"`
}

func nodeKey(prefix, id string) string { return prefix + "/nodes/" + id }

// Nodes returns the registered nodes in the order of their ids.
func Nodes(ctx context.Context, c *clientv3.Client, prefix string) ([]Node, error) {
	resp, err := c.Get(ctx, nodeKey(prefix, ""), clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("list nodes: %w", err)
	}
	nodes := make([]Node, 0, len(resp.Kvs))
	for _, kv := range resp.Kvs {
		var n Node
		id := strings.TrimPrefix(string(kv.Key), nodeKey(prefix, ""))
		if err := json.Unmarshal(kv.Value, &n); err != nil {
			n = Node{} // of a later version: only the id is known
		}
		n.ID = id
		nodes = append(nodes, n)
	}
	slices.SortFunc(nodes, func(a, b Node) int { return cmp.Compare(a.ID, b.ID) })
	return nodes, nil
}

// A Registration keeps a node in the list of nodes while Run runs.
type Registration struct {
	// Counters returns the counters that are written with every second renewal; nil if there
	// are none. Set it before Run.
	Counters func() (admitted, refused int64)

	etcd  *clientv3.Client
	key   string
	node  Node
	log   *slog.Logger
	every time.Duration // between renewals

	// The fields below are used only by Run.
	lease    clientv3.LeaseID // 0 while there is none
	expires  time.Time        // when the lease has expired at the latest, unless renewed
	failing  bool
	reported bool             // the previous renewal wrote the counters
	foreign  clientv3.LeaseID // another process's lease on this key, for which a warning was logged
}

// NewRegistration returns the registration of node. Only Run writes to etcd. A nil log
// discards all messages.
func NewRegistration(c *clientv3.Client, prefix string, node Node, log *slog.Logger) *Registration {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Registration{etcd: c, key: nodeKey(prefix, node.ID), node: node, log: log, every: renewEvery}
}

// value returns the current record of the node.
func (r *Registration) value() string {
	n := r.node
	if r.Counters != nil {
		n.Admitted, n.Refused = r.Counters()
		n.ReportedAt = time.Now().UTC().Truncate(time.Millisecond)
	}
	b, err := json.Marshal(n)
	if err != nil { // a Node holds nothing but text, numbers and a time after year 9999
		return "{}"
	}
	return string(b)
}

// Run keeps the node registered until ctx ends, and then unregisters it. It registers the node
// again if its lease or its key is lost, and retries while etcd is unavailable; that is never
// an error.
func (r *Registration) Run(ctx context.Context) error {
	defer r.unregister(ctx)
	wait := newBackoff()
	for {
		next := r.every
		if err := r.renew(ctx); err == nil {
			wait.Reset()
			r.report(nil)
		} else if ctx.Err() == nil {
			next = wait.Next()
			r.report(err)
		}
		if retry.Sleep(ctx, next) != nil {
			return nil
		}
	}
}

// report logs the first of consecutive failures, and their end.
func (r *Registration) report(err error) {
	switch {
	case err != nil && !r.failing:
		r.log.Warn("cannot keep this node registered, retrying", "key", r.key, "err", err)
	case err == nil && r.failing:
		r.log.Info("this node is registered again", "key", r.key)
	}
	r.failing = err != nil
}

// renew makes one attempt to renew the lease and to keep the key.
func (r *Registration) renew(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, defaultCallTimeout)
	defer cancel()
	if r.lease != 0 && time.Now().Before(r.expires) {
		err := r.keepAlive(ctx)
		if err == nil && r.Counters != nil && !r.reported {
			return r.put(ctx) // restores the key too
		}
		if err == nil {
			r.reported = false
			return r.checkKey(ctx)
		}
		if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return err
		}
	}
	return r.register(ctx)
}

func (r *Registration) register(ctx context.Context) error {
	r.lease = 0
	sent := time.Now()
	lease, err := r.etcd.Grant(ctx, int64(nodeTTL/time.Second))
	if err != nil {
		return fmt.Errorf("grant a lease: %w", err)
	}
	r.lease, r.expires = lease.ID, sent.Add(nodeTTL)
	return r.put(ctx)
}

func (r *Registration) put(ctx context.Context) error {
	if _, err := r.etcd.Put(ctx, r.key, r.value(), clientv3.WithLease(r.lease)); err != nil {
		return fmt.Errorf("put %s: %w", r.key, err)
	}
	r.reported = true
	return nil
}

// keepAlive renews the lease once, on a separate stream. clientv3's KeepAliveOnce retries
// without a pause while etcd is unavailable.
func (r *Registration) keepAlive(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	sent := time.Now()
	stream, err := pb.NewLeaseClient(r.etcd.ActiveConnection()).LeaseKeepAlive(ctx)
	if err != nil {
		return fmt.Errorf("renew lease: %w", err)
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: int64(r.lease)}); err != nil {
		return fmt.Errorf("renew lease: %w", err)
	}
	resp, err := stream.Recv()
	if err != nil {
		return fmt.Errorf("renew lease: %w", rpctypes.Error(err))
	}
	if resp.GetTTL() <= 0 {
		return rpctypes.ErrLeaseNotFound
	}
	r.expires = sent.Add(nodeTTL)
	return nil
}

// checkKey restores the key if it was deleted while its lease is alive.
func (r *Registration) checkKey(ctx context.Context) error {
	resp, err := r.etcd.Get(ctx, r.key) // with WithKeysOnly, etcd 3.7 omits the lease
	if err != nil {
		return fmt.Errorf("read %s: %w", r.key, err)
	}
	if len(resp.Kvs) == 0 {
		return r.put(ctx)
	}
	owner := clientv3.LeaseID(resp.Kvs[0].Lease)
	if owner != r.lease && owner != r.foreign {
		r.log.Warn("another process has registered with this node's name: configure a unique --node for each node",
			"key", r.key)
		r.foreign = owner
	}
	return nil
}

// unregister revokes the lease, which deletes the key, although ctx has ended.
func (r *Registration) unregister(ctx context.Context) {
	if r.lease == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	if _, err := r.etcd.Revoke(ctx, r.lease); err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		r.log.Warn("cannot unregister this node: it stays in the list until its lease expires",
			"key", r.key, "err", err)
	}
}
