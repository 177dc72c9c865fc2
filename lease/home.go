package lease

import (
	"context"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Where users are spread over several etcd clusters, each of them holds a key that
// says how. A Limiter does not read it, but every start and every change of a
// rule asks in its transaction that it is still the put by which the caller chose
// this cluster: a node that has not heard of a change admits nobody.

// ErrRouting means that the key which says where users live is not the one that
// the caller went by. Nothing was written.
var ErrRouting = errors.New("lease: users have been spread anew")

// ShardsKey is the key that says how users are spread, at its last put. The zero
// ShardsKey means that there is none.
type ShardsKey struct {
	Value []byte
	Mod   int64 // the revision of the put
}

func (k keys) shardsKey() string { return k.prefix + "/shards" }

// departed holds what a user had here until it has arrived where he lives now.
func (k keys) departed(user string) string { return k.departures() + user }

func (k keys) departures() string { return k.prefix + "/departed/" }

// arrived says that what the user had elsewhere has been taken in here, so that
// it never is a second time. It stays until the users are spread anew.
func (k keys) arrived(user string) string { return k.arrivals() + user }

func (k keys) arrivals() string { return k.prefix + "/arrived/" }

func shardsKeyOf(kv *mvccpb.KeyValue) *ShardsKey {
	if kv == nil {
		return &ShardsKey{}
	}
	return &ShardsKey{kv.Value, kv.ModRevision}
}

// Shards is the newest put of the key that this node knows of. What Heartbeat,
// List or Remove say to be gone was gone at a time when this was the newest, or
// an older one.
func (l *Limiter) Shards() *ShardsKey { return l.view.shardsKey.Load() }

// ReadShards asks etcd for the key. Returns [ErrUnavailable].
func (l *Limiter) ReadShards(ctx context.Context) (*ShardsKey, error) {
	ctx, cancel := l.bound(ctx)
	defer cancel()
	kv, err := l.readRule(ctx, l.keys.shardsKey())
	if err != nil {
		return nil, unavailable("read how users are spread", err)
	}
	return l.view.heardOfShards(shardsKeyOf(kv)), nil
}

// PutShards writes the key if it is still was, and, with unused, if there is no
// stream here. Else the error is [ErrRouting], or [ErrInUse]. On [ErrUnavailable]
// it may have been written.
func (l *Limiter) PutShards(ctx context.Context, value []byte, was *ShardsKey, unused bool) (*ShardsKey, error) {
	ctx, cancel := l.bound(ctx)
	defer cancel()
	key, all := l.keys.shardsKey(), below(l.keys.users())
	t := &pb.TxnRequest{
		Compare: []*pb.Compare{writtenAt(key, was.Mod)},
		Success: []*pb.RequestOp{putOp(key, value, 0)},
		Failure: []*pb.RequestOp{readOp(oneKey(key))},
	}
	if unused {
		t.Compare = append(t.Compare, notPutSince(all, 0))
	}
	resp, err := l.etcd.KV.Txn(ctx, t)
	if err != nil {
		return nil, unavailable("write how users are spread", err)
	}
	if resp.Succeeded {
		return l.view.heardOfShards(&ShardsKey{value, resp.Header.Revision}), nil
	}
	now := &ShardsKey{}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 {
		now = shardsKeyOf(kvs[0])
	}
	l.view.heardOfShards(now)
	if now.Mod == was.Mod {
		return nil, ErrInUse
	}
	return nil, ErrRouting
}

// ErrInUse means that there are streams where there should be none.
var ErrInUse = errors.New("lease: there are streams already")

// heardOfShards notes the key, unless a newer one is known, and returns the newer.
func (v *view) heardOfShards(k *ShardsKey) *ShardsKey {
	for {
		old := v.shardsKey.Load()
		if old.Mod >= k.Mod {
			return old
		}
		if v.shardsKey.CompareAndSwap(old, k) {
			return k
		}
	}
}

// listShards reads the key at revision rev, whatever was known before.
func (v *view) listShards(ctx context.Context, rev int64) error {
	now := &ShardsKey{}
	_, err := v.pages(ctx, oneKey(v.keys.shardsKey()), rev, func(kv *mvccpb.KeyValue) { now = shardsKeyOf(kv) })
	if err != nil {
		return fmt.Errorf("read how users are spread: %w", err)
	}
	if old := v.shardsKey.Load(); old.Mod <= now.Mod || !v.current() {
		v.shardsKey.Store(now)
	}
	return nil
}

// applyRule takes in a key that is no stream's.
func (v *view) applyRule(e *mvccpb.Event) {
	if string(e.Kv.Key) == v.keys.shardsKey() {
		v.heardOfShards(&ShardsKey{e.Kv.Value, e.Kv.ModRevision}) // nobody deletes it
		return
	}
	if e.Type == mvccpb.Event_PUT {
		v.rules.put(v.keys, e.Kv, v.gen)
	} else {
		v.rules.remove(v.keys, e.Kv.Key)
	}
}
