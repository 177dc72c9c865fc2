package lease

import (
	"context"
	"errors"
	"slices"
	"time"

	"streamcount/lease/internal/bars"
	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
	"streamcount/lease/userid"
)

// A start with Join and the calls in this file serve players whose requests for media start
// and renew their streams. See Request.Via.

// An Attendance is the state of a session at a request of its player.
type Attendance struct {
	// Stream is the running stream of the session; its User is "" if there is none. It is
	// Degraded if etcd did not answer in time. It has no ExpiresAt.
	Stream Stream
	// Bar is not nil if the session has no stream and may not start one implicitly.
	Bar *Bar
	// Streams is the number of the user's streams by this node's replica, and Limit the user's
	// limit, which is 0 if there is no Stream.
	Streams, Limit int
	// Current means that the answer is not older than a few seconds.
	Current bool
}

// A Bar keeps a session from starting streams implicitly, because its last stream was ended on
// purpose. It ends when the session has sent no request for a while. As an error it is an
// [ErrEnded].
type Bar struct {
	EndedError
	RetryAfter time.Duration // the time without a request after which the bar ends
}

// Bars are the bars that a node has. They are safe for concurrent use.
type Bars = bars.Bars

// NewBars returns no bars. After an eviction a bar lasts for at least cooldown.
func NewBars(cooldown time.Duration) *Bars { return bars.New(cooldown) }

// Attend returns the running stream of a session by this node's replica, and keeps it alive:
// it renews the lease in the background once per third of its TTL. It waits for the renewal
// only if the lease may have expired otherwise. If there is no stream, Attend returns the
// session's bar. entry means that the request is one with which a viewer begins to play, after
// which a bar ends earlier. Attend writes nothing else, and returns [ErrBadUser].
func (l *Limiter) Attend(ctx context.Context, user, session string, entry bool) (Attendance, error) {
	return l.attendance(ctx, user, session, true, func(key schema.BarKey) (schema.Tombstone, time.Duration, bool) {
		return l.replica.Bars().Check(key, entry)
	})
}

// LookUpSession is Attend without its effects: it renews no stream, and the request does not
// count as one of the session, so that it prolongs no bar.
func (l *Limiter) LookUpSession(ctx context.Context, user, session string, entry bool) (Attendance, error) {
	return l.attendance(ctx, user, session, false, func(key schema.BarKey) (schema.Tombstone, time.Duration, bool) {
		return l.replica.Bars().Look(key, entry)
	})
}

// WouldStart starts nothing. It returns the user's usage if [Limiter.Start] would admit the
// start now, and else the error of Start. It joins no stream of the session and checks no
// bar. If etcd is unavailable it returns an [ErrUnavailable], also with [OutageAdmit].
func (l *Limiter) WouldStart(ctx context.Context, user string, req Request) (Usage, error) {
	a, err := l.newAttempt(ctx, user, req)
	if err != nil {
		return Usage{}, err
	}
	ctx, cancel := l.withDeadline(ctx)
	defer cancel()
	if a.snapshot, err = a.loadSnapshot(ctx); err == nil {
		err = a.decide(ctx)
	}
	if err != nil {
		return Usage{}, a.startError(err)
	}
	entries := a.snapshot.entries
	return Usage{User: user, Count: len(entries), Limit: a.rule.Limit, Counted: countEntries(a.rule, entries)}, nil
}

// attendance returns the stream of a session, or else its bar, which barOf returns.
func (l *Limiter) attendance(
	ctx context.Context, user, session string, renew bool, barOf func(schema.BarKey) (schema.Tombstone, time.Duration, bool),
) (Attendance, error) {
	if !userid.Valid(user) {
		return Attendance{}, ErrBadUser
	}
	out := l.attended(ctx, user, session, renew)
	if out.Stream.User != "" {
		return out, nil
	}
	if t, retryAfter, barred := barOf(schema.BarKeyOf(user, session)); barred {
		out.Bar = &Bar{*endedError(t), retryAfter}
	}
	return out, nil
}

// attended returns the running stream of a session, if there is one. If renew is set, it
// keeps the stream alive.
func (l *Limiter) attended(ctx context.Context, user, session string, renew bool) Attendance {
	e, streams, current := l.replica.LookupSession(user, session)
	if (e == nil || l.replica.MayHaveEnded(e.Nonce())) && l.waitForOwnWrite(ctx, user) {
		e, streams, current = l.replica.LookupSession(user, session)
	}
	out := Attendance{Streams: streams, Current: current}
	if e == nil || l.replica.MayHaveEnded(e.Nonce()) {
		return out
	}
	found := newStream(user, l.ids.Sign(user, e.StreamID()), schema.DecodeRecord(e.Value))
	switch renewed := e.LastRenewal(); {
	case !renew || time.Since(renewed) < e.TTL()/3:
	case time.Since(renewed) < e.TTL()*7/8:
		l.renewLater(found)
	default: // or another node has renewed it
		r, err := l.renewOnce(ctx, user, found.ID)
		if errors.Is(err, ErrEnded) {
			out.Current = l.replica.Current()
			return out
		}
		found.Degraded = err != nil || r.Degraded
	}
	out.Stream, out.Limit = found, l.ruleOf(user, e.Value).Limit
	return out
}

// maxRenewals is the approximate maximum number of renewals in the background. Beyond it, the
// next request of the session begins the renewal.
const maxRenewals = 1024

// renewLater renews the lease of a stream in the background, unless it is being renewed.
func (l *Limiter) renewLater(s Stream) {
	if l.renewals.Load() >= maxRenewals {
		return
	}
	l.renewing.DoChan(s.ID, func() (any, error) {
		l.renewals.Add(1)
		defer l.renewals.Add(-1)
		return l.Heartbeat(context.Background(), s.User, s.ID) // the next request repeats a failed one
	})
}

// renewOnce is [Limiter.Heartbeat]. Concurrent calls for one stream share a renewal, so that
// parallel requests of a player send one.
func (l *Limiter) renewOnce(ctx context.Context, user, id string) (Stream, error) {
	select {
	case r := <-l.renewing.DoChan(id, func() (any, error) { return l.Heartbeat(context.WithoutCancel(ctx), user, id) }):
		s, _ := r.Val.(Stream)
		return s, r.Err
	case <-ctx.Done():
		return Stream{ID: id, User: user, TTL: l.cfg.TTL, Degraded: true}, nil
	}
}

// Leave ends the running stream of a session, if there is one, without a bar. It returns
// [ErrBadUser] and [ErrUnavailable].
func (l *Limiter) Leave(ctx context.Context, user, session string) error {
	if !userid.Valid(user) {
		return ErrBadUser
	}
	ctx, cancel := l.withDeadline(ctx)
	defer cancel()
	for {
		s, err := l.snapshotOf(ctx, user)
		if err != nil {
			return err
		}
		i := s.indexOfSession(session)
		if i < 0 {
			return nil
		}
		e := s.entries[i]
		_, err = l.tryEnd(ctx, user, e, schema.Tombstone{Nonce: e.Nonce, Reason: policy.ReasonStopped})
		switch {
		case err == nil:
			return nil
		case retryPause(ctx):
			return etcdop.Unavailable("stop the stream of a session of "+user, err)
		}
	}
}

// indexOfSession returns the index of the stream of a session, or -1.
func (s snapshot) indexOfSession(session string) int {
	return slices.IndexFunc(s.entries, func(e schema.Entry) bool {
		return session != "" && e.Session == session && e.Slot >= 0 && e.Nonce != (streamid.Nonce{})
	})
}

// joinOrDecide returns the running stream of the session if the start is to join it.
// Otherwise it decides on the start. A decision may read the streams again, and then they may
// contain the stream that a concurrent start of the session has written.
func (a *attempt) joinOrDecide(ctx context.Context) (st Started, joined bool, err error) {
	if st, joined, err = a.join(ctx); joined || err != nil {
		return st, joined, err
	}
	before := a.snapshot.rev
	err = a.decide(ctx)
	if a.snapshot.rev != before {
		if st, joined, barred := a.join(ctx); joined || barred != nil {
			return st, joined, barred
		}
	}
	return Started{}, false, err
}

// join renews and returns the running stream of the session, if the start is to join it. It
// reports false if the stream has ended: then the start takes over its slot, and its
// transaction fails unless the stream has expired. If there is no stream, join returns the
// error of checkBar.
func (a *attempt) join(ctx context.Context) (Started, bool, error) {
	i := a.snapshot.indexOfSession(a.req.Session)
	switch {
	case i < 0:
		return Started{}, false, a.checkBar(ctx)
	case !a.req.Join:
		return Started{}, false, nil
	}
	e := a.snapshot.entries[i]
	s, err := a.l.renewOnce(ctx, a.user, a.l.ids.Sign(a.user, e.StreamID()))
	if err != nil {
		return Started{}, false, nil //nolint:nilerr // it has ended
	}
	a.returnLease()
	r := a.l.ruleOf(a.user, e.Value)
	u := Usage{User: a.user, Count: len(a.snapshot.entries), Limit: r.Limit, Counted: countEntries(r, a.snapshot.entries)}
	return Started{Usage: u, Stream: s, Joined: true}, true, nil
}

// checkBar returns a [*Bar] if the start has Via and its session is barred. The
// snapshot of such a start is a linearizable read. checkBar waits until the replica contains
// it, so that no node, however old its replica is, starts a stream of a session whose stream
// was ended before.
func (a *attempt) checkBar(ctx context.Context) error {
	if a.req.Via == "" || a.req.Session == "" {
		return nil
	}
	if !a.l.replica.WaitApplied(ctx, a.snapshot.rev) {
		return etcdop.Unavailable("start for "+a.user, errReplicaStale)
	}
	if t, retryAfter, barred := a.l.replica.Bars().Check(schema.BarKeyOf(a.user, a.req.Session), false); barred {
		return &Bar{*endedError(t), retryAfter}
	}
	return nil
}
