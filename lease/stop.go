package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Stop ends user's stream and frees its slot at once. It may be repeated: a
// stream that is gone already is an [*EndedError]. Also returns [ErrBadUser],
// [ErrBadID], [ErrForeignID], and [ErrUnavailable] where the outcome is unknown:
// the stream is then ended in the background as soon as etcd can be reached.
func (l *Limiter) Stop(ctx context.Context, user, id string) (Usage, error) {
	if !ValidUser(user) {
		return Usage{}, ErrBadUser
	}
	who, err := l.ids.open(user, id)
	if err != nil {
		return Usage{}, err
	}
	ctx, cancel := l.bound(ctx)
	defer cancel()
	return l.stop(ctx, user, who)
}

// stop repeats until the outcome is known: comparing the lease makes that safe.
// A slot that comes back matters more than the reason, so where etcd takes no
// more puts (it is full), the key is deleted without a tombstone.
func (l *Limiter) stop(ctx context.Context, user string, who ident) (Usage, error) {
	unsure, bare := false, false // an earlier try may have been applied; without a tombstone
	for {
		var under clientv3.LeaseID
		if !bare {
			var err error
			if under, err = l.graves.take(ctx, 1); err != nil {
				under = 0
			}
		}
		resp, err := l.commit(ctx, l.stopTxn(user, who, under))
		switch {
		case errors.Is(err, errLeaseGone): // the tombstone's
			l.graves.drop(under)
			continue
		case err != nil && !errors.Is(err, errNotApplied) && !pause(ctx):
			unsure, bare = true, isFull(err)
			continue
		case err != nil:
			l.cleaner.add(who.lease)
			return Usage{}, unavailable("stop a stream of "+user, err)
		}
		counted := resp.Responses[0]
		if resp.Succeeded {
			counted = resp.Responses[len(resp.Responses)-1]
		}
		left := l.usage(user, int(counted.GetResponseRange().Count))
		if !resp.Succeeded {
			if err := l.stopped(who, resp, unsure); err != nil {
				return Usage{}, err
			}
		}
		l.cleaner.add(who.lease)
		return left, nil
	}
}

// stopTxn frees the slot if stream who still holds it, and counts what is left;
// else it reads why the stream is gone. under is the tombstone's lease, or 0.
func (l *Limiter) stopTxn(user string, who ident, under clientv3.LeaseID) txn {
	key := l.keys.slot(user, int(who.slot))
	count := l.countOp(user)
	t := txn{
		cmps:  []clientv3.Cmp{clientv3.Compare(clientv3.LeaseValue(key), "=", who.lease)},
		then:  []clientv3.Op{clientv3.OpDelete(key)},
		other: []clientv3.Op{count, clientv3.OpGet(l.keys.ended(user, who.nonce))},
	}
	if under != 0 {
		t.then = append(t.then, l.tombstone(user, who.nonce, under, ReasonStopped, nil))
	}
	t.then = append(t.then, count)
	return t
}

// stopped is the error of a stop that found the stream gone; nil if a try of
// this same stop may have been what ended it.
func (l *Limiter) stopped(who ident, resp *clientv3.TxnResponse, unsure bool) error {
	ended := l.remembered(who.nonce)
	if kvs := resp.Responses[1].GetResponseRange().Kvs; len(kvs) == 1 {
		var g grave
		if err := json.Unmarshal(kvs[0].Value, &g); err == nil {
			ended = g.err()
		}
	}
	byOthers := ended.By != nil || ended.Reason == ReasonRemoved
	if unsure && !byOthers {
		return nil
	}
	return ended
}

// pause waits a moment before a repetition. It reports whether ctx ended.
func pause(ctx context.Context) (over bool) {
	select {
	case <-ctx.Done():
		return true
	case <-time.After(20 * time.Millisecond):
		return false
	}
}

// StopQuietest ends the stream of user that was least recently heard from, for
// clients that have no stream ids. Returns [ErrBadUser], [ErrNoStreams] and
// [ErrUnavailable].
func (l *Limiter) StopQuietest(ctx context.Context, user string) (Usage, error) {
	if !ValidUser(user) {
		return Usage{}, ErrBadUser
	}
	ctx, cancel := l.bound(ctx)
	defer cancel()
	for {
		s, err := l.read(ctx, user)
		if err != nil {
			return Usage{}, err
		}
		ours := slices.DeleteFunc(s.held, func(h held) bool { return h.slot < 0 })
		if len(ours) == 0 {
			return Usage{}, ErrNoStreams
		}
		h := l.quietest(ctx, ours)
		u, err := l.stop(ctx, user, ident{uint16(h.slot), h.lease, h.rec.Nonce})
		if !errors.Is(err, ErrEnded) { // else somebody else ended it first: look again
			return u, err
		}
	}
}

// quietest is the stream with the least time left. etcd tells that in whole
// seconds, so of those within a second of each other it is the oldest.
func (l *Limiter) quietest(ctx context.Context, hs []held) held {
	if len(hs) == 1 {
		return hs[0]
	}
	lives := l.askLifetimes(ctx, leasesOf(hs))
	first := lives[hs[0].lease].until()
	for _, h := range hs {
		if t := lives[h.lease].until(); t.Before(first) {
			first = t
		}
	}
	for _, h := range hs { // oldest first
		if lives[h.lease].until().Sub(first) <= time.Second {
			return h
		}
	}
	return hs[0]
}

func leasesOf(hs []held) []int64 {
	ids := make([]int64, len(hs))
	for i, h := range hs {
		ids[i] = h.lease
	}
	return ids
}

// Remove ends all of user's streams in one transaction. Returns [ErrBadUser],
// [ErrNoStreams], and [ErrUnavailable] where the outcome is unknown.
func (l *Limiter) Remove(ctx context.Context, user string) (Usage, error) {
	if !ValidUser(user) {
		return Usage{}, ErrBadUser
	}
	ctx, cancel := l.bound(ctx)
	defer cancel()
	s, err := l.read(ctx, user)
	unsure, bare := false, false // an earlier try may have been applied; without tombstones
	for err == nil && len(s.held) > 0 {
		var done bool
		var next snapshot
		done, next, err = l.remove(ctx, user, s, bare)
		switch {
		case done:
			return l.usage(user, 0), nil
		case errors.Is(err, errTryAgain):
			unsure, bare = true, isFull(err)
			s, err = l.read(ctx, user)
		default:
			s = next
		}
	}
	switch {
	case err != nil:
		return Usage{}, unavailable("remove "+user, err)
	case unsure:
		return l.usage(user, 0), nil
	}
	return Usage{}, ErrNoStreams
}

// remove ends what s shows, if it is still the truth, and reports whether it was; else it returns what the user holds now.
func (l *Limiter) remove(ctx context.Context, user string, s snapshot, bare bool) (bool, snapshot, error) {
	var under clientv3.LeaseID
	if !bare {
		var err error
		if under, err = l.graves.take(ctx, len(s.held)); err != nil {
			under = 0
		}
	}
	resp, err := l.commit(ctx, l.removeTxn(user, s, under))
	switch {
	case errors.Is(err, errLeaseGone):
		l.graves.drop(under)
		return false, s, nil
	case err != nil && (errors.Is(err, errNotApplied) || pause(ctx)):
		return false, snapshot{}, err
	case err != nil:
		return false, snapshot{}, fmt.Errorf("%w: %w", errTryAgain, err)
	case !resp.Succeeded:
		return false, l.snapshotOf(user, resp.Header, resp.Responses[0].GetResponseRange().Kvs), nil
	}
	for _, h := range s.held {
		l.cleaner.add(h.lease)
	}
	return true, snapshot{}, nil
}

// removeTxn ends all that s shows if it is still the truth, else it reads what
// is. under is the tombstones' lease, or 0 for none.
func (l *Limiter) removeTxn(user string, s snapshot, under clientv3.LeaseID) txn {
	t := txn{
		cmps:  []clientv3.Cmp{l.unchangedSince(user, s)},
		then:  []clientv3.Op{clientv3.OpDelete(l.keys.user(user), clientv3.WithPrefix())},
		other: []clientv3.Op{clientv3.OpGet(l.keys.user(user), clientv3.WithPrefix())},
	}
	for _, h := range s.held {
		t.cmps = append(t.cmps, clientv3.Compare(clientv3.LeaseValue(h.key), "=", h.lease))
		if under != 0 && h.rec.Nonce != (nonce{}) {
			t.then = append(t.then, l.tombstone(user, h.rec.Nonce, under, ReasonRemoved, nil))
		}
	}
	return t
}
