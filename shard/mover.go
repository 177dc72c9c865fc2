package shard

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"streamcount/lease"
)

// A change of the set of shards is two maps, one after the other. Under the first,
// users move: starts and everything else that is about one user brings him to his
// new home first, and whoever carries out the change brings all the others. Under
// the second nobody looks at the old homes any more.
//
// Each map is decided by one transaction, on the first of the shards from which
// users move, and then written to all others, by whoever meets one that does not
// have it. On each shard the map is a fence: no start that was routed by another is
// admitted there.

// Progress is how far a move has come.
type Progress struct {
	Moved int64  // users brought to their new homes by this process
	Left  string // the shard that is being emptied
}

const moversAtOnce = 32

// Move spreads users over the shards to, and returns when nobody is left where he
// was. Another that was broken off is finished by asking for the same shards. It
// may be broken off at any time; the service goes on meanwhile.
func (r *Router) Move(ctx context.Context, to []Shard, tell func(Progress)) error {
	if err := Check(to); err != nil {
		return err
	}
	m, err := r.begin(ctx, to)
	if err != nil {
		return err
	}
	if m == nil { // another may have been broken off at its very end
		return r.forget(ctx, r.now.Load())
	}
	if err := r.sweep(ctx, m, tell); err != nil {
		return err
	}
	return r.settle(ctx, m)
}

// begin makes m, under which users move, the map of all its shards. It returns nil
// if users are spread that way already.
func (r *Router) begin(ctx context.Context, to []Shard) (*Map, error) {
	now := r.now.Load()
	if now == nil {
		return nil, errNoMap
	}
	if err := Check((&Map{Shards: to, From: now.Shards}).all()); err != nil {
		return nil, err
	}
	if len(now.From) > 0 {
		if !same(now.Shards, to) {
			return nil, fmt.Errorf("users are on their way to %v: finish that first, by a move to these", now.Shards)
		}
		return now, r.spread(ctx, now, now.all())
	}
	if same(now.Shards, to) {
		return nil, nil
	}
	if now.Epoch == 0 {
		first := &Map{ID: newID(), Epoch: 1, Shards: now.Shards}
		if err := r.decide(ctx, now, first); err != nil {
			return nil, err
		}
		now = first
	}
	// No shard may be behind the map that is to be replaced.
	if err := r.spread(ctx, now, now.Shards); err != nil {
		return nil, err
	}
	next := &Map{ID: now.ID, Epoch: now.Epoch + 1, Shards: to, From: now.Shards}
	if err := r.prepare(ctx, now, next); err != nil {
		return nil, err
	}
	if err := r.decide(ctx, now, next); err != nil {
		return nil, err
	}
	if err := r.spread(ctx, next, next.all()); err != nil {
		return nil, err
	}
	return next, r.copyPlans(ctx, next) // again: one may have been set in between
}

func same(a, b []Shard) bool {
	names := func(shards []Shard) []string {
		var out []string
		for _, s := range shards {
			out = append(out, s.Name)
		}
		slices.Sort(out)
		return out
	}
	return slices.Equal(names(a), names(b))
}

// prepare opens the new shards, and sees to it that they are empty and have the
// plans.
func (r *Router) prepare(ctx context.Context, now, next *Map) error {
	for _, s := range next.Shards {
		r.mu.Lock()
		p := r.openLocked(s, false)
		r.mu.Unlock()
		if p == nil {
			return fmt.Errorf("shard %s: %w", s.Name, context.Cause(ctx))
		}
		for p.opened.Load() == nil {
			if !wait(ctx, 20*time.Millisecond) {
				return fmt.Errorf("shard %s has not been reached: %w", s.Name, context.Cause(ctx))
			}
		}
		if slices.ContainsFunc(now.Shards, func(old Shard) bool { return old.Name == s.Name }) {
			continue
		}
		got := p.reading(p.opened.Load().Limiter.Shards())
		if got.m != nil && got.m.ID != now.ID {
			return fmt.Errorf("shard %s: %w", s.Name, errForeignMap)
		}
		t, err := p.opened.Load().Limiter.Totals(ctx)
		switch {
		case err != nil:
			return fmt.Errorf("shard %s: %w", s.Name, err)
		case t.Streams > 0:
			return fmt.Errorf("shard %s: %w: %d of them", s.Name, lease.ErrInUse, t.Streams)
		}
	}
	return r.copyPlans(ctx, next)
}

// copyPlans gives the shards of m the plans that they lack, as the first shard that
// users come from has them.
func (r *Router) copyPlans(ctx context.Context, m *Map) error {
	from, err := r.place(m.From[0].Name)
	if err != nil {
		return err
	}
	plans, err := from.opened.Load().Limiter.Plans(ctx)
	if err != nil {
		return fmt.Errorf("copy plans: %w", err)
	}
	set := lease.RuleSet{Plans: map[string]*lease.Plan{}}
	for name, p := range plans {
		set.Plans[name] = &p
	}
	for _, s := range m.Shards {
		p, err := r.place(s.Name)
		if err != nil {
			return err
		}
		l := p.opened.Load().Limiter
		if _, err := l.Apply(ctx, set, lease.ApplyOptions{Routed: l.Shards().Mod}); err != nil {
			return fmt.Errorf("copy plans to shard %s: %w", s.Name, err)
		}
	}
	return nil
}

// place is an open shard.
func (r *Router) place(name string) (*place, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.shards[name]
	if p == nil || p.opened.Load() == nil {
		return nil, fmt.Errorf("%w: shard %s has not been reached", lease.ErrUnavailable, name)
	}
	return p, nil
}

// decide makes next the map after now, unless somebody else has made another.
func (r *Router) decide(ctx context.Context, now, next *Map) error {
	deciding := now.Shards
	if len(now.From) > 0 {
		deciding = now.From
	}
	for {
		h, err := r.at(ctx, now, deciding[0].Name)
		if errors.Is(err, errAgain) {
			return errDecided
		}
		if err != nil {
			return err
		}
		_, err = h.PutShards(ctx, next.encode(), h.Shards(), false)
		got := h.place.reading(h.Shards())
		switch {
		case got.m != nil && got.m.ID == next.ID && got.m.Epoch == next.Epoch && same(got.m.Shards, next.Shards):
			return nil // also where the answer was lost
		case errors.Is(err, lease.ErrRouting):
			return errDecided
		case err == nil:
			return nil
		}
		if _, failed := h.ReadShards(ctx); failed != nil && !wait(ctx, 100*time.Millisecond) {
			return err
		}
	}
}

var errDecided = errors.New("somebody else has changed the shards meanwhile: look at the status, and start again")

// spread writes m to the shards, and goes by it.
func (r *Router) spread(ctx context.Context, m *Map, to []Shard) error {
	places := make([]*place, 0, len(to))
	for _, s := range to {
		p, err := r.place(s.Name)
		if err != nil {
			return err
		}
		places = append(places, p)
	}
	for _, p := range places {
		if _, err := r.bring(ctx, m, p); err != nil {
			return err
		}
	}
	if m.Epoch == 0 {
		return nil
	}
	return r.adopt(m)
}

// sweep brings everybody who has anything at an old home to his new one.
func (r *Router) sweep(ctx context.Context, m *Map, tell func(Progress)) error {
	var moved atomic.Int64
	for _, s := range m.From {
		tell(Progress{Left: s.Name})
		// Nobody gets anything there any more, so one look at each key is enough.
		h, err := r.at(ctx, m, s.Name)
		if err != nil {
			return err
		}
		moves := func(user string) bool { return m.Home(user) != s.Name && m.Old(user) == s.Name }
		for at := (lease.Cursor{}); ; {
			users, next, err := h.Leavers(ctx, at, moves)
			if err != nil {
				return err
			}
			if len(users) == 0 {
				break
			}
			at = next
			g, work := errgroup.WithContext(ctx)
			g.SetLimit(moversAtOnce)
			for _, user := range users {
				g.Go(func() error {
					if err := r.bringUser(work, m, user); err != nil {
						return fmt.Errorf("move %s: %w", user, err)
					}
					moved.Add(1)
					return nil
				})
			}
			if err := g.Wait(); err != nil {
				return err
			}
			tell(Progress{Moved: moved.Load(), Left: s.Name})
		}
	}
	return nil
}

// bringUser moves one user, with patience: a shard may be away for a while.
func (r *Router) bringUser(ctx context.Context, m *Map, user string) error {
	for {
		h, err := r.home(ctx, user)
		switch {
		case err == nil && h.m.Epoch != m.Epoch:
			return errDecided
		case err == nil:
			return nil
		case !errors.Is(err, lease.ErrUnavailable) || !wait(ctx, time.Second):
			return err
		}
	}
}

// settle ends a move after which nobody is left at an old home.
func (r *Router) settle(ctx context.Context, m *Map) error {
	last := &Map{ID: m.ID, Epoch: m.Epoch + 1, Shards: m.Shards}
	if err := r.decide(ctx, m, last); err != nil {
		return err
	}
	if err := r.spread(ctx, last, m.all()); err != nil {
		return err
	}
	return r.forget(ctx, last)
}

// forget removes what arrivals have left.
func (r *Router) forget(ctx context.Context, m *Map) error {
	for _, s := range m.Shards {
		h, err := r.at(ctx, m, s.Name)
		if err != nil {
			return err
		}
		if err := h.ForgetArrivals(ctx); err != nil {
			return fmt.Errorf("shard %s: %w", s.Name, err)
		}
	}
	return nil
}
