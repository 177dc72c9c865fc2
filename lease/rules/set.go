// Package rules reads and changes the plans and overrides of an etcd cluster.
package rules

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/userid"
)

// A Set is a set of rules to apply at once. A nil entry removes the rule. Rules that
// are not in the set do not change.
type Set struct {
	Plans map[string]*policy.Plan
	Users map[string]*policy.Override
}

// MaxChanges is the maximum number of rules in a [Set].
const MaxChanges = 1000

// Options are the options of [Store.Apply].
type Options struct {
	DryRun bool // return the differences, and change nothing
	// Since is the revision of an earlier dry run. If a rule was changed after it, nothing
	// is applied. 0 disables the check.
	Since int64
	// RoutingRevision is the revision of the routing record by which the caller chose this
	// etcd cluster; 0 if there is none.
	RoutingRevision int64
}

// Changes are the differences between a [Set] and the rules in force.
type Changes struct {
	Revision int64 // etcd revision at which the changes were read or applied
	Plans    []PlanChange
	Users    []OverrideChange
}

// A PlanChange is a plan before and after a change; nil if there is none.
type PlanChange struct {
	Name     string
	Old, New *policy.Plan
	// Unreadable means that this version cannot read the plan before the change. Old is
	// then a plan with limit 0, because such a plan admits no stream.
	Unreadable bool
}

// An OverrideChange is the override of a user before and after a change; nil if there is
// none.
type OverrideChange struct {
	User       string
	Old, New   *policy.Override
	Unreadable bool // as in a PlanChange
}

// Limits returns the differences in the further limits of the plan, in words. See
// [policy.LimitDifferences].
func (c PlanChange) Limits() []string {
	var old, now policy.Plan
	if c.Old != nil {
		old = *c.Old
	}
	if c.New != nil {
		now = *c.New
	}
	return policy.LimitDifferences(old, now)
}

// Limits returns the differences in the limits by name of the override, in words. See
// [policy.NumberDifferences].
func (c OverrideChange) Limits() []string {
	var old, now policy.Override
	if c.Old != nil {
		old = *c.Old
	}
	if c.New != nil {
		now = *c.New
	}
	return policy.NumberDifferences(old, now)
}

// validate returns the set with defaults, or an error if it is invalid at the time now.
func (s Set) validate(now time.Time) (Set, error) {
	if n := len(s.Plans) + len(s.Users); n > MaxChanges {
		return s, fmt.Errorf("%w: %d rules at once are more than %d", policy.ErrBadRule, n, MaxChanges)
	}
	out := Set{Plans: make(map[string]*policy.Plan, len(s.Plans)), Users: s.Users}
	for name, p := range s.Plans {
		if !policy.ValidPlan(name) {
			return s, errBadPlanName
		}
		if p != nil {
			if err := p.Validate(); err != nil {
				return s, fmt.Errorf("plan %s: %w", name, err)
			}
			full := p.WithDefaults()
			p = &full
		}
		out.Plans[name] = p
	}
	for user, o := range s.Users {
		if !userid.Valid(user) {
			return s, schema.ErrBadUserID
		}
		if o == nil {
			continue
		}
		if err := o.ValidateNew(now); err != nil {
			return s, fmt.Errorf("user %s: %w", user, err)
		}
	}
	return out, nil
}

// checkPlansExist returns an error unless every plan that the set gives to a user
// exists.
func (s Set) checkPlansExist(now snapshot) error {
	for user, o := range s.Users {
		if o == nil || o.Plan == "" {
			continue
		}
		p, exists := s.Plans[o.Plan]
		if exists {
			exists = p != nil
		} else {
			_, revision := now.Plan(o.Plan)
			exists = revision != 0
		}
		if !exists {
			return fmt.Errorf("user %s: %w: %q", user, policy.ErrNoPlan, o.Plan)
		}
	}
	return nil
}

// changes returns the differences between the set and the rules in force, by name. A rule
// that this version cannot read differs from any other.
func (s Set) changes(now snapshot) Changes {
	c := Changes{Revision: now.rev}
	for _, name := range slices.Sorted(maps.Keys(s.Plans)) {
		old, revision := now.Plan(name)
		unreadable := old == nil && revision != 0
		if unreadable {
			old = new(policy.Plan{}.WithDefaults())
		}
		if unreadable || !equalPointers(old, s.Plans[name], policy.Plan.Equal) {
			c.Plans = append(c.Plans, PlanChange{name, old, s.Plans[name], unreadable})
		}
	}
	for _, user := range slices.Sorted(maps.Keys(s.Users)) {
		old, revision := now.Override(user)
		unreadable := old == nil && revision != 0
		if unreadable {
			old = &policy.Override{Limit: new(int)}
		}
		if unreadable || !equalPointers(old, s.Users[user], policy.Override.Equal) {
			c.Users = append(c.Users, OverrideChange{user, old, s.Users[user], unreadable})
		}
	}
	return c
}

func equalPointers[T any](a, b *T, equal func(T, T) bool) bool {
	return a == nil && b == nil || a != nil && b != nil && equal(*a, *b)
}
