package convert

import (
	"errors"
	"time"

	"streamcount/api/apitype"
	"streamcount/api/internal/problem"
	"streamcount/lease/policy"
)

// Override returns what a body sets for a user at the time now. The location of the rule in
// the request is where, for the errors of the problem that it otherwise returns.
func Override(where string, b apitype.LimitRule, now time.Time) (policy.Override, *problem.Problem) {
	o := policy.Override{Limit: b.Limit, Plan: b.Plan, Limits: b.Limits}
	if b.Until != nil {
		o.Until = b.Until.UTC()
	}
	switch {
	case o.Limit != nil && o.Plan != "":
		return o, problem.Invalid.New("A user has either a limit or a plan.").
			WithField(where, "expected exactly one of limit and plan")
	case o.Limit == nil && o.Plan == "" && len(o.Limits) == 0:
		return o, problem.Invalid.New("A user has a limit or a plan, or limits of a plan by name.").
			WithField(where, "expected limit, plan or limits")
	}
	err := o.ValidateNew(now)
	if _, ok := errors.AsType[*policy.PlanError](err); ok {
		return o, badRule(where, err)
	}
	return o, nil // the store rejects anything else
}

// LimitRule returns the body of an override.
func LimitRule(o policy.Override) apitype.LimitRule {
	return apitype.LimitRule{Limit: o.Limit, Plan: o.Plan, Limits: o.Limits, Until: apitype.At(o.Until)}
}
