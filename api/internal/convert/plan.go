package convert

import (
	"errors"
	"slices"
	"strings"

	"streamcount/api/apitype"
	"streamcount/api/internal/problem"
	"streamcount/lease/policy"
)

// Plan returns the plan in a body, with its defaults. The location of the plan in the
// request is where, for the errors of the problem that it otherwise returns.
func Plan(where string, b apitype.PlanRule) (policy.Plan, *problem.Problem) {
	p := policy.Plan{Limit: policy.MaxLimit, OnLimit: policy.OnLimit(b.OnLimit), Count: policy.Counting(b.Count)}
	switch {
	case b.Limit != nil:
		p.Limit = *b.Limit
	case len(b.Limits) == 0:
		return p, problem.Invalid.New(where+": a plan has a limit, or a list of limits.").WithField(where+".limit", "expected a number")
	}
	for _, a := range b.Require {
		p.Require = append(p.Require, policy.Attribute(a))
	}
	for _, l := range b.Limits {
		p.Limits = append(p.Limits, limit(l))
	}
	if err := p.Validate(); err != nil {
		return p, badRule(where, err)
	}
	return p.WithDefaults(), nil
}

func limit(l apitype.Limit) policy.Limit {
	out := policy.Limit{
		Name: l.Name, Count: policy.Counting(l.Count), Per: policy.Attribute(l.Per), Limit: l.Limit,
		OnLimit: policy.OnLimit(l.OnLimit), Message: l.Message, Observe: l.Observe,
	}
	out.Where = conditions(l.Where)
	return out
}

// conditions returns the conditions in a body, sorted by attribute.
func conditions(where apitype.Where) []policy.Condition {
	var out []policy.Condition
	for a, v := range where {
		out = append(out, policy.Condition{Attribute: policy.Attribute(a), In: v.In, Not: v.Not})
	}
	slices.SortFunc(out, func(a, b policy.Condition) int { return strings.Compare(string(a.Attribute), string(b.Attribute)) })
	return out
}

// badRule returns the problem of an invalid plan or override, with the members that are wrong.
func badRule(where string, err error) *problem.Problem {
	bad, ok := errors.AsType[*policy.PlanError](err)
	if !ok {
		text := strings.TrimPrefix(err.Error(), policy.ErrBadRule.Error()+": ")
		return problem.Invalid.New(where+": "+text).WithField(where, text)
	}
	p := problem.Invalid.New(where + "." + bad.Fields[0].Location + ": " + bad.Fields[0].Problem)
	for _, f := range bad.Fields {
		p = p.WithField(where+"."+f.Location, f.Problem)
	}
	return p
}

// PlanRule returns the body of a plan.
func PlanRule(p policy.Plan) apitype.PlanRule {
	out := apitype.PlanRule{Limit: &p.Limit, OnLimit: string(p.OnLimit), Count: string(p.Count)}
	for _, a := range p.Require {
		out.Require = append(out.Require, string(a))
	}
	for _, l := range p.Limits {
		rule := apitype.Limit{
			Name: l.Name, Count: string(l.Count), Per: string(l.Per), Limit: l.Limit, OnLimit: string(l.OnLimit),
			Message: l.Message, Observe: l.Observe,
		}
		for _, c := range l.Where {
			if rule.Where == nil {
				rule.Where = apitype.Where{}
			}
			rule.Where[string(c.Attribute)] = apitype.Values{In: c.In, Not: c.Not}
		}
		out.Limits = append(out.Limits, rule)
	}
	return out
}
