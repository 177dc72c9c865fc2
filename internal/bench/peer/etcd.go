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
)

// connect returns a client of the etcd that cfg names, or of one in cfg.Dir.
func connect(ctx context.Context, cfg Config) (c *clientv3.Client, died <-chan error, end func() error, err error) {
	endpoints, closeEtcd := cfg.EtcdEndpoints, func() error { return nil }
	if len(endpoints) == 0 {
		e, err := cluster.StartEmbedded(ctx, cluster.EmbedConfig{
			DataDir: filepath.Join(cfg.Dir, "etcd"), Log: cfg.EtcdLog,
		})
		if err != nil {
			return nil, nil, nil, err
		}
		endpoints, died, closeEtcd = e.Endpoints(), e.Err(), e.Close
	}
	c, err = cluster.Connect(ctx, cluster.ClientConfig{
		Endpoints: endpoints, Prefix: cfg.EtcdPrefix, Log: cfg.EtcdLog,
	})
	if err != nil {
		return nil, nil, nil, errors.Join(err, closeEtcd())
	}
	end = func() error {
		err := c.Close()
		if errors.Is(err, context.Canceled) { // its own context's end
			err = nil
		}
		return errors.Join(err, closeEtcd())
	}
	return c, died, end, nil
}

// naive is what one writes first on etcd: a lease and a slot for each stream,
// by one call after another.
type naive struct {
	rest
	cfg Config
	c   *clientv3.Client
}

func openNaive(ctx context.Context, cfg Config) (limiter, <-chan error, func() error, error) {
	c, died, end, err := connect(ctx, cfg)
	return &naive{cfg: cfg, c: c}, died, end, err
}

func (n *naive) users(user string) string { return n.cfg.EtcdPrefix + "/users/" + user + "/" }

func (n *naive) slot(user string, slot int) string { return fmt.Sprintf("%s%03d", n.users(user), slot) }

func naiveID(slot int, id clientv3.LeaseID) string { return fmt.Sprintf("%03d-%016x", slot, id) }

func naiveLease(id string) (clientv3.LeaseID, error) {
	_, hex, ok := strings.Cut(id, "-")
	l, err := strconv.ParseInt(hex, 16, 64)
	if !ok || err != nil {
		return 0, lease.ErrBadID
	}
	return clientv3.LeaseID(l), nil
}

// Start grants a lease, and puts a key on it in the first free slot.
func (n *naive) Start(ctx context.Context, user string, r lease.Request) (lease.Started, error) {
	if r.Replaces != "" {
		if _, err := n.Stop(ctx, user, r.Replaces); err != nil && !errors.Is(err, lease.ErrEnded) {
			return lease.Started{}, err
		}
	}
	now := time.Now()
	granted, err := n.c.Grant(ctx, int64(n.cfg.TTL/time.Second))
	if err != nil {
		return lease.Started{}, unavailable("grant", err)
	}
	slot, count, err := n.take(ctx, user, granted.ID)
	if err != nil {
		return lease.Started{}, unavailable("take a slot", err)
	}
	if slot < 0 {
		if _, err := n.c.Revoke(ctx, granted.ID); err != nil {
			return lease.Started{}, unavailable("revoke", err)
		}
		return lease.Started{}, n.cfg.full(count)
	}
	return n.cfg.started(user, naiveID(slot, granted.ID), count, now), nil
}

// take returns slot -1 where none was free, and how many are taken now.
func (n *naive) take(ctx context.Context, user string, id clientv3.LeaseID) (slot, count int, err error) {
	countOp := clientv3.OpGet(n.users(user), clientv3.WithPrefix(), clientv3.WithCountOnly())
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

func (n *naive) Heartbeat(ctx context.Context, user, id string) (lease.Stream, error) {
	l, err := naiveLease(id)
	if err != nil {
		return lease.Stream{}, err
	}
	now := time.Now()
	_, err = n.c.KeepAliveOnce(ctx, l)
	if errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return lease.Stream{}, ended()
	}
	if err != nil {
		return lease.Stream{}, unavailable("renew", err)
	}
	return n.cfg.stream(user, id, now), nil
}

func (n *naive) Heartbeats(ctx context.Context, beats []lease.Beat) []lease.BeatResult {
	return beatAll(ctx, beats, n.Heartbeat)
}

// Stop revokes the stream's lease, which deletes its key.
func (n *naive) Stop(ctx context.Context, user, id string) (lease.Usage, error) {
	l, err := naiveLease(id)
	if err != nil {
		return lease.Usage{}, err
	}
	if _, err := n.c.Revoke(ctx, l); errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return lease.Usage{}, ended()
	} else if err != nil {
		return lease.Usage{}, unavailable("revoke", err)
	}
	count, err := countKeys(ctx, n.c, n.users(user))
	return n.cfg.usage(user, count), err
}

func (n *naive) List(ctx context.Context, user string, _ lease.Consistency) (lease.Usage, error) {
	return listKeys(ctx, n.cfg, n.c, user, n.users(user))
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

// raw is the yardstick: one etcd write for each call, whatever it means.
type raw struct {
	rest
	cfg Config
	c   *clientv3.Client
}

func openRaw(ctx context.Context, cfg Config) (limiter, <-chan error, func() error, error) {
	c, died, end, err := connect(ctx, cfg)
	return &raw{cfg: cfg, c: c}, died, end, err
}

func (r *raw) users(user string) string { return r.cfg.EtcdPrefix + "/users/" + user + "/" }

// Start is one put.
func (r *raw) Start(ctx context.Context, user string, _ lease.Request) (lease.Started, error) {
	now, id := time.Now(), randomID()
	if _, err := r.c.Put(ctx, r.users(user)+id, user); err != nil {
		return lease.Started{}, unavailable("put", err)
	}
	return r.cfg.started(user, id, 1, now), nil
}

// Heartbeat is one put.
func (r *raw) Heartbeat(ctx context.Context, user, id string) (lease.Stream, error) {
	now := time.Now()
	if _, err := r.c.Put(ctx, r.users(user)+id, user); err != nil {
		return lease.Stream{}, unavailable("put", err)
	}
	return r.cfg.stream(user, id, now), nil
}

func (r *raw) Heartbeats(ctx context.Context, beats []lease.Beat) []lease.BeatResult {
	return beatAll(ctx, beats, r.Heartbeat)
}

// Stop is one delete.
func (r *raw) Stop(ctx context.Context, user, id string) (lease.Usage, error) {
	if _, err := r.c.Delete(ctx, r.users(user)+id); err != nil {
		return lease.Usage{}, unavailable("delete", err)
	}
	return r.cfg.usage(user, 0), nil
}

func (r *raw) List(ctx context.Context, user string, _ lease.Consistency) (lease.Usage, error) {
	return listKeys(ctx, r.cfg, r.c, user, r.users(user))
}

// randomID is an unguessable stream id.
func randomID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b[:])
}
