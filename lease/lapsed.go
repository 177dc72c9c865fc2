package lease

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sync/errgroup"
)

// lifetime is what etcd's leader said of a lease.
type lifetime struct {
	lease  int64
	asked  time.Time     // before the question left
	term   uint64        // raft term of the member that answered
	left   time.Duration // at least this much was left then, in whole seconds
	lapsed bool          // it had run out and was not yet revoked, or was gone
}

// decideOn applies the admission rule to s, and returns what it decided on, and
// by which rule. A view that shows a full user is no reason to refuse, nor is a rule
// that is older than what the user holds: etcd is asked, by a read that touches no
// disk. Nor is full refused at once: a stream
// whose lease has run out holds its slot only until etcd gets round to revoking
// it (at most 1,000 leases a second), and gives it away here.
func (l *Limiter) decideOn(ctx context.Context, a *admission, s snapshot) (snapshot, rule, decision, error) {
	gentle := a.want
	gentle.evict = false // lapsed streams go before living ones
	r, err := l.resolve(s.rules, a.user, a.said)
	d, ok := decide(r, s.held, nil, gentle)
	if (err != nil || !ok) && (s.viewed || s.rumoured) {
		if s, err = l.ask(ctx, a); err != nil {
			return s, r, decision{}, err
		}
		r, err = l.resolve(s.rules, a.user, a.said)
		d, ok = decide(r, s.held, nil, gentle)
	}
	if err != nil || ok {
		return s, r, d, err
	}
	w, kept, err := l.mayEvict(ctx, a, r)
	if err != nil {
		return s, r, decision{}, err
	}
	lives := l.lifetimes(ctx, a.user, s)
	lapsed, perhaps := make(map[int64]bool), make(map[int64]bool)
	for _, h := range s.held {
		t, known := lives[h.lease]
		lapsed[h.lease] = t.lapsed
		perhaps[h.lease] = t.lapsed || !known && h.lease != 0
	}
	if d, ok := decide(r, s.held, lapsed, w); ok {
		return s, r, d, nil
	}
	if _, ok := decide(r, s.held, perhaps, w); ok {
		return s, r, decision{}, errLapseUnknown // 403 is for users who have too many
	}
	refused := l.refusal(a.user, r, s.held, lives)
	refused.Kept, refused.EvictAfter = kept.why, kept.left
	return s, r, decision{}, refused
}

// kept is why a start may evict nobody, and for how long.
type kept struct {
	why  Kept
	left time.Duration
}

// mayEvict is what the start wants as far as its user's rule and the cool-down
// allow it.
func (l *Limiter) mayEvict(ctx context.Context, a *admission, r rule) (want, kept, error) {
	w := a.want
	switch {
	case !w.evict:
		return w, kept{}, nil
	case !r.evict:
		w.evict = false
		return w, kept{why: KeptByPlan}, nil
	}
	left, err := l.coolingFor(ctx, a)
	if err != nil || left == 0 {
		return w, kept{}, err
	}
	w.evict = false
	return w, kept{KeptCooling, left}, nil
}

var errLapseUnknown = fmt.Errorf("%w: etcd's leader did not say which of the user's streams have run out",
	ErrUnavailable)

// refusal is the error for a user who holds all of the limit.
func (l *Limiter) refusal(user string, r rule, hs []held, lives map[int64]lifetime) *LimitError {
	e := &LimitError{Limit: r.limit, Counted: r.counted(hs), RetryAfter: l.cfg.TTL}
	for _, h := range hs {
		s := l.stream(user, h)
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

// lifetimes returns what the leader says of the leases of s; what it does not
// say in time is left out. Answers are remembered for a moment, and one caller
// asks for all, so that refused clients cannot turn this into load. An answer is
// used again only while it proves the lease alive; a lapse is always asked anew.
func (l *Limiter) lifetimes(ctx context.Context, user string, s snapshot) map[int64]lifetime {
	lives := make(map[int64]lifetime, len(s.held))
	known, _ := l.lapses.get(user)
	now := time.Now()
	for _, t := range known {
		if now.Sub(t.asked) < freshLife && now.Before(t.until()) {
			lives[t.lease] = t
		}
	}
	var ask []int64
	for _, h := range s.held {
		if _, ok := lives[h.lease]; !ok && h.lease != 0 {
			ask = append(ask, h.lease)
		}
	}
	if len(ask) == 0 {
		return lives
	}
	asking := l.lookups.DoChan(fmt.Sprint(s.term, ask), func() (any, error) {
		// Not the first caller's context: his hurry is not that of all who wait.
		ctx, cancel := context.WithTimeout(context.Background(), l.cfg.Timeout)
		defer cancel()
		return l.askLifetimes(ctx, s.term, ask), nil
	})
	select {
	case v := <-asking:
		maps.Copy(lives, v.Val.(map[int64]lifetime))
	case <-ctx.Done():
		return lives
	}
	all := make([]lifetime, 0, len(lives))
	for _, t := range lives {
		all = append(all, t)
	}
	l.lapses.put(user, all)
	return lives
}

// askLifetimes asks the leader about each lease. What cannot be known is left
// out. A lapse is believed only from the leader of one raft term that a quorum
// confirmed both before and after: one that was paused, or deposed and does not
// know it yet, calls leases lapsed which its successor has renewed. before is
// the term at which the user's keys were read, 0 if no lapse is to be believed.
func (l *Limiter) askLifetimes(ctx context.Context, before uint64, ids []int64) map[int64]lifetime {
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
	after, err := l.terms.read(ctx)
	sure := err == nil && after == before
	maps.DeleteFunc(lives, func(_ int64, t lifetime) bool { return t.lapsed && (!sure || t.term != after) })
	return lives
}

// askLifetime returns the zero lifetime if etcd does not answer. etcd cuts the
// time left to whole seconds towards zero, so 0 may be either side of the end:
// only less than 0 is a lapse, and it stands for a lease that is gone, too.
func (l *Limiter) askLifetime(ctx context.Context, id int64) lifetime {
	asked := time.Now()
	resp, err := l.etcd.Lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id})
	if err != nil {
		return lifetime{}
	}
	return lifetime{
		lease:  id,
		asked:  asked,
		term:   resp.Header.GetRaftTerm(),
		left:   max(time.Duration(resp.TTL), 0) * time.Second,
		lapsed: resp.TTL < 0,
	}
}

// terms reads the raft term for all who want to know it at the same time.
type terms struct {
	ask func(context.Context) (uint64, error)

	mu            sync.Mutex
	running, next *termRead
}

type termRead struct {
	done chan struct{}
	term uint64
	err  error
}

// read is the raft term at a linearizable read that begins after the call does.
// A read that is under way already may have been answered before; those who
// come meanwhile share the next.
func (t *terms) read(ctx context.Context) (uint64, error) {
	t.mu.Lock()
	mine := t.next
	switch {
	case t.running == nil:
		mine = &termRead{done: make(chan struct{})}
		t.running = mine
		go t.run(mine)
	case mine == nil:
		mine = &termRead{done: make(chan struct{})}
		t.next = mine
	}
	t.mu.Unlock()
	select {
	case <-mine.done:
		return mine.term, mine.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

func (t *terms) run(r *termRead) {
	for r != nil {
		r.term, r.err = t.ask(context.Background())
		close(r.done)
		t.mu.Lock()
		t.running, t.next = t.next, nil
		r = t.running
		t.mu.Unlock()
	}
}

// term is the raft term at a linearizable read.
func (l *Limiter) term(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeout)
	defer cancel()
	resp, err := l.etcd.KV.Range(ctx, oneKey(l.keys.users()).read()) // no such key: nothing is read
	if err != nil {
		return 0, unavailable("read the raft term", err)
	}
	return resp.Header.RaftTerm, nil
}
