package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"streamcount/internal/retry"
	"streamcount/lease/internal/commit"
	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/leasepool"
	"streamcount/lease/internal/provisional"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
	"streamcount/lease/userid"
)

// Stop ends user's stream and frees its slot. It may be repeated: if the stream has
// ended already, it returns an [*EndedError]. It also returns [ErrBadUser],
// [streamid.ErrMalformed], [streamid.ErrForeign], and an [ErrUnavailable] if the outcome
// is unknown. In that case the stream is stopped in the background as soon as etcd
// answers.
func (l *Limiter) Stop(ctx context.Context, user, id string) (Usage, error) {
	u, err := l.stopByID(ctx, user, id)
	l.countStop(err)
	return u, err
}

func (l *Limiter) stopByID(ctx context.Context, user, id string) (Usage, error) {
	who, err := l.parseID(user, id)
	if err != nil {
		return Usage{}, err
	}
	if provisional.HasSlot(who) {
		if p := l.dropProvisional(user, who.Nonce); p != nil {
			l.replica.RecordOwnEnding(user, schema.NewTombstone(user, p.Entry, policy.ReasonStopped))
			entries, _, _ := l.replica.UserEntries(user)
			return Usage{User: user, Count: len(entries), Limit: l.ruleOf(user, nil).Limit, Counted: len(entries)}, nil
		}
	}
	ctx, cancel := l.withDeadline(ctx)
	defer cancel()
	for {
		h, err := l.locate(ctx, user, who)
		switch {
		case err == nil:
			return l.stop(ctx, user, h)
		case errors.Is(err, ErrEnded):
			return Usage{}, err
		case retryPause(ctx):
			l.cleaner.Enqueue(func(ctx context.Context) error { return l.stopUnlocated(ctx, user, who) })
			return Usage{}, etcdop.Unavailable("stop a stream of "+user, err)
		}
	}
}

// stopUnlocated stops a stream that could not be located before.
func (l *Limiter) stopUnlocated(ctx context.Context, user string, who streamid.ID) error {
	h, err := l.locate(ctx, user, who)
	if err == nil {
		_, err = l.tryStop(ctx, user, h)
	}
	if errors.Is(err, ErrEnded) {
		return nil
	}
	return err
}

// stopLater stops the stream with the key e in the background.
func (l *Limiter) stopLater(user string, h schema.Entry) {
	l.replica.RecordIntendedEnding(schema.NewTombstone(user, h, policy.ReasonStopped))
	l.cleaner.Enqueue(func(ctx context.Context) error {
		_, err := l.tryStop(ctx, user, h)
		if errors.Is(err, ErrEnded) {
			return nil
		}
		return err
	})
}

// stop repeats tryStop until the outcome is known. This is safe because the transaction
// compares the revision of the stream's put. If the outcome is unknown when ctx ends,
// the same transaction is repeated in the background. Revoking the lease instead would
// not be safe, because it may be in use by another stream by then.
func (l *Limiter) stop(ctx context.Context, user string, h schema.Entry) (Usage, error) {
	unknown := false // an earlier attempt may have been applied
	for {
		u, err := l.tryStop(ctx, user, h)
		var ended *EndedError
		switch {
		case err == nil:
			return u, nil
		case errors.As(err, &ended):
			if byOthers := ended.By != nil || ended.Reason == policy.ReasonRemoved; unknown && !byOthers {
				l.replica.RecordOwnEnding(user, schema.NewTombstone(user, h, policy.ReasonStopped))
				return u, nil // an earlier attempt of this stop
			}
			return Usage{}, err
		case retryPause(ctx):
			l.stopLater(user, h)
			return Usage{}, etcdop.Unavailable("stop a stream of "+user, err)
		}
		unknown = unknown || !errors.Is(err, etcdop.ErrNotApplied)
	}
}

// tryStop sends one transaction that ends the stream with the key e. The usage counts
// the remaining streams, also if the stream had ended already, which is an
// [*EndedError].
func (l *Limiter) tryStop(ctx context.Context, user string, h schema.Entry) (Usage, error) {
	return l.tryEnd(ctx, user, h, schema.NewTombstone(user, h, policy.ReasonStopped))
}

// tryEnd is like tryStop, with another tombstone.
func (l *Limiter) tryEnd(ctx context.Context, user string, h schema.Entry, tombstone schema.Tombstone) (Usage, error) {
	g, r := l.leaseOf(user, h), l.ruleOf(user, h.Value)
	resp, at, err := l.batch.Commit(&commit.Write{User: user, Txn: l.stopTxn(user, r, h), Tombstones: []schema.Tombstone{tombstone}, Ctx: ctx})
	if err != nil {
		return Usage{}, err
	}
	l.recordOwnWrite(user, at.Revision)
	left := l.usage(user, r, resp.Responses[len(resp.Responses)-1].GetResponseRange())
	if !resp.Succeeded {
		return l.stopMissed(ctx, user, h, tombstone, left, resp, at)
	}
	l.afterEnding(user, []leasepool.Lease{g}, []schema.Tombstone{tombstone})
	return left, nil
}

// endRemoved is tryEnd for a stream that an operator removes.
func (l *Limiter) endRemoved(ctx context.Context, user string, h schema.Entry) error {
	_, err := l.tryEnd(ctx, user, h, schema.NewTombstone(user, h, policy.ReasonRemoved))
	return err
}

// stopMissed handles a stop whose transaction has failed because the put is not the
// current one.
func (l *Limiter) stopMissed(
	ctx context.Context, user string, h schema.Entry, tombstone schema.Tombstone, left Usage, resp *pb.TxnResponse, at commit.Point,
) (Usage, error) {
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 {
		l.replica.NoteRouting(schema.DecodeRoutingRecord(kvs[0]))
	}
	if kvs := resp.Responses[1].GetResponseRange().Kvs; len(kvs) == 1 {
		if now := schema.NewEntry(l.keys.UserPrefix(user), kvs[0]); now.Nonce == h.Nonce && now.Lease == h.Lease {
			return l.tryEnd(ctx, user, now, tombstone) // the user migrated away and back; the replica is stale
		}
	}
	return left, l.endReason(ctx, h.Nonce, at.Revision)
}

// retryDelay is the wait between two attempts of a call.
const retryDelay = 20 * time.Millisecond

// retryPause waits before the next attempt. It reports whether ctx ended.
func retryPause(ctx context.Context) (over bool) { return sleep(ctx, retryDelay) }

func sleep(ctx context.Context, d time.Duration) (over bool) { return retry.Sleep(ctx, d) != nil }

// StopOldestHeartbeat ends the stream of user whose last heartbeat is the oldest, for
// clients that have no stream ids. It returns [ErrBadUser], [ErrNoStreams] and
// [ErrUnavailable].
func (l *Limiter) StopOldestHeartbeat(ctx context.Context, user string) (Usage, error) {
	u, err := l.stopOldestHeartbeat(ctx, user)
	l.countStop(err)
	return u, err
}

func (l *Limiter) stopOldestHeartbeat(ctx context.Context, user string) (Usage, error) {
	if !userid.Valid(user) {
		return Usage{}, ErrBadUser
	}
	ctx, cancel := l.withDeadline(ctx)
	defer cancel()
	for {
		s, err := l.readUser(ctx, user)
		if err != nil {
			return Usage{}, err
		}
		ours := slices.DeleteFunc(s.entries, func(h schema.Entry) bool { return h.Slot < 0 || h.Nonce == (streamid.Nonce{}) })
		if len(ours) == 0 {
			return Usage{}, ErrNoStreams
		}
		s.entries = ours
		h := l.oldestHeartbeat(ctx, user, s)
		u, err := l.stop(ctx, user, h)
		if !errors.Is(err, ErrEnded) { // otherwise another call has ended it: choose again
			u.Stopped = l.ids.Sign(user, h.StreamID()) // if err is not nil, the outcome may be unknown
			return u, err
		}
	}
}

// oldestHeartbeat returns the stream with the least remaining TTL, of those whose TTL is
// known. etcd returns whole seconds, so of the streams within a second of the least it
// returns the one that started first.
func (l *Limiter) oldestHeartbeat(ctx context.Context, user string, s snapshot) schema.Entry {
	hs := s.entries
	if len(hs) == 1 {
		return hs[0]
	}
	statuses := l.leaseStatus.OfUser(ctx, user, s.term, s.leases())
	var known []schema.Entry
	var first time.Time
	for _, h := range hs {
		if t := statuses[h.Lease].NotExpiredBefore(); !t.IsZero() {
			known = append(known, h)
			if first.IsZero() || t.Before(first) {
				first = t
			}
		}
	}
	for _, h := range known { // oldest first
		if statuses[h.Lease].NotExpiredBefore().Sub(first) <= time.Second {
			return h
		}
	}
	return hs[0]
}

// Remove ends all of user's streams in one transaction. It returns [ErrBadUser],
// [ErrNoStreams], and an [ErrUnavailable] if the outcome is unknown.
func (l *Limiter) Remove(ctx context.Context, user string) (Usage, error) {
	u, err := l.removeAll(ctx, user)
	l.countStop(err)
	return u, err
}

func (l *Limiter) removeAll(ctx context.Context, user string) (Usage, error) {
	if !userid.Valid(user) {
		return Usage{}, ErrBadUser
	}
	ctx, cancel := l.withDeadline(ctx)
	defer cancel()
	unknown := false // an earlier attempt may have been applied
	var tried snapshot
	s, err := l.readUser(ctx, user)
	for err == nil && len(s.entries) > 0 && (!unknown || s.overlaps(tried)) {
		var now *snapshot
		if now, err = l.remove(ctx, user, s); err == nil && now == nil {
			return Usage{User: user, Limit: l.ruleOf(user, nil).Limit}, nil
		}
		switch {
		case err == nil:
			s = *now
		case !retryPause(ctx):
			if !errors.Is(err, etcdop.ErrNotApplied) {
				unknown, tried = true, s
			}
			s, err = l.readUser(ctx, user)
		}
	}
	switch {
	case err != nil:
		return Usage{}, etcdop.Unavailable("remove "+user, err)
	case unknown:
		return Usage{User: user, Limit: l.ruleOf(user, nil).Limit}, nil
	}
	return Usage{}, ErrNoStreams
}

// overlaps reports whether s contains a stream of an earlier snapshot. If it does not, a
// removal of the earlier streams was applied, even if etcd did not answer it, and the
// streams of s started later.
func (s snapshot) overlaps(earlier snapshot) bool {
	return slices.ContainsFunc(s.entries, func(h schema.Entry) bool {
		return slices.ContainsFunc(earlier.entries, func(e schema.Entry) bool { return e.Key == h.Key && e.ModRevision == h.ModRevision })
	})
}

// remove ends the streams of s. If a stream was put after s, it ends none and returns
// the current snapshot.
func (l *Limiter) remove(ctx context.Context, user string, s snapshot) (*snapshot, error) {
	var tombstones []schema.Tombstone
	leases := make(map[streamid.Nonce]leasepool.Lease, len(s.entries))
	for _, h := range s.entries {
		if h.Nonce != (streamid.Nonce{}) && len(tombstones) < leasepool.MaxKeysPerLease {
			tombstones = append(tombstones, schema.NewTombstone(user, h, policy.ReasonRemoved))
			leases[h.Nonce] = l.leaseOf(user, h)
		}
	}
	resp, at, err := l.batch.Commit(&commit.Write{User: user, Txn: l.removeTxn(user, s), Tombstones: tombstones, Ctx: ctx})
	if err != nil {
		return nil, fmt.Errorf("remove %s: %w", user, err)
	}
	l.recordOwnWrite(user, at.Revision)
	if !resp.Succeeded {
		now := newSnapshot(user, l.keys, at.Revision, at.Term, resp.Responses[0].GetResponseRange().Kvs)
		return &now, nil
	}
	// Another call may have ended one of the streams since. That call owns its lease, and its reason applies.
	deleted := resp.Responses[0].GetResponseDeleteRange().PrevKvs
	l.afterEnding(user, removed(deleted, leases), schema.TombstonesOf(deleted, tombstones))
	return nil, nil
}

// removed returns the leases of deleted keys.
func removed(deleted []*mvccpb.KeyValue, leases map[streamid.Nonce]leasepool.Lease) []leasepool.Lease {
	var out []leasepool.Lease
	for _, kv := range deleted {
		if g, ours := leases[schema.DecodeHead(kv.Value).Nonce]; ours {
			out = append(out, g)
		}
	}
	return out
}

// stopTxn returns the transaction that deletes h if it is still the same put, and counts
// the remaining streams. If it fails, the user may have migrated, or migrated and come
// back: it reads the routing record and the slot.
func (l *Limiter) stopTxn(user string, r policy.Rule, h schema.Entry) *pb.TxnRequest {
	count := usageOp(r, etcdop.Prefix(l.keys.UserPrefix(user)))
	return &pb.TxnRequest{
		Compare: []*pb.Compare{etcdop.ModRevisionIs(h.Key, h.ModRevision)},
		Success: []*pb.RequestOp{etcdop.Delete(etcdop.Key(h.Key)), count},
		Failure: []*pb.RequestOp{etcdop.Read(etcdop.Key(l.keys.Routing())), etcdop.Read(etcdop.Key(h.Key)), count},
	}
}

// removeTxn returns the transaction that deletes all streams of a user, and returns
// them, if none was put after s. If it fails, it reads the user's keys.
func (l *Limiter) removeTxn(user string, s snapshot) *pb.TxnRequest {
	all := etcdop.Prefix(l.keys.UserPrefix(user))
	end := etcdop.Delete(all)
	end.GetRequestDeleteRange().PrevKv = true
	return &pb.TxnRequest{
		Compare: []*pb.Compare{etcdop.NoPutAfter(all, s.rev)},
		Success: []*pb.RequestOp{end},
		Failure: []*pb.RequestOp{etcdop.Read(all)},
	}
}

// leaseOf returns the lease of a stream, and when this node last renewed it. A key that
// streamcount did not write has no lease of ours.
func (l *Limiter) leaseOf(user string, e schema.Entry) leasepool.Lease {
	if e.Nonce == (streamid.Nonce{}) {
		return leasepool.Lease{}
	}
	idle := leasepool.Lease{ID: e.Lease, TTL: schema.DecodeHead(e.Value).TTL()}
	if s, _ := l.replica.Lookup(user, e.StreamID()); s != nil {
		idle.Renewed = s.LastRenewal()
	}
	return idle
}

// afterEnding records the ends of streams of user that a transaction of this node has ended, and
// releases their leases, which this node now owns.
func (l *Limiter) afterEnding(user string, leases []leasepool.Lease, tombstones []schema.Tombstone) {
	for _, t := range tombstones {
		l.replica.RecordOwnEnding(user, t)
	}
	for _, idle := range leases {
		l.pool.Release(idle)
	}
}
