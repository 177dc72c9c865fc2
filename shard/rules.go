package shard

import (
	"context"
	"errors"
	"fmt"

	"streamcount/lease"
)

// Plans stand on every shard, and what a user has of his own stands where he lives,
// because admissions ask for both in their transactions. A change of plans is
// carried out on one shard after the other: it may be repeated where that failed.

// Plans is [lease.Limiter.Plans] of the first shard that answers.
func (r *Router) Plans(ctx context.Context) (map[string]lease.Plan, error) {
	return anywhere(ctx, r, func(h home) (map[string]lease.Plan, error) { return h.Plans(ctx) })
}

// Plan is [lease.Limiter.Plan] of the first shard that answers.
func (r *Router) Plan(ctx context.Context, name string) (lease.Plan, error) {
	return anywhere(ctx, r, func(h home) (lease.Plan, error) { return h.Plan(ctx, name) })
}

// anywhere asks the shards in order until one answers.
func anywhere[T any](ctx context.Context, r *Router, ask func(home) (T, error)) (out T, err error) {
	err = r.each(ctx, func(h home) (done bool, err error) {
		out, err = ask(h)
		return !errors.Is(err, lease.ErrUnavailable), err
	})
	return out, err
}

// each calls f on the shards in order, until f is done.
func (r *Router) each(ctx context.Context, f func(home) (done bool, err error)) error {
	for {
		m := r.now.Load()
		if m == nil {
			return errNoMap
		}
		var err error
		for _, s := range m.all() {
			var h home
			var done bool
			if h, err = r.at(ctx, m, s.Name); err == nil {
				done, err = f(h)
				err = r.learned(err, h)
			}
			if done || errors.Is(err, errAgain) || errors.Is(err, lease.ErrRouting) {
				break
			}
		}
		if ctx.Err() != nil || !errors.Is(err, errAgain) && !errors.Is(err, lease.ErrRouting) {
			return err
		}
	}
}

// SetPlan is [lease.Limiter.SetPlan] on every shard.
func (r *Router) SetPlan(ctx context.Context, name string, p lease.Plan) (old *lease.Plan, err error) {
	c, err := r.Apply(ctx, lease.RuleSet{Plans: map[string]*lease.Plan{name: &p}}, lease.ApplyOptions{})
	if err != nil {
		return nil, err
	}
	if len(c.Plans) == 0 {
		p = p.WithDefaults()
		return &p, nil
	}
	return c.Plans[0].Old, nil
}

// RemovePlan is [lease.Limiter.RemovePlan] on every shard.
func (r *Router) RemovePlan(ctx context.Context, name string) (lease.Plan, error) {
	c, err := r.Apply(ctx, lease.RuleSet{Plans: map[string]*lease.Plan{name: nil}}, lease.ApplyOptions{})
	switch {
	case err != nil:
		return lease.Plan{}, err
	case len(c.Plans) == 0:
		return lease.Plan{}, lease.ErrNoPlan
	}
	return *c.Plans[0].Old, nil
}

// Override is [lease.Limiter.Override].
func (r *Router) Override(ctx context.Context, user string) (lease.Override, error) {
	return on(ctx, r, user, func(h home) (lease.Override, error) { return h.Override(ctx, user) })
}

// SetOverride is [lease.Limiter.SetOverride].
func (r *Router) SetOverride(ctx context.Context, user string, o lease.Override) (*lease.Override, error) {
	c, err := r.applyTo(ctx, user, &o)
	if err != nil {
		return nil, err
	}
	if len(c.Users) == 0 {
		return &o, nil
	}
	return c.Users[0].Old, nil
}

// RemoveOverride is [lease.Limiter.RemoveOverride].
func (r *Router) RemoveOverride(ctx context.Context, user string) (lease.Override, error) {
	c, err := r.applyTo(ctx, user, nil)
	switch {
	case err != nil:
		return lease.Override{}, err
	case len(c.Users) == 0:
		_, err := r.Override(ctx, user) // tells the limit in force
		return lease.Override{}, err
	}
	return *c.Users[0].Old, nil
}

func (r *Router) applyTo(ctx context.Context, user string, o *lease.Override) (lease.Changes, error) {
	set := lease.RuleSet{Users: map[string]*lease.Override{user: o}}
	return on(ctx, r, user, func(h home) (lease.Changes, error) {
		return h.Apply(ctx, set, lease.ApplyOptions{Routed: h.routed})
	})
}

// Apply is [lease.Limiter.Apply]. Over several shards it is atomic on each of them,
// not over all, it may be repeated, and ApplyOptions.Since is not looked at: the
// shards' revisions have nothing to do with each other.
func (r *Router) Apply(ctx context.Context, set lease.RuleSet, how lease.ApplyOptions) (lease.Changes, error) {
	for {
		c, err := r.tryApply(ctx, set, how)
		if !errors.Is(err, errAgain) && !errors.Is(err, lease.ErrRouting) {
			return c, err
		}
		if ctx.Err() != nil {
			return c, fmt.Errorf("%w: write rules: %w", lease.ErrUnavailable, context.Cause(ctx))
		}
	}
}

func (r *Router) tryApply(ctx context.Context, set lease.RuleSet, how lease.ApplyOptions) (lease.Changes, error) {
	m := r.now.Load()
	if m == nil {
		return lease.Changes{}, errNoMap
	}
	parts := map[string]lease.RuleSet{}
	all := m.all()
	for _, s := range all {
		parts[s.Name] = lease.RuleSet{Plans: set.Plans, Users: map[string]*lease.Override{}}
	}
	for user, o := range set.Users {
		h, err := r.home(ctx, user) // and he has left his old one
		if err != nil {
			return lease.Changes{}, err
		}
		if h.m != m {
			return lease.Changes{}, errAgain
		}
		parts[h.place.Name].Users[user] = o
	}
	if len(all) > 1 {
		how.Since = 0
	}
	var sum lease.Changes
	for i, s := range all {
		h, err := r.at(ctx, m, s.Name)
		if err != nil {
			return lease.Changes{}, err
		}
		how.Routed = h.routed
		c, err := h.Apply(ctx, parts[s.Name], how)
		if err != nil {
			return lease.Changes{}, r.learned(err, h)
		}
		if i == 0 {
			sum.Plans = c.Plans // the same everywhere
		}
		if len(all) == 1 {
			sum.Revision = c.Revision
		}
		sum.Users = append(sum.Users, c.Users...)
	}
	return sum, nil
}
