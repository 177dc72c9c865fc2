package lease

import (
	"cmp"
	"fmt"
	"strings"
)

// Counting says what a limit counts.
type Counting string

// The ways to count. A stream that does not say what it plays, or on what,
// counts alone.
const (
	CountStreams Counting = "streams" // each stream
	CountContent Counting = "content" // streams of the same Content.ID once
	CountDevices Counting = "devices" // streams on the same Device.ID once
)

// DefaultPlan is the plan of users who have no other. While etcd has no plan of
// that name it is the limit in [Config].
const DefaultPlan = "default"

// A Plan is a named limit.
type Plan struct {
	Limit int // 0 to [MaxLimit]; 0 admits nobody
	// OnLimit says whether a start may ask for ReplaceOldest. "" means Deny.
	OnLimit OnLimit
	Count   Counting // "" means CountStreams
}

// WithDefaults is the plan with what it leaves open.
func (p Plan) WithDefaults() Plan {
	p.OnLimit = cmp.Or(p.OnLimit, Deny)
	p.Count = cmp.Or(p.Count, CountStreams)
	return p
}

func (p Plan) check() error {
	switch {
	case p.Limit < 0 || p.Limit > MaxLimit:
		return fmt.Errorf("%w: limit %d is not between 0 and %d", ErrBadRule, p.Limit, MaxLimit)
	case p.OnLimit != "" && p.OnLimit != Deny && p.OnLimit != ReplaceOldest:
		return fmt.Errorf("%w: onLimit is neither %s nor %s", ErrBadRule, Deny, ReplaceOldest)
	case p.Count != "" && p.Count != CountStreams && p.Count != CountContent && p.Count != CountDevices:
		return fmt.Errorf("%w: count is none of %s, %s, %s", ErrBadRule, CountStreams, CountContent, CountDevices)
	}
	return nil
}

// ValidPlan reports whether name is an acceptable name of a plan: 1 to 64
// characters of A-Z a-z 0-9 . _ -.
func ValidPlan(name string) bool {
	if len(name) == 0 || len(name) > 64 {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("._-", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// An Override is what one user has instead of everything else: a limit of his
// own, or a plan. Exactly one of the two is set.
type Override struct {
	Limit *int   // 0 to [MaxLimit]
	Plan  string // which must exist when the override is set
}

func (o Override) check() error {
	switch {
	case (o.Limit == nil) == (o.Plan == ""):
		return fmt.Errorf("%w: a user has either a limit or a plan", ErrBadRule)
	case o.Plan != "" && !ValidPlan(o.Plan):
		return fmt.Errorf("%w: malformed name of a plan", ErrBadRule)
	case o.Limit != nil:
		return Plan{Limit: *o.Limit}.check()
	}
	return nil
}

// RuleSet is a set of rules to be made true at once. A nil entry removes the
// rule; rules that are not in the set stay as they are.
type RuleSet struct {
	Plans map[string]*Plan
	Users map[string]*Override
}

// MaxRuleChanges is how many differences [Limiter.Apply] carries out at once.
const MaxRuleChanges = 1000

// ApplyOptions says how [Limiter.Apply] is to go about it.
type ApplyOptions struct {
	DryRun bool // find the differences, and change nothing
	// Since is the revision of an earlier dry run. If any rule of the set was
	// changed after it, nothing is applied. 0 means whatever was changed.
	Since int64
	// Routed is as in [Request].
	Routed int64
}

// Changes are the differences between a [RuleSet] and what was in force.
type Changes struct {
	Revision int64 // of etcd, at which the differences were found or applied
	Plans    []PlanChange
	Users    []OverrideChange
}

// PlanChange is a plan before and after. Nil means that there is none.
type PlanChange struct {
	Name     string
	Old, New *Plan
}

// OverrideChange is a user's override before and after. Nil means that there is
// none.
type OverrideChange struct {
	User     string
	Old, New *Override
}
