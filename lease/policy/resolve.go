package policy

import (
	"cmp"
	"fmt"
	"slices"
)

// A Rule is the limits in force for one user.
type Rule struct {
	Limit           int  // of all streams
	EvictionAllowed bool // starts may request that Limit ends streams
	Counting        Counting
	MaxStreams      int // maximum number of streams however they are counted; 0 for [MaxLimit]
	// Several is the plan, with the numbers of the user's override, if it has further limits,
	// required attributes or ReplaceLowest, and nil otherwise. It is not to be modified.
	Several *Plan

	// The rule holds as long as the override and the plans have these revisions.
	Override int64           // 0 if the user has no override
	Plans    [2]PlanRevision // the plans that Resolve looked up; the second may be empty
}

// A PlanRevision is the etcd revision of a plan's last put, or 0 if there is no such
// plan.
type PlanRevision struct {
	Plan     string
	Revision int64
}

// A Source looks up overrides and plans with the etcd revision of their last put. The
// revision is 0 if there is none. The result is nil with another revision if this version
// cannot read the stored value.
type Source interface {
	Override(user string) (*Override, int64)
	Plan(name string) (*Plan, int64)
}

// Claims are what a start states about its user.
type Claims struct {
	Plan        string // by the calling service; the plan must exist
	GrantedPlan string // by a token, or by the record of a running stream; ignored if there is no such plan
	Limit       *int   // by a token
}

// Defaults are the configuration of the node.
type Defaults struct {
	Plan       Plan // for users without a plan, if there is no plan named [DefaultPlan]
	MaxStreams int  // as in [Rule]
}

// Resolve returns the rule for user. The user's override takes precedence over the
// claims, the claims over the default plan, and the default plan over the defaults of
// the node. Resolve returns an [ErrNoPlan] if the claimed plan does not exist and the
// override does not replace it. It does not replace a rule that exists and cannot be read
// by another one, which might admit more: it returns an [*UnreadableError].
func Resolve(from Source, user string, c Claims, d Defaults) (Rule, error) {
	r := Rule{MaxStreams: d.MaxStreams}
	o, revision := from.Override(user)
	r.Override = revision
	if o == nil && revision != 0 {
		return Rule{}, &UnreadableError{User: user}
	}
	if o == nil {
		o = &noOverride
	}
	name := cmp.Or(o.Plan, c.Plan, c.GrantedPlan, DefaultPlan)
	p, revision := from.Plan(name)
	r.Plans[0] = PlanRevision{name, revision}
	if p == nil && revision != 0 {
		return Rule{}, &UnreadableError{Plan: name}
	}
	if p == nil && o.Plan == "" && c.Plan != "" {
		return Rule{}, fmt.Errorf("%w: %q", ErrNoPlan, c.Plan)
	}
	if p == nil && name != DefaultPlan {
		p, revision = from.Plan(DefaultPlan)
		r.Plans[1] = PlanRevision{DefaultPlan, revision}
		if p == nil && revision != 0 {
			return Rule{}, &UnreadableError{Plan: DefaultPlan}
		}
	}
	if p == nil {
		p = &d.Plan
	}
	r.setPlan(p.withNumbers(o.Limits))
	switch {
	case o.Limit != nil:
		r.Limit = *o.Limit
	case o.Plan == "" && c.Limit != nil:
		r.Limit = min(max(*c.Limit, 0), MaxLimit)
	}
	return r, nil
}

var noOverride Override

// setPlan sets the limits of the rule to those of a plan.
func (r *Rule) setPlan(p *Plan) {
	r.Limit, r.EvictionAllowed, r.Counting = p.Limit, p.OnLimit.evicts(), p.Count
	if p.HasSeveralLimits() {
		r.Several = p
	}
}

// NeedsAttributes reports whether [Decide] needs the attributes of the streams. It
// otherwise decides by the number of streams, or by the devices or the content.
func (r *Rule) NeedsAttributes() bool { return r.Several != nil }

// MayEvict reports whether a limit of the rule allows that starts end streams.
func (r *Rule) MayEvict() bool {
	return r.EvictionAllowed ||
		r.Several != nil && slices.ContainsFunc(r.Several.Limits, func(l Limit) bool { return l.OnLimit.evicts() })
}

// CheckRequired returns a [*MissingAttributesError] if the rule requires attributes that a
// start does not state.
func (r *Rule) CheckRequired(as *Attributes) error {
	if r.Several == nil {
		return nil
	}
	var missing []Attribute
	for _, a := range r.Several.Require {
		if !as.has(a) {
			missing = append(missing, a)
		}
	}
	if len(missing) > 0 {
		return &MissingAttributesError{missing}
	}
	return nil
}
