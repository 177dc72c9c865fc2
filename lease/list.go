package lease

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Consistency says how old an answer may be.
type Consistency string

// The kinds of consistency.
const (
	// Bounded is the view of this node: never older than this node's own last
	// write to the user, and at most a few seconds behind the other nodes. Where
	// the view is not that recent, etcd is asked.
	Bounded Consistency = "bounded"
	// Linearizable is etcd's own answer now.
	Linearizable Consistency = "linearizable"
)

// List returns user's streams, oldest first. A stream whose ExpiresAt is not
// known in time has none. Returns [ErrBadUser], [ErrNoStreams] and
// [ErrUnavailable].
func (l *Limiter) List(ctx context.Context, user string, how Consistency) (Usage, error) {
	if !ValidUser(user) {
		return Usage{}, ErrBadUser
	}
	ctx, cancel := l.bound(ctx)
	defer cancel()
	look := l.know
	if how == Linearizable {
		look = l.read
	}
	s, err := look(ctx, user)
	if err != nil {
		return Usage{}, err
	}
	if len(s.held) == 0 {
		return Usage{}, ErrNoStreams
	}
	lives := l.lifetimes(ctx, user, s)
	u := l.usage(user, len(s.held))
	for _, h := range s.held {
		st := l.stream(user, h)
		st.ExpiresAt = lives[h.lease].until()
		u.Active = append(u.Active, st)
	}
	return u, nil
}

var errViewBehind = errors.New(
	"this node is still reading the streams from etcd: ask again in a moment, or ask another node")

// Totals counts the streams of all users as this node knows them: its own writes
// are in, those of others at most a few seconds later. A node that has just
// started knows them after a moment; [ErrUnavailable] if that takes too long.
func (l *Limiter) Totals(ctx context.Context) (Totals, error) {
	ctx, cancel := l.bound(ctx)
	defer cancel()
	for !l.view.reach(ctx, l.written.Load()) && !pause(ctx) {
	}
	t, current := l.view.totals(l.cfg.Limit)
	if !current {
		return Totals{}, unavailable("count streams", errViewBehind)
	}
	t.Admitted, t.Refused, t.Expired = l.admitted.Load(), l.refused.Load(), l.view.expiries()
	return t, nil
}

// wroteAt notes this node's own write to a user's keys.
func (l *Limiter) wroteAt(user string, rev int64) {
	l.wrote.put(user, rev)
	for {
		old := l.written.Load()
		if old >= rev || l.written.CompareAndSwap(old, rev) {
			return
		}
	}
}

// String is for logs and test failures.
func (u Usage) String() string { return fmt.Sprintf("%s: %d of %d", u.User, u.Count, u.Limit) }

// until is a time before which the lease cannot lapse, or zero if not known.
func (t lifetime) until() time.Time {
	if t.asked.IsZero() {
		return time.Time{}
	}
	return t.asked.Add(t.left)
}
