package lease

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Stop ends user's stream and frees its slot at once. It may be repeated: a
// stream that is gone already is an [*EndedError]. Also returns [ErrBadUser],
// [ErrBadID], [ErrForeignID], and [ErrUnavailable] where the outcome is unknown:
// the stream is then ended in the background as soon as etcd can be reached.
func (l *Limiter) Stop(ctx context.Context, user, id string) (Usage, error) {
	u, err := l.stopByID(ctx, user, id)
	l.m.stopped(err)
	return u, err
}

func (l *Limiter) stopByID(ctx context.Context, user, id string) (Usage, error) {
	who, err := l.open(user, id)
	if err != nil {
		return Usage{}, err
	}
	if who.provisional() && l.endProvisional(user, who.nonce) {
		l.view.note(grave{Nonce: who.nonce, Reason: ReasonStopped})
		s, _ := l.view.user(user)
		return Usage{User: user, Count: len(s.held), Limit: l.ruleOf(user, nil).limit, Counted: len(s.held)}, nil
	}
	ctx, cancel := l.bound(ctx)
	defer cancel()
	for {
		h, err := l.find(ctx, user, who)
		switch {
		case err == nil:
			return l.stop(ctx, user, h)
		case errors.Is(err, ErrEnded):
			return Usage{}, err
		case pause(ctx):
			l.cleaner.later(func(ctx context.Context) error { return l.stopUnfound(ctx, user, who) })
			return Usage{}, unavailable("stop a stream of "+user, err)
		}
	}
}

// stopUnfound carries a stop out whose stream could not even be looked up.
func (l *Limiter) stopUnfound(ctx context.Context, user string, who ident) error {
	h, err := l.find(ctx, user, who)
	if err == nil {
		_, err = l.tryStop(ctx, user, h)
	}
	if errors.Is(err, ErrEnded) {
		return nil
	}
	return err
}

// stopLater has the stream that holds h stopped in the background.
func (l *Limiter) stopLater(user string, h held) {
	l.view.note(grave{Nonce: h.nonce, Reason: ReasonStopped})
	l.cleaner.later(func(ctx context.Context) error {
		_, err := l.tryStop(ctx, user, h)
		if errors.Is(err, ErrEnded) {
			return nil
		}
		return err
	})
}

// stop repeats until the outcome is known: comparing the revision of the
// stream's own put makes that safe. What is still unknown when ctx ends is
// carried out later, by the same transaction: the lease alone may by then have
// been handed on.
func (l *Limiter) stop(ctx context.Context, user string, h held) (Usage, error) {
	unsure := false // an earlier try may have been applied
	for {
		u, err := l.tryStop(ctx, user, h)
		var ended *EndedError
		switch {
		case err == nil:
			return u, nil
		case errors.As(err, &ended):
			if byOthers := ended.By != nil || ended.Reason == ReasonRemoved; unsure && !byOthers {
				l.view.note(grave{Nonce: h.nonce, Reason: ReasonStopped})
				return u, nil // a try of this same stop
			}
			return Usage{}, err
		case pause(ctx):
			l.stopLater(user, h)
			return Usage{}, unavailable("stop a stream of "+user, err)
		}
		unsure = unsure || !errors.Is(err, errNotApplied)
	}
}

// tryStop is one try to end the stream that holds h. The usage counts what is
// left, also where the stream was gone already, which is an [*EndedError].
func (l *Limiter) tryStop(ctx context.Context, user string, h held) (Usage, error) {
	g, r := l.leaseOf(user, h), l.ruleOf(user, h.value)
	reason := grave{Nonce: h.nonce, Reason: ReasonStopped}
	resp, at, err := l.batch.do(&write{user: user, txn: l.stopTxn(user, r, h), graves: []grave{reason}, ctx: ctx})
	if err != nil {
		return Usage{}, err
	}
	l.wroteAt(user, at.rev)
	left := l.usage(user, r, resp.Responses[len(resp.Responses)-1].GetResponseRange())
	if !resp.Succeeded {
		return l.notThere(ctx, user, h, left, resp, at)
	}
	l.parted([]granted{g}, []grave{reason})
	return left, nil
}

// notThere looks at why the put that a stop names does not stand any more.
func (l *Limiter) notThere(
	ctx context.Context, user string, h held, left Usage, resp *pb.TxnResponse, at moment,
) (Usage, error) {
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 {
		l.view.heardOfShards(shardsKeyOf(kvs[0]))
	}
	if kvs := resp.Responses[1].GetResponseRange().Kvs; len(kvs) == 1 {
		if now := newHeld(l.keys.user(user), kvs[0]); now.nonce == h.nonce && now.lease == h.lease {
			return l.tryStop(ctx, user, now) // its user went and came back, and the view is from before
		}
	}
	return left, l.howEnded(ctx, h.nonce, at.rev)
}

// pause waits a moment before a repetition. It reports whether ctx ended.
func pause(ctx context.Context) (over bool) { return pauseFor(ctx, 20*time.Millisecond) }

func pauseFor(ctx context.Context, d time.Duration) (over bool) {
	select {
	case <-ctx.Done():
		return true
	case <-time.After(d):
		return false
	}
}

// StopQuietest ends the stream of user that was least recently heard from, for
// clients that have no stream ids. Returns [ErrBadUser], [ErrNoStreams] and
// [ErrUnavailable].
func (l *Limiter) StopQuietest(ctx context.Context, user string) (Usage, error) {
	u, err := l.stopQuietest(ctx, user)
	l.m.stopped(err)
	return u, err
}

func (l *Limiter) stopQuietest(ctx context.Context, user string) (Usage, error) {
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
		ours := slices.DeleteFunc(s.held, func(h held) bool { return h.slot < 0 || h.nonce == (nonce{}) })
		if len(ours) == 0 {
			return Usage{}, ErrNoStreams
		}
		s.held = ours
		h := l.quietest(ctx, user, s)
		u, err := l.stop(ctx, user, h)
		if !errors.Is(err, ErrEnded) { // else somebody else ended it first: look again
			return u, err
		}
	}
}

// quietest is the stream with the least time left, of those whose time is known.
// etcd tells that in whole seconds, so of those within a second of each other it
// is the oldest.
func (l *Limiter) quietest(ctx context.Context, user string, s snapshot) held {
	hs := s.held
	if len(hs) == 1 {
		return hs[0]
	}
	lives := l.lifetimes(ctx, user, s)
	var known []held
	var first time.Time
	for _, h := range hs {
		if t := lives[h.lease].until(); !t.IsZero() {
			known = append(known, h)
			if first.IsZero() || t.Before(first) {
				first = t
			}
		}
	}
	for _, h := range known { // oldest first
		if lives[h.lease].until().Sub(first) <= time.Second {
			return h
		}
	}
	return hs[0]
}

// Remove ends all of user's streams in one transaction. Returns [ErrBadUser],
// [ErrNoStreams], and [ErrUnavailable] where the outcome is unknown.
func (l *Limiter) Remove(ctx context.Context, user string) (Usage, error) {
	u, err := l.removeAll(ctx, user)
	l.m.stopped(err)
	return u, err
}

func (l *Limiter) removeAll(ctx context.Context, user string) (Usage, error) {
	if !ValidUser(user) {
		return Usage{}, ErrBadUser
	}
	ctx, cancel := l.bound(ctx)
	defer cancel()
	unsure := false // an earlier try may have been applied
	var tried snapshot
	s, err := l.read(ctx, user)
	for err == nil && len(s.held) > 0 && (!unsure || s.sharesWith(tried)) {
		var now *snapshot
		if now, err = l.remove(ctx, user, s); err == nil && now == nil {
			return Usage{User: user, Limit: l.ruleOf(user, nil).limit}, nil
		}
		switch {
		case err == nil:
			s = *now
		case !pause(ctx):
			if !errors.Is(err, errNotApplied) {
				unsure, tried = true, s
			}
			s, err = l.read(ctx, user)
		}
	}
	switch {
	case err != nil:
		return Usage{}, unavailable("remove "+user, err)
	case unsure:
		return Usage{User: user, Limit: l.ruleOf(user, nil).limit}, nil
	}
	return Usage{}, ErrNoStreams
}

// sharesWith reports whether any of the streams of an earlier snapshot is left. If
// not, a removal of those has been carried out, whether it was answered or not, and
// whatever the user holds now came after it.
func (s snapshot) sharesWith(earlier snapshot) bool {
	return slices.ContainsFunc(s.held, func(h held) bool {
		return slices.ContainsFunc(earlier.held, func(e held) bool { return e.key == h.key && e.mod == h.mod })
	})
}

// remove ends what s shows, unless more was put since; then it returns what the
// user holds now.
func (l *Limiter) remove(ctx context.Context, user string, s snapshot) (*snapshot, error) {
	var graves []grave
	leases := make(map[nonce]granted, len(s.held))
	for _, h := range s.held {
		if h.nonce != (nonce{}) && len(graves) < maxGraves {
			graves = append(graves, grave{Nonce: h.nonce, Reason: ReasonRemoved})
			leases[h.nonce] = l.leaseOf(user, h)
		}
	}
	resp, at, err := l.batch.do(&write{user: user, txn: l.removeTxn(user, s), graves: graves, ctx: ctx})
	if err != nil {
		return nil, fmt.Errorf("remove %s: %w", user, err)
	}
	l.wroteAt(user, at.rev)
	if !resp.Succeeded {
		now := newSnapshot(user, l.keys, at.rev, at.term, resp.Responses[0].GetResponseRange().Kvs)
		return &now, nil
	}
	l.parted(removed(resp, leases), graves)
	return nil, nil
}

// removed are the leases of the keys that this transaction itself deleted.
func removed(resp *pb.TxnResponse, leases map[nonce]granted) []granted {
	var out []granted
	for _, kv := range resp.Responses[0].GetResponseDeleteRange().PrevKvs {
		if g, ours := leases[headOf(kv.Value).Nonce]; ours {
			out = append(out, g)
		}
	}
	return out
}
