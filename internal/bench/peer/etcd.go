package peer

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/cluster"
	"streamcount/lease"
	"streamcount/lease/streamid"
)

// connect returns a client of the etcd at cfg.EtcdEndpoints, or of an embedded etcd in
// cfg.Dir.
func connect(ctx context.Context, cfg Config) (c *clientv3.Client, died <-chan error, end func() error, err error) {
	clientCfg, closeEtcd := cluster.ClientConfig{Endpoints: cfg.EtcdEndpoints}, func() error { return nil }
	if len(clientCfg.Endpoints) == 0 {
		e, err := cluster.StartEmbedded(ctx, cluster.EmbedConfig{
			DataDir: filepath.Join(cfg.Dir, "etcd"), Log: cfg.EtcdLog,
		})
		if err != nil {
			return nil, nil, nil, err
		}
		clientCfg, died, closeEtcd = e.ClientConfig(), e.Err(), e.Close
	}
	clientCfg.Prefix, clientCfg.Log = cfg.EtcdPrefix, cfg.EtcdLog
	c, err = cluster.Connect(ctx, clientCfg)
	if err != nil {
		return nil, nil, nil, errors.Join(err, closeEtcd())
	}
	end = func() error {
		err := c.Close()
		if errors.Is(err, context.Canceled) { // a closed client reports its own context
			err = nil
		}
		return errors.Join(err, closeEtcd())
	}
	return c, died, end, nil
}

// naiveEtcd is the obvious limiter on etcd: each stream has a lease and a slot, and each
// operation is a separate call.
type naiveEtcd struct {
	unsupported
	cfg Config
	c   *clientv3.Client
}

func openNaive(ctx context.Context, cfg Config) (limiter, <-chan error, func() error, error) {
	c, died, end, err := connect(ctx, cfg)
	return &naiveEtcd{cfg: cfg, c: c}, died, end, err
}

func (n *naiveEtcd) userPrefix(user string) string { return n.cfg.EtcdPrefix + "/users/" + user + "/" }

func (n *naiveEtcd) slot(user string, slot int) string {
	return fmt.Sprintf("%s%03d", n.userPrefix(user), slot)
}

func naiveID(slot int, id clientv3.LeaseID) string { return fmt.Sprintf("%03d-%016x", slot, id) }

func naiveLease(id string) (clientv3.LeaseID, error) {
	_, hex, ok := strings.Cut(id, "-")
	l, err := strconv.ParseInt(hex, 16, 64)
	if !ok || err != nil {
		return 0, streamid.ErrMalformed
	}
	return clientv3.LeaseID(l), nil
}

// Start grants a lease and puts a key with the lease into the first free slot.
func (n *naiveEtcd) Start(ctx context.Context, user string, r lease.Request) (lease.Started, error) {
	for _, id := range r.Replaces {
		if _, err := n.Stop(ctx, user, id); err != nil && !errors.Is(err, lease.ErrEnded) {
			return lease.Started{}, err
		}
	}
	now := time.Now()
	granted, err := n.c.Grant(ctx, int64(n.cfg.TTL/time.Second))
	if err != nil {
		return lease.Started{}, unavailable("grant", err)
	}
	slot, count, err := n.claimSlot(ctx, user, granted.ID)
	if err != nil {
		return lease.Started{}, unavailable("claim a slot", err)
	}
	if slot < 0 {
		if _, err := n.c.Revoke(ctx, granted.ID); err != nil {
			return lease.Started{}, unavailable("revoke", err)
		}
		return lease.Started{}, n.cfg.limitError(count)
	}
	return n.cfg.started(user, naiveID(slot, granted.ID), count, now), nil
}

// claimSlot returns the claimed slot, or -1 if none was free, and the number of slots in
// use.
func (n *naiveEtcd) claimSlot(ctx context.Context, user string, id clientv3.LeaseID) (slot, count int, err error) {
	countOp := clientv3.OpGet(n.userPrefix(user), clientv3.WithPrefix(), clientv3.WithCountOnly())
	next := countOp
	for s := n.cfg.Limit - 1; s >= 0; s-- {
		key := n.slot(user, s)
		next = clientv3.OpTxn(
			[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)},
			[]clientv3.Op{clientv3.OpPut(key, user, clientv3.WithLease(id))},
			[]clientv3.Op{next},
		)
	}
	resp, err := n.c.Txn(ctx).Then(next, countOp).Commit()
	if err != nil {
		return 0, 0, err
	}
	count = int(resp.Responses[1].GetResponseRange().Count)
	level := resp.Responses[0].GetResponseTxn()
	for slot = range n.cfg.Limit {
		if level.Succeeded {
			return slot, count, nil
		}
		level = level.Responses[0].GetResponseTxn()
	}
	return -1, count, nil
}

func (n *naiveEtcd) Heartbeat(ctx context.Context, user, id string) (lease.Stream, error) {
	l, err := naiveLease(id)
	if err != nil {
		return lease.Stream{}, err
	}
	now := time.Now()
	_, err = n.c.KeepAliveOnce(ctx, l)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return lease.Stream{}, endedError()
	}
	if err != nil {
		return lease.Stream{}, unavailable("renew", err)
	}
	return n.cfg.stream(user, id, now), nil
}

func (n *naiveEtcd) Heartbeats(ctx context.Context, heartbeats []lease.HeartbeatRequest) []lease.HeartbeatResult {
	return heartbeatAll(ctx, heartbeats, n.Heartbeat)
}

// Stop revokes the stream's lease, which deletes its key.
func (n *naiveEtcd) Stop(ctx context.Context, user, id string) (lease.Usage, error) {
	l, err := naiveLease(id)
	if err != nil {
		return lease.Usage{}, err
	}
	if _, err := n.c.Revoke(ctx, l); errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return lease.Usage{}, endedError()
	} else if err != nil {
		return lease.Usage{}, unavailable("revoke", err)
	}
	count, err := countKeys(ctx, n.c, n.userPrefix(user))
	return n.cfg.usage(user, count), err
}

func (n *naiveEtcd) List(ctx context.Context, user string, _ lease.Consistency) (lease.Usage, error) {
	return listKeys(ctx, n.cfg, n.c, user, n.userPrefix(user))
}

func countKeys(ctx context.Context, c *clientv3.Client, prefix string) (int, error) {
	resp, err := c.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return 0, unavailable("count", err)
	}
	return int(resp.Count), nil
}

func listKeys(ctx context.Context, cfg Config, c *clientv3.Client, user, prefix string) (lease.Usage, error) {
	count, err := countKeys(ctx, c, prefix)
	if err == nil && count == 0 {
		err = lease.ErrNoStreams
	}
	return cfg.usage(user, count), err
}

// rawEtcd makes one etcd write per call. It enforces no limit.
type rawEtcd struct {
	unsupported
	cfg Config
	c   *clientv3.Client
}

func openRaw(ctx context.Context, cfg Config) (limiter, <-chan error, func() error, error) {
	c, died, end, err := connect(ctx, cfg)
	return &rawEtcd{cfg: cfg, c: c}, died, end, err
}

func (r *rawEtcd) userPrefix(user string) string { return r.cfg.EtcdPrefix + "/users/" + user + "/" }

// Start is one put.
func (r *rawEtcd) Start(ctx context.Context, user string, _ lease.Request) (lease.Started, error) {
	now, id := time.Now(), randomID()
	if _, err := r.c.Put(ctx, r.userPrefix(user)+id, user); err != nil {
		return lease.Started{}, unavailable("put", err)
	}
	return r.cfg.started(user, id, 1, now), nil
}

// Heartbeat is one put.
func (r *rawEtcd) Heartbeat(ctx context.Context, user, id string) (lease.Stream, error) {
	now := time.Now()
	if _, err := r.c.Put(ctx, r.userPrefix(user)+id, user); err != nil {
		return lease.Stream{}, unavailable("put", err)
	}
	return r.cfg.stream(user, id, now), nil
}

func (r *rawEtcd) Heartbeats(ctx context.Context, heartbeats []lease.HeartbeatRequest) []lease.HeartbeatResult {
	return heartbeatAll(ctx, heartbeats, r.Heartbeat)
}

// Stop is one delete.
func (r *rawEtcd) Stop(ctx context.Context, user, id string) (lease.Usage, error) {
	if _, err := r.c.Delete(ctx, r.userPrefix(user)+id); err != nil {
		return lease.Usage{}, unavailable("delete", err)
	}
	return r.cfg.usage(user, 0), nil
}

func (r *rawEtcd) List(ctx context.Context, user string, _ lease.Consistency) (lease.Usage, error) {
	return listKeys(ctx, r.cfg, r.c, user, r.userPrefix(user))
}

// randomID is an unguessable stream id.
func randomID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}
