package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
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
	lives := l.shownLifetimes(ctx, user, s, how)
	r := l.ruleOf(user, newest(s.held))
	u := Usage{User: user, Count: len(s.held), Limit: r.limit, Counted: r.counted(s.held)}
	for _, h := range s.held {
		st := l.stream(user, h)
		st.ExpiresAt = lives[h.lease].until()
		u.Active = append(u.Active, st)
	}
	return u, nil
}

// shownLifetimes are lifetimes for show. The leader may be in another region, so it is
// not asked about a stream that this node renewed less than half a TTL ago: from then
// on the stream has at least a TTL, and more only if another node renewed it since.
func (l *Limiter) shownLifetimes(ctx context.Context, user string, s snapshot, how Consistency) map[int64]lifetime {
	own, others := map[int64]lifetime{}, s
	others.held = nil
	for _, h := range s.held {
		at, _ := l.view.lookup(user, h.ident())
		if how == Linearizable || at == nil {
			others.held = append(others.held, h)
			continue
		}
		renewed, ttl := at.renewedAt(), headOf(h.value).ttl()
		if time.Since(renewed) >= ttl/2 {
			others.held = append(others.held, h)
			continue
		}
		own[h.lease] = lifetime{lease: h.lease, asked: renewed, left: ttl}
	}
	lives := l.lifetimes(ctx, user, others)
	maps.Copy(lives, own)
	return lives
}

var errViewBehind = errors.New(
	"this node is still reading the streams from etcd: ask again in a moment, or ask another node")

// Totals counts the streams of all users as this node knows them: its own writes
// are in, those of others at most a few seconds later. A node that has just
// started knows them after a moment; [ErrUnavailable] if that takes too long.
// Where users have limits of their own, those at their limit are counted anew
// only once in two seconds, or less often where that takes long.
func (l *Limiter) Totals(ctx context.Context) (Totals, error) {
	ctx, cancel := l.bound(ctx)
	defer cancel()
	for !l.view.reach(ctx, l.view.own.Load()) && !pause(ctx) {
	}
	usual := l.ruleOf("", nil)
	t, told := l.view.totals(usual.limit)
	if !l.view.current() {
		return Totals{}, unavailable("count streams", errViewBehind)
	}
	if told || !usual.count.each() || !l.view.rules.empty() {
		t.UsersAtLimit = l.full.count(l.countFull)
	}
	t.Admitted, t.Refused, t.Expired = l.admitted.Load(), l.refused.Load(), l.view.expiries()
	return t, nil
}

// countFull looks at every user: how many of them are at a limit of their own?
func (l *Limiter) countFull() int {
	n := 0
	l.view.each(func(user string, hs []held) {
		if r := l.ruleOf(user, newest(hs)); r.counted(hs) >= r.limit {
			n++
		}
	})
	return n
}

// EachUser calls f for each user that this node knows of, with how many streams he
// has. Returns [ErrUnavailable] if it does not know all of them yet.
func (l *Limiter) EachUser(ctx context.Context, f func(user string, streams int)) error {
	if _, err := l.Totals(ctx); err != nil {
		return err
	}
	l.view.each(func(user string, hs []held) { f(user, len(hs)) })
	return nil
}

// census is a number that is counted anew once in a while.
type census struct {
	mu    sync.Mutex
	taken time.Time
	took  time.Duration
	n     int
}

const (
	censusSpan  = 2 * time.Second
	censusShare = 50 // of the time, at most, one part goes into counting
)

func (c *census) count(anew func() int) int { return c.within(censusSpan, anew) }

// within is the number as it was no longer than span ago.
func (c *census) within(span time.Duration, anew func() int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.taken.IsZero() || time.Since(c.taken) > max(span, censusShare*c.took) {
		began := time.Now()
		c.n, c.taken = anew(), time.Now()
		c.took = c.taken.Sub(began)
	}
	return c.n
}

// wroteAt notes this node's own write to a user's keys.
func (l *Limiter) wroteAt(user string, rev int64) {
	l.wrote.put(user, rev)
	l.view.wroteAt(rev)
}

// wroteAt notes a write of this node's own.
func (v *view) wroteAt(rev int64) {
	for {
		old := v.own.Load()
		if old >= rev || v.own.CompareAndSwap(old, rev) {
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
