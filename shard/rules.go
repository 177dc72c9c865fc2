package shard

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"streamcount/lease"
	"streamcount/lease/policy"
	"streamcount/lease/rules"
)

// Plans are stored on every shard, and users' own rules on the user's shard, because the
// transaction of a start compares both. A change of plans is applied to one shard after the
// other; after a failure it can be repeated.

// Plans is [rules.Store.Plans] of the first shard that answers.
func (r *Router) Plans(ctx context.Context) (map[string]policy.Plan, error) {
	return onAnyShard(ctx, r, func(h target) (map[string]policy.Plan, error) { return h.Rules().Plans(ctx) })
}

// Plan is [rules.Store.Plan] of the first shard that answers.
func (r *Router) Plan(ctx context.Context, name string) (policy.Plan, error) {
	return onAnyShard(ctx, r, func(h target) (policy.Plan, error) { return h.Rules().Plan(ctx, name) })
}

// Unreadable is [rules.Store.Unreadable] of all shards that have been reached.
func (r *Router) Unreadable() (plans, users []string) {
	for _, s := range r.Each() {
		if s.limiter != nil {
			p, u := s.limiter.Rules().Unreadable()
			plans, users = append(plans, p...), append(users, u...)
		}
	}
	return sortUnique(plans), sortUnique(users)
}

// Needs is [rules.Store.Needs] of all shards that have been reached.
func (r *Router) Needs() (needs []string) {
	for _, s := range r.Each() {
		if s.limiter != nil {
			needs = append(needs, s.limiter.Rules().Needs()...)
		}
	}
	return sortUnique(needs)
}

func sortUnique(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// onAnyShard calls f on the shards in order until one answers.
func onAnyShard[T any](ctx context.Context, r *Router, f func(target) (T, error)) (out T, err error) {
	err = r.each(ctx, func(h target) (done bool, err error) {
		out, err = f(h)
		return !errors.Is(err, lease.ErrUnavailable), err
	})
	return out, err
}

// each calls f on the shards in order, until f is done.
func (r *Router) each(ctx context.Context, f func(target) (done bool, err error)) error {
	for {
		m := r.current.Load()
		if m == nil {
			return errNoMap
		}
		var err error
		for _, s := range m.all() {
			var h target
			var done bool
			if h, err = r.targetFor(ctx, m, s.Name); err == nil {
				done, err = f(h)
				err = r.adoptOnConflict(err, h)
			}
			if done || errors.Is(err, errMapChanged) || errors.Is(err, lease.ErrRouting) {
				break
			}
		}
		if ctx.Err() != nil || !errors.Is(err, errMapChanged) && !errors.Is(err, lease.ErrRouting) {
			return err
		}
	}
}

// SetPlan is [rules.Store.SetPlan] on every shard.
func (r *Router) SetPlan(ctx context.Context, name string, p policy.Plan) (old *policy.Plan, err error) {
	c, err := r.Apply(ctx, rules.Set{Plans: map[string]*policy.Plan{name: &p}}, rules.Options{})
	if err != nil {
		return nil, err
	}
	if len(c.Plans) == 0 {
		p = p.WithDefaults()
		return &p, nil
	}
	return c.Plans[0].Old, nil
}

// RemovePlan is [rules.Store.RemovePlan] on every shard.
func (r *Router) RemovePlan(ctx context.Context, name string) (policy.Plan, error) {
	c, err := r.Apply(ctx, rules.Set{Plans: map[string]*policy.Plan{name: nil}}, rules.Options{})
	switch {
	case err != nil:
		return policy.Plan{}, err
	case len(c.Plans) == 0:
		return policy.Plan{}, policy.ErrNoPlan
	}
	return *c.Plans[0].Old, nil
}

// Override is [rules.Store.Override].
func (r *Router) Override(ctx context.Context, user string) (policy.Override, error) {
	return onShardOf(ctx, r, user, func(h target) (policy.Override, error) { return h.Rules().Override(ctx, user) })
}

// Explain is [rules.Store.Explain].
func (r *Router) Explain(ctx context.Context, user string) (rules.Explanation, error) {
	return onShardOf(ctx, r, user, func(h target) (rules.Explanation, error) { return h.Rules().Explain(ctx, user) })
}

// SetOverride is [rules.Store.SetOverride].
func (r *Router) SetOverride(ctx context.Context, user string, o policy.Override) (*policy.Override, error) {
	c, err := r.applyTo(ctx, user, &o)
	if err != nil {
		return nil, err
	}
	if len(c.Users) == 0 {
		return &o, nil
	}
	return c.Users[0].Old, nil
}

// RemoveOverride is [rules.Store.RemoveOverride].
func (r *Router) RemoveOverride(ctx context.Context, user string) (policy.Override, error) {
	c, err := r.applyTo(ctx, user, nil)
	switch {
	case err != nil:
		return policy.Override{}, err
	case len(c.Users) == 0:
		_, err := r.Override(ctx, user) // its error has the limit that applies
		return policy.Override{}, err
	}
	return *c.Users[0].Old, nil
}

func (r *Router) applyTo(ctx context.Context, user string, o *policy.Override) (rules.Changes, error) {
	set := rules.Set{Users: map[string]*policy.Override{user: o}}
	return onShardOf(ctx, r, user, func(h target) (rules.Changes, error) {
		return h.Rules().Apply(ctx, set, rules.Options{RoutingRevision: h.revision})
	})
}

// Apply is [rules.Store.Apply]. With several shards it is atomic on each of them, but not
// across shards. It may be repeated. It ignores Options.Since, because the revisions of
// shards are independent.
func (r *Router) Apply(ctx context.Context, set rules.Set, how rules.Options) (rules.Changes, error) {
	for {
		c, err := r.tryApply(ctx, set, how)
		if !errors.Is(err, errMapChanged) && !errors.Is(err, lease.ErrRouting) {
			return c, err
		}
		if ctx.Err() != nil {
			return c, fmt.Errorf("%w: write rules: %w", lease.ErrUnavailable, context.Cause(ctx))
		}
	}
}

func (r *Router) tryApply(ctx context.Context, set rules.Set, how rules.Options) (rules.Changes, error) {
	m := r.current.Load()
	if m == nil {
		return rules.Changes{}, errNoMap
	}
	parts := map[string]rules.Set{}
	all := m.all()
	for _, s := range all {
		parts[s.Name] = rules.Set{Plans: set.Plans, Users: map[string]*policy.Override{}}
	}
	for user, o := range set.Users {
		h, err := r.route(ctx, user) // after this the user has left their previous shard
		if err != nil {
			return rules.Changes{}, err
		}
		if h.m != m {
			return rules.Changes{}, errMapChanged
		}
		parts[h.conn.Name].Users[user] = o
	}
	if len(all) > 1 {
		how.Since = 0
	}
	if !how.DryRun && len(all) > 1 && len(set.Needs()) > 0 {
		// A node may be registered on some shards only. If it is older than the set, no shard
		// is changed.
		dry := how
		dry.DryRun = true
		if _, err := r.applyParts(ctx, m, parts, dry); err != nil {
			return rules.Changes{}, err
		}
	}
	return r.applyParts(ctx, m, parts, how)
}

// applyParts applies to each shard of m its part of a set, in order.
func (r *Router) applyParts(ctx context.Context, m *Map, parts map[string]rules.Set, how rules.Options) (rules.Changes, error) {
	all := m.all()
	var sum rules.Changes
	for i, s := range all {
		h, err := r.targetFor(ctx, m, s.Name)
		if err != nil {
			return rules.Changes{}, err
		}
		how.RoutingRevision = h.revision
		c, err := h.Rules().Apply(ctx, parts[s.Name], how)
		if err != nil {
			return rules.Changes{}, r.adoptOnConflict(err, h)
		}
		if i == 0 {
			sum.Plans = c.Plans // the same on all shards
		}
		if len(all) == 1 {
			sum.Revision = c.Revision
		}
		sum.Users = append(sum.Users, c.Users...)
	}
	return sum, nil
}
