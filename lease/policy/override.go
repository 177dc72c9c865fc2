package policy

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// MaxUntil is how far in the future the end of an override is at most when it is set. etcd
// allows no lease that is much longer.
const MaxUntil = 100 * 365 * 24 * time.Hour

// An Override is what is set for a single user. It takes precedence over every other rule.
// At least one of Limit, Plan and Limits is set, and not both Limit and Plan.
type Override struct {
	Limit *int   // of all streams, 0 to [MaxLimit]
	Plan  string // a plan that exists when the override is set
	// Limits are the numbers, 0 to [MaxLimit], of the further limits of the user's plan, by
	// name. The name of a limit that the plan does not have has no effect.
	Limits map[string]int
	// Until is the time at which the override ends, in whole seconds. The zero Time means
	// that it does not end. [Resolve] does not consider it: an override has ended when its
	// key does not exist.
	Until time.Time
}

// Validate returns an [ErrBadRule] if o is invalid. For a bad member of Limits or a bad
// Until it is a [*PlanError].
func (o Override) Validate() error {
	switch {
	case o.Limit != nil && o.Plan != "":
		return fmt.Errorf("%w: a user has either a limit or a plan", ErrBadRule)
	case o.Limit == nil && o.Plan == "" && len(o.Limits) == 0:
		return fmt.Errorf("%w: a user has a limit, a plan, or limits by name", ErrBadRule)
	case o.Plan != "" && !ValidPlan(o.Plan):
		return fmt.Errorf("%w: malformed name of a plan", ErrBadRule)
	case o.Limit != nil:
		if err := (Plan{Limit: *o.Limit}).Validate(); err != nil {
			return err
		}
	}
	e := new(PlanError)
	e.checkNumbers(o.Limits)
	if !o.Until.Equal(o.Until.Truncate(time.Second)) {
		e.add("until", "not a whole second")
	}
	return e.orNil()
}

// ValidateNew returns the error of Validate for an override that is set at the time now.
// Until must be later, by at most [MaxUntil].
func (o Override) ValidateNew(now time.Time) error {
	if err := o.Validate(); err != nil || o.Until.IsZero() {
		return err
	}
	e := new(PlanError)
	switch {
	case !o.Until.After(now):
		e.add("until", "the time is not in the future")
	case o.Until.Sub(now) > MaxUntil:
		e.add("until", "more than 100 years ahead: leave it out for an override that does not end")
	}
	return e.orNil()
}

func (e *PlanError) checkNumbers(limits map[string]int) {
	if len(limits) > MaxLimits {
		e.add("limits", "%d limits are more than %d", len(limits), MaxLimits)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(limits)) {
		switch n := limits[name]; {
		case name == TotalLimit:
			e.add("limits."+name, "use the member limit for the limit of all streams")
		case !validLimitName(name): // it may be long
			e.add("limits", "a name has 1 to %d characters of a-z 0-9 -", MaxLimitName)
		case n < 0 || n > MaxLimit:
			e.add("limits."+name, "%d is not between 0 and %d", n, MaxLimit)
		}
	}
}

func (e *PlanError) orNil() error {
	if len(e.Fields) == 0 {
		return nil
	}
	return e
}

// Equal reports whether o and p are the same override.
func (o Override) Equal(p Override) bool {
	if (o.Limit == nil) != (p.Limit == nil) || o.Limit != nil && *o.Limit != *p.Limit {
		return false
	}
	return o.Plan == p.Plan && maps.Equal(o.Limits, p.Limits) && o.Until.Equal(p.Until)
}

// withNumbers returns p with the numbers of the limits in numbers, by name. It does not
// change p, which many users have. A limit of 0 cannot replace a stream, as in a plan.
func (p *Plan) withNumbers(numbers map[string]int) *Plan {
	changes := func(l Limit) bool {
		n, ok := numbers[l.Name]
		return ok && n != l.Limit
	}
	if !slices.ContainsFunc(p.Limits, changes) {
		return p
	}
	out := *p
	out.Limits = slices.Clone(p.Limits)
	for i := range out.Limits {
		l := &out.Limits[i]
		if !changes(*l) {
			continue
		}
		if l.Limit = numbers[l.Name]; l.Limit == 0 {
			l.OnLimit = Deny
		}
	}
	return &out
}

// NumberDifferences returns the differences between the limits by name of two overrides,
// in words: "limit tv 1 -> 2" for a number that differs, "+ limit kids 1" and "- limit
// kids" for a name that only the new or the old override has.
func NumberDifferences(old, o Override) []string {
	var out []string
	for _, name := range slices.Sorted(maps.Keys(o.Limits)) {
		n := o.Limits[name]
		switch before, ok := old.Limits[name]; {
		case !ok:
			out = append(out, fmt.Sprintf("+ limit %s %d", name, n))
		case before != n:
			out = append(out, fmt.Sprintf("limit %s %d -> %d", name, before, n))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(old.Limits)) {
		if _, ok := o.Limits[name]; !ok {
			out = append(out, "- limit "+name)
		}
	}
	return out
}
