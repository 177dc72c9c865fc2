package lease

import (
	"context"
	"errors"
	"time"

	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/monotonic"
	"streamcount/lease/internal/provisional"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// locate returns the key of a stream, from the replica if possible. If the stream has
// ended, it returns an [*EndedError].
func (l *Limiter) locate(ctx context.Context, user string, who streamid.ID) (schema.Entry, error) {
	s, current := l.replica.Lookup(user, who)
	if s == nil && current && l.waitForOwnWrite(ctx, user) {
		s, current = l.replica.Lookup(user, who)
	}
	switch {
	case s == nil:
		return l.verify(ctx, user, who, monotonic.Of(time.Now()))
	case current && !l.replica.MayHaveEnded(who.Nonce):
		return s.SlotEntry(l.keys, user), nil
	}
	return l.locateInEtcd(ctx, user, who)
}

// verify is like locate for a stream that is missing in the replica or was reported
// gone. since is when the call arrived. The client of an ended stream may repeat its
// call forever, so verify avoids a read of etcd for each call.
func (l *Limiter) verify(ctx context.Context, user string, who streamid.ID, since monotonic.Time) (schema.Entry, error) {
	if err := l.finalEnd(who); err != nil {
		return schema.Entry{}, err
	}
	if l.replica.WaitCurrent(ctx, since) {
		switch s, _ := l.replica.Lookup(user, who); {
		case s == nil:
			return schema.Entry{}, l.endReasonSeen(who.Nonce)
		case !l.replica.MayHaveEnded(who.Nonce):
			return s.SlotEntry(l.keys, user), nil
		}
	}
	return l.locateInEtcd(ctx, user, who)
}

// locateInEtcd is like locate, by a linearizable read.
func (l *Limiter) locateInEtcd(ctx context.Context, user string, who streamid.ID) (schema.Entry, error) {
	resp, err := etcdop.ReadAll(ctx, l.etcd.KV, etcdop.Key(l.keys.Slot(user, int(who.Slot))), etcdop.Key(l.keys.Routing()))
	if err != nil {
		return schema.Entry{}, etcdop.Unavailable("read stream", err)
	}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 {
		if h := schema.NewEntry(l.keys.UserPrefix(user), kvs[0]); h.Lease == who.Lease && h.Nonce == who.Nonce {
			return h, nil
		}
	}
	if kvs := resp.Responses[1].GetResponseRange().Kvs; len(kvs) == 1 {
		l.replica.NoteRouting(schema.DecodeRoutingRecord(kvs[0])) // the user may have migrated
	}
	return schema.Entry{}, l.endReason(ctx, who.Nonce, resp.Header.Revision)
}

// finalEnd returns how a stream ended, if its end is cached and final. The end of a
// stream is not final if users migrate between shards, because a migrating stream is
// missing on one of them for a while. A provisional stream that is missing may be
// written later.
func (l *Limiter) finalEnd(who streamid.ID) error {
	if l.replica.CurrentRouting().Revision != 0 {
		return nil
	}
	g, known := l.replica.Ending(who.Nonce)
	gone := l.replica.WasReportedGone(who.Nonce)
	if known && (gone || !g.Intended) {
		return endedError(g)
	}
	if gone && !provisional.HasSlot(who) {
		return &EndedError{Reason: policy.ReasonEnded}
	}
	return nil
}

// endReasonSeen returns how a stream ended that the replica has just shown to be gone.
func (l *Limiter) endReasonSeen(n streamid.Nonce) *EndedError {
	g, known := l.replica.Ending(n)
	if !known || g.Intended {
		l.replica.MarkReportedGone(n)
	}
	if known {
		return endedError(g)
	}
	return &EndedError{Reason: policy.ReasonEnded}
}

// endReason returns how a stream ended that was gone at revision rev. It waits for the
// replica to contain that revision, and records that the stream was reported gone.
func (l *Limiter) endReason(ctx context.Context, n streamid.Nonce, rev int64) *EndedError {
	if g, known := l.replica.Ending(n); !known || g.Intended {
		wait, cancel := context.WithTimeout(ctx, endReasonWait)
		defer cancel()
		l.replica.WaitApplied(wait, rev)
	}
	return l.endReasonSeen(n)
}

// endReasonAfterRenewal returns how a stream ended whose lease a renewal has found to be
// gone. If no node has ended it, it has expired.
func (l *Limiter) endReasonAfterRenewal(ctx context.Context, user string, who streamid.ID) error {
	_, err := l.verify(ctx, user, who, monotonic.Of(time.Now()))
	var ended *EndedError
	if errors.As(err, &ended) && ended.Reason != policy.ReasonEnded {
		return ended
	}
	l.replica.MarkReportedGone(who.Nonce)
	return &EndedError{Reason: policy.ReasonExpired}
}
