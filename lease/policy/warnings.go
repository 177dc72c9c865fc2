package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// reportedByPlayers are the attributes that a player may choose freely if it starts its
// own streams.
var reportedByPlayers = []Attribute{
	AttrDeviceID, AttrDeviceType, AttrContentID, AttrContentType, AttrContentLabels, AttrProfile,
}

// Attributes returns the attributes that a start should state because the plan requires
// them or because a limit depends on them. The region is not one of them, because the node
// states it. They have the order of the constants, and labels are last.
func (p Plan) Attributes() []Attribute {
	all := slices.Clone(p.Require)
	for _, l := range p.everyLimit() {
		all = append(all, l.attributes()...)
	}
	all = slices.DeleteFunc(all, func(a Attribute) bool { return a == AttrRegion })
	place := func(a Attribute) int {
		if i := slices.Index(allAttributes, a); i >= 0 {
			return i
		}
		return len(allAttributes)
	}
	slices.SortFunc(all, func(a, b Attribute) int { return cmp.Or(cmp.Compare(place(a), place(b)), cmp.Compare(a, b)) })
	return slices.Compact(all)
}

// Warnings returns what is probably not intended in a valid plan, one sentence for each:
//
//   - a limit that has no effect, because the plan or another limit is as strict
//   - a limit that depends on attributes that players report
//   - a limit that does not count streams without an attribute that players report and that
//     the plan does not require
func (p Plan) Warnings() []string {
	p = p.WithDefaults()
	var out []string
	limits := p.everyLimit()
	for i, l := range limits {
		out = append(out, redundancies(limits[:i], l)...)
		if reported := l.reported(); len(reported) > 0 {
			out = append(out, fmt.Sprintf("limit %s depends on %s, which the player reports", l.Name, andList(reported)))
		}
		for _, c := range l.Where {
			if slices.Contains(reportedByPlayers, c.Attribute) && !c.matches(&noAttributes) && !slices.Contains(p.Require, c.Attribute) {
				out = append(out, fmt.Sprintf("limit %s does not apply to a stream without %s: require the attribute, or %s",
					l.Name, c.Attribute, c.includeMissing()))
			}
		}
	}
	return out
}

// everyLimit returns the limit of the plan itself, and its further limits.
func (p *Plan) everyLimit() []Limit {
	total := Limit{Name: TotalLimit, Count: p.Count, Limit: p.Limit, OnLimit: p.OnLimit}
	return append([]Limit{total}, p.Limits...)
}

// redundancies returns a warning for each limit before l that makes l redundant, or that l
// makes redundant. It returns at most one about l.
func redundancies(before []Limit, l Limit) (out []string) {
	redundant := false
	for _, b := range before {
		switch {
		case !redundant && l.redundantBeside(b):
			redundant = true
			out = append(out, redundancy(l, b))
		case !l.redundantBeside(b) && b.redundantBeside(l):
			out = append(out, redundancy(b, l))
		}
	}
	if !redundant && l.Name != TotalLimit && l.Limit >= MaxLimit {
		out = append(out, fmt.Sprintf("limit %s has no effect: a user has at most %d streams", l.Name, MaxLimit))
	}
	return out
}

// redundantBeside reports whether l rejects no start that b admits, provided that the
// user's streams were started under the same plan.
func (l *Limit) redundantBeside(b Limit) bool {
	same := slices.EqualFunc(b.Where, l.Where, Condition.equal) && b.Count == l.Count && b.Per == l.Per
	if b.Observe { // limits that observe different numbers complement each other
		return l.Observe && same && l.Limit == b.Limit
	}
	// The plan's limit counts all streams. Some of them, or their distinct values, are not more.
	if !same && (b.Name != TotalLimit || b.Count != CountStreams && b.Count != l.Count) {
		return false
	}
	// A start that exceeds both equal limits may end streams for b, and l must not forbid it.
	return l.Limit > b.Limit || l.Limit == b.Limit && (l.Observe || b.Limit == 0 || b.OnLimit == Deny || b.OnLimit == l.OnLimit)
}

func redundancy(l, b Limit) string {
	if l.Observe {
		return fmt.Sprintf("limit %s (%d) observes no start that limit %s (%d) admits", l.Name, l.Limit, b.Name, b.Limit)
	}
	return fmt.Sprintf("limit %s (%d) rejects no start that limit %s (%d) admits", l.Name, l.Limit, b.Name, b.Limit)
}

// attributes returns the attributes that the limit depends on.
func (l *Limit) attributes() []Attribute {
	var out []Attribute
	for _, c := range l.Where {
		out = append(out, c.Attribute)
	}
	for _, a := range []Attribute{l.Per, l.Count.attribute()} {
		if a != "" && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

// reported returns the attributes that the limit depends on and that players report.
func (l *Limit) reported() []Attribute {
	return slices.DeleteFunc(l.attributes(), func(a Attribute) bool { return !slices.Contains(reportedByPlayers, a) })
}

// includeMissing returns how to change c so that a missing attribute fulfils it.
func (c Condition) includeMissing() string {
	if len(c.In) > 0 {
		return `add "" to its values`
	}
	return `remove "" from its values`
}

// andList returns "a", "a and b", or "a, b and c".
func andList(as []Attribute) string {
	texts := make([]string, len(as))
	for i, a := range as {
		texts[i] = string(a)
	}
	last := len(texts) - 1
	if last == 0 {
		return texts[0]
	}
	return strings.Join(texts[:last], ", ") + " and " + texts[last]
}
