package api

import (
	"context"

	"streamcount/lease/policy"
	"streamcount/lease/rules"
)

// The rules of a fake are the plan family and the limit of 1 for ben.

var somePlan = policy.Plan{Limit: 4, OnLimit: policy.ReplaceOldest, Count: policy.CountStreams}

func someOverride() policy.Override { return policy.Override{Limit: new(1)} }

func (f *fake) Plans(context.Context) (map[string]policy.Plan, error) {
	return map[string]policy.Plan{"family": somePlan, "basic": {Limit: 1}}, f.note("plans")
}

func (f *fake) Plan(_ context.Context, name string) (policy.Plan, error) {
	return f.planNamed(name, f.note("plan %s", name))
}

func (f *fake) planNamed(name string, err error) (policy.Plan, error) {
	if err == nil && name != "family" {
		err = policy.ErrNoPlan
	}
	return somePlan, err
}

func (f *fake) SetPlan(_ context.Context, name string, p policy.Plan) (*policy.Plan, error) {
	return &somePlan, f.note("set plan %s %+v", name, p)
}

func (f *fake) RemovePlan(_ context.Context, name string) (policy.Plan, error) {
	return f.planNamed(name, f.note("remove plan %s", name))
}

func (f *fake) Override(_ context.Context, user string) (policy.Override, error) {
	return f.overrideOf(user, f.note("override %s", user))
}

func (f *fake) overrideOf(user string, err error) (policy.Override, error) {
	if err == nil && user != "maya" {
		err = &rules.NoOverrideError{Limit: 3}
	}
	return someOverride(), err
}

func (f *fake) Explain(_ context.Context, user string) (rules.Explanation, error) {
	kid := "kid"
	return rules.Explanation{Plan: "family", From: rules.FromOverride, NumbersFrom: map[string]rules.Origin{"total": rules.FromOverride}, Until: someTime, Limits: []policy.LimitUsage{
		{Limit: policy.Limit{Name: policy.TotalLimit, Limit: 4, Count: policy.CountStreams}, Counted: 1, Left: 3},
		{Limit: policy.Limit{Name: "profile", Limit: 1, Count: policy.CountDevices, Per: policy.AttrProfile, Observe: true}, Value: &kid, Counted: 1, MoreValues: 2},
	}}, f.note("explain %s", user)
}

func (f *fake) SetOverride(_ context.Context, user string, o policy.Override) (*policy.Override, error) {
	f.mu.Lock()
	f.overrides = append(f.overrides, o)
	f.mu.Unlock()
	if o.Limit != nil {
		return nil, f.note("set override %s limit %d", user, *o.Limit)
	}
	if err := f.note("set override %s plan %s", user, o.Plan); err != nil || o.Plan == "family" {
		return new(someOverride()), err
	}
	return nil, policy.ErrNoPlan
}

func (f *fake) RemoveOverride(_ context.Context, user string) (policy.Override, error) {
	return f.overrideOf(user, f.note("remove override %s", user))
}

func (f *fake) Apply(_ context.Context, set rules.Set, how rules.Options) (rules.Changes, error) {
	c := rules.Changes{Revision: 88}
	for name, p := range set.Plans {
		c.Plans = append(c.Plans, rules.PlanChange{Name: name, Old: &somePlan, New: p})
	}
	for user, o := range set.Users {
		c.Users = append(c.Users, rules.OverrideChange{User: user, New: o})
	}
	return c, f.note("apply %d plans %d users %+v", len(set.Plans), len(set.Users), how)
}
