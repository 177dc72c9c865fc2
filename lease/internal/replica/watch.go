package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"streamcount/internal/retry"
	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/schema"
	"streamcount/lease/streamid"
)

const (
	listPageSize     = 5000 // keys per read; a longer read would delay etcd's other requests
	progressInterval = 200 * time.Millisecond
)

// Run maintains the replica until ctx ends. It lists and watches, and it lists again
// when etcd has compacted the revisions that the watch needs, or when etcd was
// restored from a backup.
func (r *Replica) Run(ctx context.Context) error {
	listed := false
	backoff := retry.Backoff{Min: 10 * time.Millisecond, Max: time.Second}
	for ctx.Err() == nil {
		var err error
		if listed {
			if listed, err = r.sameHistory(ctx); !listed {
				r.lastProgress.Store(0)
				r.lastOwnWrite.Store(0) // its revision belongs to the lost history
			}
		}
		if !listed {
			err = r.list(ctx)
			listed = err == nil
		}
		if err == nil {
			began := time.Now()
			err = r.watch(ctx)
			if errors.Is(err, rpctypes.ErrCompacted) || errors.Is(err, rpctypes.ErrFutureRev) {
				r.lastProgress.Store(0)
				listed = false
			}
			if time.Since(began) > MaxProgressAge {
				backoff.Reset()
			}
		}
		if ctx.Err() == nil {
			r.lastError.Store(&err)
			r.cfg.Log.Debug("the watch of the streams ended; it is repeated", "listed", listed, "err", err)
		}
		_ = retry.Sleep(ctx, backoff.Next()) // the loop ends with ctx
	}
	r.lastProgress.Store(0)
	return nil
}

// sameHistory reports whether etcd's history still contains the replica's mark. It
// does not after etcd was restored from a backup; a watch from the replica's revision
// would then continue with another history. An error means that the comparison failed
// and has to be repeated; a new list is not needed.
func (r *Replica) sameHistory(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
	defer cancel()
	at, err := r.kv.Range(ctx, r.mark.readAt(r.keys))
	var before *pb.RangeResponse
	if err == nil && r.mark.isDelete() {
		ask := r.mark.readAt(r.keys)
		ask.Revision-- // the key still existed then
		before, err = r.kv.Range(ctx, ask)
	}
	switch known := rpctypes.Error(err); {
	case errors.Is(known, rpctypes.ErrCompacted), errors.Is(known, rpctypes.ErrFutureRev):
		return false, nil
	case err != nil:
		return true, fmt.Errorf("compare the replica with etcd: %w", err)
	}
	if r.watchFrom = r.applied.Load(); r.mark != nil {
		r.watchFrom = r.mark.Kv.ModRevision
	}
	return at.Header.Revision >= r.applied.Load() && r.mark.isIn(before.GetKvs(), at.Kvs), nil
}

// A historyMark identifies a history of etcd. It is the last event that a replica
// applied, or the newest put that it listed.
type historyMark mvccpb.Event

func (s *historyMark) isDelete() bool { return s != nil && s.Type != mvccpb.Event_PUT }

// readAt returns a read of the mark's key at the mark's revision.
func (s *historyMark) readAt(k schema.Keys) *pb.RangeRequest {
	if s == nil {
		return etcdop.Key(k.UsersPrefix()).Request()
	}
	ask := etcdop.Key(string(s.Kv.Key)).Request()
	ask.Revision = s.Kv.ModRevision
	return ask
}

// isIn reports whether the mark agrees with its key at the mark's revision, and for a
// deletion also with its key at the revision before.
func (s *historyMark) isIn(before, at []*mvccpb.KeyValue) bool {
	switch {
	case s == nil:
		return true
	case s.isDelete():
		return len(before) == 1 && len(at) == 0
	}
	return len(at) == 1 && at[0].ModRevision == s.Kv.ModRevision && bytes.Equal(at[0].Value, s.Kv.Value)
}

// list reads all keys in pages at one revision. It updates the replica in place,
// because a second copy of a million streams would not fit into memory. It reads the
// tombstones first and ignores those of streams that still exist: the decisions that
// wrote them failed.
func (r *Replica) list(ctx context.Context) error {
	r.listGeneration++
	var newest *historyMark
	pages := func(keys etcdop.Range, rev int64, each func(*mvccpb.KeyValue)) (int64, error) {
		return r.EachKey(ctx, keys, rev, func(kv *mvccpb.KeyValue) {
			if newest == nil || newest.Kv.ModRevision < kv.ModRevision {
				newest = &historyMark{Type: mvccpb.Event_PUT, Kv: kv}
			}
			each(kv)
		})
	}
	tombstones := make(map[streamid.Nonce]schema.Tombstone)
	rev, err := pages(etcdop.Prefix(r.keys.TombstonesPrefix()), 0, func(kv *mvccpb.KeyValue) {
		for _, g := range schema.DecodeTombstones(kv.Value) {
			tombstones[g.Nonce] = g
			r.bars.Set(g) // the list of the streams lifts the bars of sessions that have one
		}
	})
	if err != nil {
		return err
	}
	appliedBefore := r.applied.Load()
	_, err = pages(etcdop.Prefix(r.keys.UsersPrefix()), rev, func(kv *mvccpb.KeyValue) {
		if user, rest, ok := r.keys.ParseUserKey(kv.Key); ok {
			if r.putEntry(user, rest, kv).added != nil && kv.ModRevision <= appliedBefore {
				r.resurrected++ // the replica had applied the deletion of this put
			}
			delete(tombstones, schema.DecodeHead(kv.Value).Nonce)
		}
	})
	if err != nil {
		return err
	}
	for _, prefix := range []string{r.keys.PlansPrefix(), r.keys.OverridesPrefix()} {
		_, err = pages(etcdop.Prefix(prefix), rev, func(kv *mvccpb.KeyValue) { r.rules.put(r.keys, kv, r.listGeneration) })
		if err != nil {
			return err
		}
	}
	if err := r.readRouting(ctx, rev); err != nil {
		return err
	}
	if _, err = pages(etcdop.Key(r.keys.Secret()), rev, func(kv *mvccpb.KeyValue) { r.cfg.OnSecrets(kv.Value) }); err != nil {
		return err
	}
	r.sweep()
	if r.resurrected > 0 || rev < appliedBefore {
		r.cfg.Log.Warn("etcd has lost acknowledged writes, as after a restore from a backup: streams that had ended may exist again",
			"keys", r.resurrected, "revision", rev, "revision_before", appliedBefore)
		r.cfg.OnRestore()
		r.resurrected = 0
	}
	for n, g := range tombstones {
		if old, known := r.endings.Get(n); !known || old.Intended {
			r.endings.Put(n, g)
		}
	}
	r.mark, r.watchFrom = newest, rev
	r.applied.Store(rev) // lower than before if etcd was restored from a backup
	r.waiters.release(rev)
	r.lists.Add(1)
	r.cfg.Observer.Relisted(rev)
	return nil
}

// readRouting reads the routing record at revision rev.
func (r *Replica) readRouting(ctx context.Context, rev int64) error {
	now := &schema.RoutingRecord{}
	_, err := r.EachKey(ctx, etcdop.Key(r.keys.Routing()), rev, func(kv *mvccpb.KeyValue) { now = schema.DecodeRoutingRecord(kv) })
	if err != nil {
		return fmt.Errorf("read the routing record: %w", err)
	}
	if old := r.routing.Load(); old.Revision <= now.Revision || !r.Current() {
		r.routing.Store(now)
	}
	return nil
}

// EachKey calls each with the keys of a range at revision rev, in pages, and returns
// the revision. If rev is 0 it reads the current revision.
func (r *Replica) EachKey(ctx context.Context, keys etcdop.Range, rev int64, each func(*mvccpb.KeyValue)) (int64, error) {
	for {
		ask := keys.Request()
		ask.Limit, ask.Revision = listPageSize, rev
		call, cancel := context.WithTimeout(ctx, r.cfg.Timeout)
		resp, err := r.kv.Range(call, ask)
		cancel()
		if err != nil {
			return 0, fmt.Errorf("list streams: %w", err)
		}
		if rev == 0 {
			rev = resp.Header.Revision
		}
		for _, kv := range resp.Kvs {
			each(kv)
		}
		if !resp.More {
			return rev, nil
		}
		keys.From = append(resp.Kvs[len(resp.Kvs)-1].Key, 0)
	}
}

// errWatchStalled means that the watch made no progress.
var errWatchStalled = errors.New("the watch makes no progress")

// watch watches from watchFrom until the watch breaks, makes no progress, or ctx ends.
// An event may be delivered twice.
func (r *Replica) watch(ctx context.Context) error {
	// The answer to a progress request goes to every watch on the same gRPC stream,
	// so this watch needs a stream that it does not share. etcd's client selects the
	// stream by the metadata of the context. The value alternates, so that the watch
	// does not share the stream of its predecessor.
	r.watchCount++
	ctx = metadata.AppendToOutgoingContext(clientv3.WithRequireLeader(withSingleOpen(ctx)),
		"streamcount-watch", strconv.Itoa(r.watchCount%2))
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	// The revision is not a future one: etcd reports no progress to such a watch.
	events := r.watcher.Watch(ctx, r.keys.Prefix+"/", clientv3.WithPrefix(),
		clientv3.WithRev(r.watchFrom), clientv3.WithCreatedNotify())
	tick := time.NewTicker(progressInterval / 10) // until the first progress
	defer tick.Stop()
	progress := watchProgress{replica: r, ctx: ctx, lastProgress: time.Now()}
	for {
		select {
		case resp, ok := <-events:
			switch {
			case !ok:
				return context.Cause(ctx)
			case resp.CompactRevision != 0:
				return rpctypes.ErrCompacted
			case resp.Err() != nil:
				return resp.Err()
			case resp.Created:
				progress.watchCreated()
			case resp.IsProgressNotify():
				r.advance(resp.Header.Revision)
				progress.requestAnswered()
				tick.Reset(progressInterval)
			default:
				// The header's revision may be newer than events that are still to come.
				r.Apply(resp.Events)
				progress.findBeacon(resp.Events)
			}
		case now := <-tick.C:
			if now.Sub(progress.lastProgress) > 2*MaxProgressAge {
				return errWatchStalled
			}
			progress.request(now)
		case <-r.wantProgress:
			progress.request(time.Now())
		}
	}
}
