package rules

import (
	"cmp"
	"context"
	"slices"
	"time"

	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/userid"
)

// An Origin says where a rule comes from.
type Origin string

// The origins of a rule.
const (
	FromOverride      Origin = "override"      // set for the user
	FromStart         Origin = "start"         // stated by the start, or the token, of the user's newest stream
	FromDefaultPlan   Origin = "default"       // the plan [policy.DefaultPlan]
	FromConfiguration Origin = "configuration" // of the node, if there is no such plan
)

// An Explanation says which limits apply to a user, and what the user's streams count for.
type Explanation struct {
	Plan string // [policy.DefaultPlan] if there is no plan
	From Origin // of the plan
	// NumbersFrom are the origins of the numbers that the plan does not state, by the name of
	// the limit.
	NumbersFrom map[string]Origin
	Until       time.Time // when the user's override ends; the zero Time if it does not
	Limits      []policy.LimitUsage
}

// Explain returns the limits that apply to a user at one etcd revision. They are those of
// a start that states the same plan as the user's newest stream; a plan that another start
// will state is not known. Streams whose leases have expired count until etcd has revoked
// them. Explain returns lease.ErrBadUser.
func (s *Store) Explain(ctx context.Context, user string) (Explanation, error) {
	if !userid.Valid(user) {
		return Explanation{}, schema.ErrBadUserID
	}
	ctx, cancel := s.cfg.WithDeadline(ctx)
	defer cancel()
	keys := s.cfg.Keys
	for plans := []string{policy.DefaultPlan}; ; {
		ranges := []etcdop.Range{etcdop.Prefix(keys.UserPrefix(user)), etcdop.Key(keys.Override(user))}
		for _, name := range plans {
			ranges = append(ranges, etcdop.Key(keys.Plan(name)))
		}
		resp, err := etcdop.ReadAll(ctx, s.cfg.KV, ranges...)
		if err != nil {
			return Explanation{}, etcdop.Unavailable("read the limits of "+user, err)
		}
		entries := schema.NewEntries(keys, user, resp.Responses[0].GetResponseRange().GetKvs())
		stored := NewStored(keys, resp.Responses[1:])
		o, _ := stored.Override(user)
		if o == nil {
			o = &policy.Override{}
		}
		c := claimsOf(entries)
		if name := cmp.Or(o.Plan, c.GrantedPlan, policy.DefaultPlan); !slices.Contains(plans, name) {
			plans = append(plans, name)
			continue
		}
		r, err := policy.Resolve(stored, user, c, s.cfg.Defaults)
		if err != nil {
			return Explanation{}, etcdop.Unavailable("read a rule", err)
		}
		return explanation(*o, c, r, entries), nil
	}
}

// claimsOf returns the claims of the start of the newest stream.
func claimsOf(entries []schema.Entry) policy.Claims {
	if len(entries) == 0 {
		return policy.Claims{}
	}
	plan, limit := schema.DecodeClaims(entries[len(entries)-1].Value)
	return policy.Claims{GrantedPlan: plan, Limit: limit}
}

func explanation(o policy.Override, c policy.Claims, r policy.Rule, entries []schema.Entry) Explanation {
	out := Explanation{Plan: policy.DefaultPlan, From: FromConfiguration, NumbersFrom: map[string]Origin{}, Until: o.Until}
	switch named := r.Plans[0]; {
	case named.Revision == 0 && r.Plans[1].Revision != 0:
		out.From = FromDefaultPlan
	case named.Revision == 0:
	case o.Plan != "":
		out.Plan, out.From = named.Plan, FromOverride
	case c.GrantedPlan != "":
		out.Plan, out.From = named.Plan, FromStart
	default:
		out.From = FromDefaultPlan
	}
	switch {
	case o.Limit != nil:
		out.NumbersFrom[policy.TotalLimit] = FromOverride
	case o.Plan == "" && c.Limit != nil:
		out.NumbersFrom[policy.TotalLimit] = FromStart
	}
	for name := range o.Limits {
		out.NumbersFrom[name] = FromOverride
	}
	streams := make([]policy.Stream, len(entries))
	for i := range entries {
		streams[i] = entries[i].PolicyStream(&r)
	}
	out.Limits = policy.Explain(r, streams)
	return out
}
