package policy

import (
	"cmp"
	"slices"
)

// TotalLimit is the name of the limit that a plan itself states. It counts all streams
// of a user. No other limit has this name.
const TotalLimit = "total"

// Maximum sizes of a plan.
const (
	MaxLimits     = 16  // limits of a plan, and attributes that it requires
	MaxConditions = 8   // conditions of a limit
	MaxValues     = 32  // values of a condition
	MaxValue      = 200 // characters of a value
	MaxLimitName  = 32  // characters of the name of a limit
	MaxMessage    = 200 // characters of a message
	maxPlanText   = 16 << 10
)

// A Limit is a named limit of a plan, in addition to the limit of the plan itself. It
// bounds the streams of a user that fulfil all conditions of Where. All limits of a plan
// must hold.
type Limit struct {
	Name    string      // 1 to [MaxLimitName] characters of a-z 0-9 -, unique in the plan, and not [TotalLimit]
	Where   []Condition // sorted by attribute; empty for all streams
	Count   Counting    // "" means CountStreams
	Per     Attribute   // if not empty, each value of the attribute has its own limit; a missing value is one of them
	Limit   int         // 0 to [MaxLimit]; 0 admits no stream that matches
	OnLimit OnLimit     // what starts may request; "" means Deny
	Message string      // a text for viewers; may be empty
	Observe bool        // the limit rejects no start; see Decision.Observed
}

// withDefaults returns l with defaults in place of empty fields, and sorted conditions.
func (l Limit) withDefaults() Limit {
	l.OnLimit = cmp.Or(l.OnLimit, Deny)
	l.Count = cmp.Or(l.Count, CountStreams)
	l.Where = slices.Clone(l.Where)
	slices.SortStableFunc(l.Where, func(a, b Condition) int { return cmp.Compare(a.Attribute, b.Attribute) })
	return l
}

// Equal reports whether l and m are the same limit.
func (l Limit) Equal(m Limit) bool {
	return l.Name == m.Name && slices.EqualFunc(l.Where, m.Where, Condition.equal) && l.Count == m.Count && l.Per == m.Per &&
		l.Limit == m.Limit && l.OnLimit == m.OnLimit && l.Message == m.Message && l.Observe == m.Observe
}

// selects reports whether a stream fulfils all conditions of the limit.
func (l *Limit) selects(as *Attributes) bool { return Selects(l.Where, as) }

// unit returns what a stream counts as. Streams of one unit count once. A stream whose
// unit is "" counts separately.
func (l *Limit) unit(as *Attributes) string {
	if a := l.Count.attribute(); a != "" {
		return as.value(a)
	}
	return ""
}

// attribute returns the attribute whose distinct values are counted; "" if each stream
// counts.
func (c Counting) attribute() Attribute {
	switch c {
	case CountContent:
		return AttrContentID
	case CountDevices:
		return AttrDeviceID
	case CountProfiles:
		return AttrProfile
	case CountNetworks:
		return AttrNetwork
	}
	return ""
}
