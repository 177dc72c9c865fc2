package lease

import (
	"context"
	"maps"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
)

// lifetime is what etcd's leader said of a lease.
type lifetime struct {
	lease  int64
	asked  time.Time     // before the question left
	left   time.Duration // at least this much was left then, in whole seconds
	lapsed bool          // it had run out and was not yet revoked, or was gone
}

// until is a time before which the lease cannot lapse, or zero if not known.
func (t lifetime) until() time.Time {
	if t.asked.IsZero() {
		return time.Time{}
	}
	return t.asked.Add(t.left)
}

// decideOn applies the admission rule to s. Full is not refused at once: a
// stream whose lease has run out holds its slot only until etcd gets round to
// revoking it (at most 1,000 leases a second), and gives it away here.
func (l *Limiter) decideOn(ctx context.Context, a *admission, s snapshot) (plan, error) {
	gentle := a.want
	gentle.evict = false // lapsed streams go before living ones
	if p, ok := decide(l.cfg.Limit, s.held, nil, gentle); ok {
		return p, nil
	}
	lives := l.lifetimes(ctx, a.user, s.held)
	lapsed := make(map[int64]bool)
	for _, t := range lives {
		if t.lapsed {
			lapsed[t.lease] = true
		}
	}
	if p, ok := decide(l.cfg.Limit, s.held, lapsed, a.want); ok {
		return p, nil
	}
	return plan{}, l.refusal(a.user, s.held, lives)
}

// refusal is the error for a user who holds all of the limit.
func (l *Limiter) refusal(user string, hs []held, lives map[int64]lifetime) *LimitError {
	e := &LimitError{Limit: l.cfg.Limit, RetryAfter: l.cfg.TTL}
	for _, h := range hs {
		s := l.stream(user, max(h.slot, 0), h.lease, h.rec)
		s.ExpiresAt = lives[h.lease].until()
		if !s.ExpiresAt.IsZero() {
			e.RetryAfter = min(e.RetryAfter, time.Until(s.ExpiresAt))
		}
		e.Active = append(e.Active, s)
	}
	e.RetryAfter = max(e.RetryAfter, time.Second)
	return e
}

// freshLife is how long an answer about a lease is shown again to a client that
// keeps asking.
const freshLife = time.Second

// lifetimes returns what the leader says of the leases of hs. Answers are
// remembered for a moment, and one caller a user asks for all, so that refused
// clients cannot turn this into load. An answer is used again only while it
// proves the lease alive; a lapse is always asked anew.
func (l *Limiter) lifetimes(ctx context.Context, user string, hs []held) map[int64]lifetime {
	lives := make(map[int64]lifetime, len(hs))
	known, _ := l.lapses.get(user)
	now := time.Now()
	for _, t := range known {
		if now.Sub(t.asked) < freshLife && now.Before(t.until()) {
			lives[t.lease] = t
		}
	}
	var ask []int64
	for _, h := range hs {
		if _, ok := lives[h.lease]; !ok && h.lease != 0 {
			ask = append(ask, h.lease)
		}
	}
	if len(ask) == 0 {
		return lives
	}
	v, _, _ := l.lookups.Do(user, func() (any, error) { return l.askLifetimes(ctx, ask), nil })
	maps.Copy(lives, v.(map[int64]lifetime))
	all := make([]lifetime, 0, len(lives))
	for _, t := range lives {
		all = append(all, t)
	}
	l.lapses.put(user, all)
	return lives
}

// askLifetimes asks the leader about each lease. What cannot be known is left
// out. A lapse is believed only if the raft term was the same before and after:
// a leader that was paused may call leases lapsed which its successor renewed.
func (l *Limiter) askLifetimes(ctx context.Context, ids []int64) map[int64]lifetime {
	before, errBefore := l.term(ctx)
	answers := make([]lifetime, len(ids))
	var g errgroup.Group
	g.SetLimit(8)
	for i, id := range ids {
		g.Go(func() error {
			answers[i] = l.askLifetime(ctx, id)
			return nil
		})
	}
	_ = g.Wait() // its functions return nil
	lives := make(map[int64]lifetime, len(ids))
	lapses := false
	for _, t := range answers {
		if t.lease != 0 {
			lives[t.lease] = t
			lapses = lapses || t.lapsed
		}
	}
	if !lapses {
		return lives
	}
	if after, err := l.term(ctx); err != nil || errBefore != nil || after != before {
		maps.DeleteFunc(lives, func(_ int64, t lifetime) bool { return t.lapsed })
	}
	return lives
}

// askLifetime returns the zero lifetime if etcd does not answer. etcd cuts the
// time left to whole seconds towards zero, so 0 may be either side of the end:
// only less than 0 is a lapse, and it stands for a lease that is gone, too.
func (l *Limiter) askLifetime(ctx context.Context, id int64) lifetime {
	asked := time.Now()
	resp, err := l.leases.LeaseTimeToLive(ctx, &etcdserverpb.LeaseTimeToLiveRequest{ID: id})
	if err != nil {
		return lifetime{}
	}
	return lifetime{
		lease:  id,
		asked:  asked,
		left:   max(time.Duration(resp.TTL), 0) * time.Second,
		lapsed: resp.TTL < 0,
	}
}

// term is the raft term at a linearizable read.
func (l *Limiter) term(ctx context.Context) (uint64, error) {
	resp, err := l.kv.Get(ctx, l.keys.users(), clientv3.WithCountOnly())
	if err != nil {
		return 0, unavailable("read the raft term", err)
	}
	return resp.Header.RaftTerm, nil
}
