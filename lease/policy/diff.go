package policy

import (
	"fmt"
	"slices"
	"strings"
)

// LimitDifferences returns the differences between two plans in their further limits and
// required attributes, in words, by the names of the limits: "limit tv 1 -> 2" for a limit
// of which only the number differs, "+ limit kids" and "- limit kids" for one that only
// the new or the old plan has.
func LimitDifferences(old, p Plan) []string {
	var out []string
	for _, l := range p.Limits {
		i := slices.IndexFunc(old.Limits, func(m Limit) bool { return m.Name == l.Name })
		switch {
		case i < 0:
			out = append(out, "+ limit "+l.Name)
		case !old.Limits[i].Equal(l):
			out = append(out, limitDifference(old.Limits[i], l))
		}
	}
	for _, l := range old.Limits {
		if !slices.ContainsFunc(p.Limits, func(m Limit) bool { return m.Name == l.Name }) {
			out = append(out, "- limit "+l.Name)
		}
	}
	if len(out) == 0 && !slices.EqualFunc(old.Limits, p.Limits, Limit.Equal) {
		out = append(out, "order of limits")
	}
	if !slices.Equal(old.Require, p.Require) {
		out = append(out, fmt.Sprintf("require [%s] -> [%s]", joinAttributes(old.Require), joinAttributes(p.Require)))
	}
	return out
}

// limitDifference returns the differences between two limits of the same name.
func limitDifference(a, b Limit) string {
	text := "limit " + b.Name
	if a.Limit != b.Limit {
		text += fmt.Sprintf(" %d -> %d", a.Limit, b.Limit)
	}
	var members []string
	for _, m := range []struct {
		name    string
		differs bool
	}{
		{"where", !slices.EqualFunc(a.Where, b.Where, Condition.equal)},
		{"count", a.Count != b.Count},
		{"per", a.Per != b.Per},
		{"onLimit", a.OnLimit != b.OnLimit},
		{"message", a.Message != b.Message},
		{"observe", a.Observe != b.Observe},
	} {
		if m.differs {
			members = append(members, m.name)
		}
	}
	switch {
	case len(members) == 0:
		return text
	case a.Limit != b.Limit:
		text += ","
	}
	return text + " changes " + strings.Join(members, ", ")
}
