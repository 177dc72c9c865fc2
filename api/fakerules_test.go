package api

import (
	"context"

	"streamcount/lease"
)

// The rules that a fake has: the plan family, and ben's limit of 1.

var somePlan = lease.Plan{Limit: 4, OnLimit: lease.ReplaceOldest, Count: lease.CountStreams}

func someOverride() lease.Override { return lease.Override{Limit: new(1)} }

func (f *fake) Plans(context.Context) (map[string]lease.Plan, error) {
	return map[string]lease.Plan{"family": somePlan, "basic": {Limit: 1}}, f.note("plans")
}

func (f *fake) Plan(_ context.Context, name string) (lease.Plan, error) {
	return f.planNamed(name, f.note("plan %s", name))
}

func (f *fake) planNamed(name string, err error) (lease.Plan, error) {
	if err == nil && name != "family" {
		err = lease.ErrNoPlan
	}
	return somePlan, err
}

func (f *fake) SetPlan(_ context.Context, name string, p lease.Plan) (*lease.Plan, error) {
	return &somePlan, f.note("set plan %s %+v", name, p)
}

func (f *fake) RemovePlan(_ context.Context, name string) (lease.Plan, error) {
	return f.planNamed(name, f.note("remove plan %s", name))
}

func (f *fake) Override(_ context.Context, user string) (lease.Override, error) {
	return f.overrideOf(user, f.note("override %s", user))
}

func (f *fake) overrideOf(user string, err error) (lease.Override, error) {
	if err == nil && user != "maya" {
		err = &lease.NoOverrideError{Limit: 3}
	}
	return someOverride(), err
}

func (f *fake) SetOverride(_ context.Context, user string, o lease.Override) (*lease.Override, error) {
	if o.Limit != nil {
		return nil, f.note("set override %s limit %d", user, *o.Limit)
	}
	if err := f.note("set override %s plan %s", user, o.Plan); err != nil || o.Plan == "family" {
		return new(someOverride()), err
	}
	return nil, lease.ErrNoPlan
}

func (f *fake) RemoveOverride(_ context.Context, user string) (lease.Override, error) {
	return f.overrideOf(user, f.note("remove override %s", user))
}

func (f *fake) Apply(_ context.Context, set lease.RuleSet, how lease.ApplyOptions) (lease.Changes, error) {
	c := lease.Changes{Revision: 88}
	for name, p := range set.Plans {
		c.Plans = append(c.Plans, lease.PlanChange{Name: name, Old: &somePlan, New: p})
	}
	for user, o := range set.Users {
		c.Users = append(c.Users, lease.OverrideChange{User: user, New: o})
	}
	return c, f.note("apply %d plans %d users %+v", len(set.Plans), len(set.Users), how)
}
