package userdata

import (
	"context"
	"errors"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"streamcount/internal/retry"
	"streamcount/lease/internal/commit"
	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/leasepool"
	"streamcount/lease/internal/leasestatus"
	"streamcount/lease/internal/replica"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
	"streamcount/lease/userid"
)

// ErrNoData means that nothing is stored about the user.
var ErrNoData = errors.New("lease: nothing is stored about the user")

// A Store reads and erases the data of users in one etcd cluster. It is safe for concurrent
// use.
type Store struct{ cfg Config }

// Config configures a [Store].
type Config struct {
	KV           pb.KVClient
	Keys         schema.Keys
	Batch        *commit.Batcher
	Statuses     *leasestatus.Reader
	Replica      *replica.Replica
	WithDeadline func(context.Context) (context.Context, context.CancelFunc)                // bounds a call
	StreamID     func(user string, e schema.Entry) string                                   // returns the id of a stream
	LeaseOf      func(user string, e schema.Entry) leasepool.Lease                          // returns the lease of a stream
	Written      func(user string, revision int64)                                          // records a write of this node
	Ended        func(user string, leases []leasepool.Lease, tombstones []schema.Tombstone) // records streams that this node has ended
}

// New returns a Store.
func New(cfg Config) *Store { return &Store{cfg: cfg} }

// Options are the options of the calls of a [Store].
type Options struct {
	// RoutingRevision is the revision of the routing record by which the caller chose this
	// etcd cluster; 0 if there is none.
	RoutingRevision int64
	// KeepMark keeps the mark of a user who has come from another etcd cluster. While users
	// move, the mark prevents that a slow node imports the user's former streams again.
	KeepMark bool
}

// The kinds of keys that contain the id of a user, as indexes.
const (
	streams = iota
	override
	cooldowns
	departed
	arrived
	kinds // the number of constants above
)

// ranges returns the keys of user of each kind.
func (s *Store) ranges(user string) [kinds]etcdop.Range {
	k := s.cfg.Keys
	return [kinds]etcdop.Range{
		streams:   etcdop.Prefix(k.UserPrefix(user)),
		override:  etcdop.Key(k.Override(user)),
		cooldowns: etcdop.Prefix(k.UserCooldowns(user)),
		departed:  etcdop.Key(k.Departed(user)),
		arrived:   etcdop.Key(k.Arrived(user)),
	}
}

// A snapshot contains the keys of a user at one etcd revision.
type snapshot struct {
	user     string
	kvs      [kinds][]*mvccpb.KeyValue
	revision int64
	term     uint64 // raft term of the member that answered
}

// Read returns everything that is stored about user, by one linearizable read. It returns
// lease.ErrBadUser, [ErrNoData], lease.ErrRouting and lease.ErrUnavailable.
func (s *Store) Read(ctx context.Context, user string, how Options) (Data, error) {
	if !userid.Valid(user) {
		return Data{}, schema.ErrBadUserID
	}
	ctx, cancel := s.cfg.WithDeadline(ctx)
	defer cancel()
	now, err := s.read(ctx, user, how)
	switch {
	case err != nil:
		return Data{}, err
	case now.empty():
		return Data{}, ErrNoData
	}
	var leases []int64
	for _, kvs := range now.kvs {
		for _, kv := range kvs {
			if kv.Lease != 0 {
				leases = append(leases, kv.Lease)
			}
		}
	}
	return s.decode(now, s.cfg.Statuses.Query(ctx, now.term, leases)), nil
}

// Erase removes everything that is stored about user in one transaction, and ends the
// streams with the reason [policy.ReasonRemoved], which bars their sessions like a removal.
// It does not affect a start that etcd applies later. Erase may be repeated. It returns lease.ErrBadUser, [ErrNoData],
// lease.ErrRouting, and lease.ErrUnavailable, after which the data may or may not be erased.
func (s *Store) Erase(ctx context.Context, user string, how Options) (Erased, error) {
	if !userid.Valid(user) {
		return Erased{}, schema.ErrBadUserID
	}
	ctx, cancel := s.cfg.WithDeadline(ctx)
	defer cancel()
	var unknown *snapshot // an attempt to erase these keys may have been applied
	for {
		now, err := s.read(ctx, user, how)
		switch {
		case err != nil:
		case unknown != nil && !now.overlaps(*unknown, how):
			return unknown.count(how), nil
		case now.empty():
			return Erased{}, ErrNoData
		case now.count(how) == (Erased{MarkKept: true}):
			return Erased{MarkKept: true}, nil
		default:
			var deleted *snapshot
			deleted, err = s.tryErase(ctx, now, how)
			switch {
			case deleted != nil && !deleted.empty():
				return deleted.count(how), nil
			case err != nil && !errors.Is(err, etcdop.ErrNotApplied):
				unknown = &now
			}
		}
		if errors.Is(err, schema.ErrRouting) {
			return Erased{}, err
		}
		if retry.Sleep(ctx, retryDelay) != nil {
			return Erased{}, etcdop.Unavailable("erase "+user, errors.Join(err, context.Cause(ctx)))
		}
	}
}

const retryDelay = 20 * time.Millisecond

// read reads the keys of user. It returns lease.ErrRouting if the routing record has
// another revision than that in how.
func (s *Store) read(ctx context.Context, user string, how Options) (snapshot, error) {
	ranges := s.ranges(user)
	resp, err := etcdop.ReadAll(ctx, s.cfg.KV, append(ranges[:], etcdop.Key(s.cfg.Keys.Routing()))...)
	if err != nil {
		return snapshot{}, etcdop.Unavailable("read the data of "+user, err)
	}
	now := snapshot{user: user, revision: resp.Header.Revision, term: resp.Header.RaftTerm}
	for kind := range now.kvs {
		now.kvs[kind] = resp.Responses[kind].GetResponseRange().Kvs
	}
	routing := &schema.RoutingRecord{}
	if kvs := resp.Responses[kinds].GetResponseRange().Kvs; len(kvs) == 1 {
		routing = schema.DecodeRoutingRecord(kvs[0])
	}
	s.cfg.Replica.NoteRouting(routing)
	if routing.Revision != how.RoutingRevision {
		return snapshot{}, schema.ErrRouting
	}
	return now, nil
}

// tryErase sends one transaction that deletes the keys in now, and returns those that it
// deleted. It returns nil if another key was put since.
func (s *Store) tryErase(ctx context.Context, now snapshot, how Options) (*snapshot, error) {
	var tombstones []schema.Tombstone
	leases := map[streamid.Nonce]leasepool.Lease{}
	for _, e := range schema.NewEntries(s.cfg.Keys, now.user, now.kvs[streams]) {
		if isStream(e) && len(tombstones) < leasepool.MaxKeysPerLease {
			tombstones = append(tombstones, schema.NewTombstone(now.user, e, policy.ReasonRemoved))
			leases[e.Nonce] = s.cfg.LeaseOf(now.user, e)
		}
	}
	t, deletes := s.txn(now, how)
	resp, at, err := s.cfg.Batch.Commit(&commit.Write{User: now.user, Txn: t, Tombstones: tombstones, Ctx: ctx})
	if err != nil || !resp.Succeeded {
		return nil, err
	}
	s.cfg.Written(now.user, at.Revision)
	deleted := &snapshot{user: now.user, revision: at.Revision}
	for i, kind := range deletes {
		deleted.kvs[kind] = resp.Responses[i].GetResponseDeleteRange().PrevKvs
	}
	deleted.kvs[arrived] = append(deleted.kvs[arrived], now.kept(how)...)
	// Another caller may have ended one of the streams since. That caller owns its lease, and its
	// reason applies.
	var owned []leasepool.Lease
	for _, kv := range deleted.kvs[streams] {
		if lease, ok := leases[schema.DecodeHead(kv.Value).Nonce]; ok {
			owned = append(owned, lease)
		}
	}
	s.cfg.Ended(now.user, owned, schema.TombstonesOf(deleted.kvs[streams], tombstones))
	return deleted, nil
}

// txn returns the transaction that deletes the keys in now, and the kinds of its deletions
// in order. Its conditions are that none of the user's keys was put since, and that the
// routing record is the same. So a transaction that etcd receives late, after its caller has
// sent another, deletes nothing that was put later.
func (s *Store) txn(now snapshot, how Options) (t *pb.TxnRequest, deletes []int) {
	t = &pb.TxnRequest{Compare: []*pb.Compare{etcdop.ModRevisionIs(s.cfg.Keys.Routing(), how.RoutingRevision)}}
	for kind, r := range s.ranges(now.user) {
		t.Compare = append(t.Compare, etcdop.NoPutAfter(r, now.revision))
		if now.erases(kind, how) {
			op := etcdop.Delete(r)
			op.GetRequestDeleteRange().PrevKv = true
			t.Success, deletes = append(t.Success, op), append(deletes, kind)
		}
	}
	if len(now.kvs[override]) > 0 { // every change of a rule puts this key
		t.Success = append(t.Success, etcdop.Put(s.cfg.Keys.Rules(), nil, 0))
	}
	return t, deletes
}

// isStream reports whether streamcount wrote the key.
func isStream(e schema.Entry) bool { return e.Nonce != (streamid.Nonce{}) }

func (now snapshot) empty() bool {
	return !slices.ContainsFunc(now.kvs[:], func(kvs []*mvccpb.KeyValue) bool { return len(kvs) > 0 })
}

// erases reports whether the keys of a kind are deleted.
func (now snapshot) erases(kind int, how Options) bool {
	return len(now.kvs[kind]) > 0 && (kind != arrived || !how.KeepMark)
}

// kept returns the keys that are not deleted.
func (now snapshot) kept(how Options) []*mvccpb.KeyValue {
	if how.KeepMark {
		return now.kvs[arrived]
	}
	return nil
}

// overlaps reports whether now contains a key that was to be deleted from an earlier
// snapshot. If it does not, the earlier keys were deleted, even if etcd did not answer.
func (now snapshot) overlaps(earlier snapshot, how Options) bool {
	for kind, kvs := range now.kvs {
		if earlier.erases(kind, how) && slices.ContainsFunc(kvs, func(kv *mvccpb.KeyValue) bool { return kv.ModRevision <= earlier.revision }) {
			return true
		}
	}
	return false
}

// count returns what is removed if the keys in now are deleted.
func (now snapshot) count(how Options) Erased {
	e := Erased{Override: len(now.kvs[override]) > 0, Cooldowns: len(now.kvs[cooldowns]), Other: len(now.kvs[departed])}
	for _, kv := range now.kvs[streams] {
		if schema.DecodeHead(kv.Value).Nonce != (streamid.Nonce{}) {
			e.Streams++
		} else {
			e.Other++
		}
	}
	switch marks := len(now.kvs[arrived]); {
	case how.KeepMark:
		e.MarkKept = marks > 0
	default:
		e.Other += marks
	}
	return e
}
