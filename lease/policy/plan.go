package policy

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// MaxLimit is the maximum limit, and the maximum number of streams of a user however
// they are counted. A start may end all of them in one transaction, in which etcd
// allows 128 operations (its flag --max-txn-ops).
const MaxLimit = 60

// DefaultPlan is the name of the plan for users without another. If etcd contains no
// plan of that name, the limit in the configuration of the node applies.
const DefaultPlan = "default"

var (
	// ErrBadRule means that a plan, an override or the name of a plan is invalid. The
	// text of the error states the reason.
	ErrBadRule = errors.New("lease: not a valid rule")

	// ErrNoPlan means that there is no plan of that name.
	ErrNoPlan = errors.New("lease: no such plan")

	// ErrUnreadable means that a plan or an override exists, and this version cannot read
	// it. The error is an [*UnreadableError].
	ErrUnreadable = errors.New("lease: this version cannot read a rule")
)

// An UnreadableError names a plan or an override that exists, and that this version cannot
// read, for example because a later version has written it. It is an [ErrUnreadable].
type UnreadableError struct {
	Plan string // "" for an override
	User string // of the override
}

func (e *UnreadableError) Error() string {
	if e.Plan != "" {
		return fmt.Sprintf("%v: plan %q", ErrUnreadable, e.Plan)
	}
	return fmt.Sprintf("%v: that of user %q", ErrUnreadable, e.User)
}

// Unwrap makes an UnreadableError an [ErrUnreadable].
func (e *UnreadableError) Unwrap() error { return ErrUnreadable }

// Counting says what a limit counts.
type Counting string

// The ways to count. A stream without the id counts separately. Only a [Limit] counts
// profiles and networks.
const (
	CountStreams  Counting = "streams"  // every stream
	CountContent  Counting = "content"  // streams of the same content once
	CountDevices  Counting = "devices"  // streams on the same device once
	CountProfiles Counting = "profiles" // streams of the same profile once
	CountNetworks Counting = "networks" // streams from the same network once
)

// PerStream reports whether each stream counts separately.
func (c Counting) PerStream() bool { return c != CountContent && c != CountDevices }

// Group returns the group of a stream that plays content on device. Streams of one
// group count once. A stream whose group is "" counts separately.
func (c Counting) Group(device, content string) string {
	switch c {
	case CountContent:
		return content
	case CountDevices:
		return device
	}
	return ""
}

// OnLimit says what a start does if the user is at the limit.
type OnLimit string

// The values of OnLimit. A start requests Deny or ReplaceOldest. The limit decides which
// streams a start that does not request Deny may end.
const (
	Deny          OnLimit = "deny"           // reject the new stream
	ReplaceOldest OnLimit = "replace-oldest" // end the oldest stream and start the new one
	ReplaceLowest OnLimit = "replace-lowest" // the same, but end only streams of a lower priority than the new one
)

// evicts reports whether starts may request that streams end.
func (o OnLimit) evicts() bool { return o == ReplaceOldest || o == ReplaceLowest }

// A Plan is a named limit of all streams of a user, with further limits of some of them.
type Plan struct {
	Limit   int      // 0 to [MaxLimit]; 0 admits no stream
	OnLimit OnLimit  // ReplaceOldest or ReplaceLowest if starts may request it; "" means Deny
	Count   Counting // CountStreams, CountContent or CountDevices; "" means CountStreams

	Limits  []Limit     // up to [MaxLimits]
	Require []Attribute // the attributes that a start must state
}

// HasSeveralLimits reports whether p has more than one limit, or one that depends on more
// than the number of streams, devices or content.
func (p *Plan) HasSeveralLimits() bool {
	return len(p.Limits) > 0 || len(p.Require) > 0 || p.OnLimit == ReplaceLowest
}

// WithDefaults returns p with defaults in place of empty fields.
func (p Plan) WithDefaults() Plan {
	p.OnLimit = cmp.Or(p.OnLimit, Deny)
	p.Count = cmp.Or(p.Count, CountStreams)
	if len(p.Limits) > 0 {
		limits := make([]Limit, len(p.Limits))
		for i, l := range p.Limits {
			limits[i] = l.withDefaults()
		}
		p.Limits = limits
	}
	return p
}

// Equal reports whether p and q are the same plan.
func (p Plan) Equal(q Plan) bool {
	return p.Limit == q.Limit && p.OnLimit == q.OnLimit && p.Count == q.Count &&
		slices.EqualFunc(p.Limits, q.Limits, Limit.Equal) && slices.Equal(p.Require, q.Require)
}

// Validate returns an [ErrBadRule] if p is invalid. For a bad limit in Limits or a bad
// attribute in Require it is a [*PlanError].
func (p Plan) Validate() error {
	switch {
	case p.Limit < 0 || p.Limit > MaxLimit:
		return fmt.Errorf("%w: limit %d is not between 0 and %d", ErrBadRule, p.Limit, MaxLimit)
	case p.OnLimit != "" && p.OnLimit != Deny && p.OnLimit != ReplaceOldest && p.OnLimit != ReplaceLowest:
		return fmt.Errorf("%w: onLimit is none of %s, %s, %s", ErrBadRule, Deny, ReplaceOldest, ReplaceLowest)
	case p.Count != "" && p.Count != CountStreams && p.Count != CountContent && p.Count != CountDevices:
		return fmt.Errorf("%w: count is none of %s, %s, %s", ErrBadRule, CountStreams, CountContent, CountDevices)
	}
	return p.validateLimits()
}

// ValidPlan reports whether name is a valid name of a plan: 1 to 64 characters of
// A-Z a-z 0-9 . _ -.
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
