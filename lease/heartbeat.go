package lease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"golang.org/x/sync/errgroup"
)

// Heartbeat renews the lease of user's stream and returns the stream with its
// new ExpiresAt. A lease that this node renewed less than a quarter of a TTL ago
// is not renewed again. Where etcd does not answer in time the stream comes back
// Degraded: nobody knows better, and etcd expires nothing while it is away.
//
// A stream that is gone is an [*EndedError]. Also returns [ErrBadUser],
// [ErrBadID] and [ErrForeignID].
func (l *Limiter) Heartbeat(ctx context.Context, user, id string) (Stream, error) {
	who, err := l.open(user, id)
	if err != nil {
		l.m.beat(nil, err)
		return Stream{}, err
	}
	if s, ok := l.rested(user, id, who); ok {
		l.m.renewals[renewCoalesced].Add(1)
		return s, nil
	}
	s, err := l.heartbeat(ctx, user, id, who)
	l.m.beat(&s, err)
	return s, err
}

// open reads a stream id.
func (l *Limiter) open(user, id string) (ident, error) {
	if !ValidUser(user) {
		return ident{}, ErrBadUser
	}
	return l.ids.open(user, id)
}

// heartbeat is a Heartbeat that has to look, and to renew.
func (l *Limiter) heartbeat(ctx context.Context, user, id string, who ident) (Stream, error) {
	degraded := Stream{ID: id, User: user, TTL: l.cfg.TTL, Degraded: true}
	if who.provisional() {
		if l.pending.hear(user, who.nonce) {
			return degraded, nil
		}
		// One that was stopped while it was being written is in etcd for a moment.
		if g, over := l.view.ended(who.nonce); over && g.Reason == ReasonStopped {
			return Stream{}, g.err()
		}
	}
	ctx, cancel := l.bound(ctx)
	defer cancel()
	for doubtful := false; ; {
		s, err := l.beat(ctx, user, id, who, doubtful)
		if who.provisional() && l.mayBeWritten(err) {
			return degraded, nil
		}
		if err == nil || errors.Is(err, ErrEnded) {
			return s, err
		}
		doubtful = doubtful || errors.Is(err, errRenewStalled)
		if errors.Is(err, errLate) || pause(ctx) { // one lost message is no reason to give up
			l.cfg.Log.Debug("heartbeat answered as degraded", "user", user, "err", err)
			return degraded, nil
		}
	}
}

// rested answers for a stream that the view knows and that this node renewed
// just now.
func (l *Limiter) rested(user, id string, who ident) (Stream, bool) {
	s, current := l.view.lookup(user, who)
	if s == nil || !current {
		return Stream{}, false
	}
	renewed := s.renewedAt()
	if time.Since(renewed) >= headOf(s.value).ttl()/4 {
		return Stream{}, false
	}
	if l.view.saidGone(who.nonce) {
		return Stream{}, false
	}
	st := streamOf(user, id, s.value)
	st.ExpiresAt = renewed.Add(st.TTL)
	return st, true
}

// beat looks before it renews: the lease of a stream that was ended may have
// been handed on, and must not be kept alive by a client that goes on beating.
func (l *Limiter) beat(ctx context.Context, user, id string, who ident, doubtful bool) (Stream, error) {
	s, current := l.view.lookup(user, who)
	var h held
	if s != nil && current && !l.view.saidGone(who.nonce) {
		at := s.renewedAt()
		h = s.held(l.keys, user)
		doubtful = doubtful || !at.IsZero() && time.Since(at) > headOf(s.value).ttl()*7/8
	} else {
		var err error
		if h, err = l.readStream(ctx, user, who); err != nil {
			return Stream{}, err
		}
	}
	r := l.renew(ctx, h.lease, doubtful)
	if errors.Is(r.err, errLeaseGone) {
		return Stream{}, l.afterEnd(ctx, user, who) // it ended since it was seen
	}
	if r.err != nil {
		return Stream{}, r.err
	}
	if s != nil {
		s.renew(r.sent)
	} else {
		l.view.hint(user, who, r.sent)
	}
	st := streamOf(user, id, h.value)
	st.TTL, st.ExpiresAt = r.ttl, r.sent.Add(r.ttl)
	return st, nil
}

// errLate means that a late renewal was not answered soon, most likely because
// the lease has run out and etcd has yet to revoke it.
var errLate = errors.New("the heartbeat is late, and etcd does not say whether too late")

// renew gives a lease its full TTL again. A doubtful one may have run out, which
// would hold up all others on a shared stream: etcd is asked first, since all
// that is known may be that another node renewed it. If it has run out, it gets a
// stream of its own, and little time: a batch takes as long as its slowest beat,
// and a few late ones must not make the others late as well.
func (l *Limiter) renew(ctx context.Context, lease int64, doubtful bool) renewal {
	if !doubtful {
		return await(ctx, l.renewer.begin(ctx, lease))
	}
	brief, cancel := context.WithTimeoutCause(ctx, renewStall, errLate)
	defer cancel()
	if l.askLifetime(brief, lease).left >= time.Second {
		return await(ctx, l.renewer.begin(ctx, lease))
	}
	ctx = brief
	r := l.renewLate(ctx, lease)
	if r.err != nil && !errors.Is(r.err, errLeaseGone) && ctx.Err() != nil {
		r.err = fmt.Errorf("%w: %w", errLate, r.err)
	}
	return r
}

func (l *Limiter) renewLate(ctx context.Context, lease int64) renewal {
	select {
	case l.late <- struct{}{}:
		defer func() { <-l.late }()
		r := l.renewAlone(ctx, lease)
		l.m.late.Add(1)
		l.m.renewed(r)
		return r
	case <-ctx.Done():
		return renewal{err: context.Cause(ctx)}
	}
}

// find returns the key that stream who holds, from the view if that has it, or
// an [*EndedError] that says how the stream ended.
func (l *Limiter) find(ctx context.Context, user string, who ident) (held, error) {
	s, current := l.view.lookup(user, who)
	if s == nil && current && l.caughtUp(ctx, user) {
		s, current = l.view.lookup(user, who)
	}
	if s != nil && current && !l.view.saidGone(who.nonce) {
		return s.held(l.keys, user), nil
	}
	return l.readStream(ctx, user, who)
}

// readStream is find by a linearizable read.
func (l *Limiter) readStream(ctx context.Context, user string, who ident) (held, error) {
	resp, err := l.readAll(ctx, oneKey(l.keys.slot(user, int(who.slot))), oneKey(l.keys.shardsKey()))
	if err != nil {
		return held{}, unavailable("read stream", err)
	}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 {
		if h := newHeld(l.keys.user(user), kvs[0]); h.lease == who.lease && h.nonce == who.nonce {
			return h, nil
		}
	}
	if kvs := resp.Responses[1].GetResponseRange().Kvs; len(kvs) == 1 {
		l.view.heardOfShards(shardsKeyOf(kvs[0])) // he may have moved
	}
	return held{}, l.howEnded(ctx, who.nonce, resp.Header.Revision)
}

// howEnded says how a stream ended that was gone at revision rev. What has been
// said to be gone stays so, also while the view does not show it yet.
func (l *Limiter) howEnded(ctx context.Context, n nonce, rev int64) *EndedError {
	if g, ok := l.view.ended(n); ok {
		return g.err()
	}
	wait, cancel := context.WithTimeout(ctx, viewPatience)
	defer cancel()
	l.view.reach(wait, rev)
	if g, ok := l.view.ended(n); ok {
		return g.err()
	}
	l.view.sayGone(n)
	return &EndedError{Reason: ReasonEnded}
}

// afterEnd is how a stream ended whose lease was found gone just now: by one of
// us, or else because it ran out.
func (l *Limiter) afterEnd(ctx context.Context, user string, who ident) error {
	_, err := l.readStream(ctx, user, who)
	var ended *EndedError
	if errors.As(err, &ended) && ended.Reason != ReasonEnded {
		return ended
	}
	l.view.sayGone(who.nonce)
	return &EndedError{Reason: ReasonExpired}
}

// beatsAtOnce is how many heartbeats of one batch are under way at once.
const beatsAtOnce = 256

// Heartbeats is Heartbeat for many streams at once; results come in the order
// of beats. A beat that cannot be answered before ctx ends is Degraded. They are
// asked in random order, so that it is not always the same that come too late.
func (l *Limiter) Heartbeats(ctx context.Context, beats []Beat) []BeatResult {
	results := make([]BeatResult, len(beats))
	ctx, cancel := l.bound(ctx) // one deadline for all of them
	defer cancel()
	var g errgroup.Group
	g.SetLimit(beatsAtOnce)
	for _, i := range rand.Perm(len(beats)) {
		g.Go(func() error {
			results[i].Stream, results[i].Err = l.Heartbeat(ctx, beats[i].User, beats[i].ID)
			return nil
		})
	}
	_ = g.Wait() // its functions return nil
	return results
}
