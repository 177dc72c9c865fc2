package policy

import (
	"cmp"
	"slices"
)

// MaxUsageValues is the maximum number of values of one limit in the result of [Explain].
const MaxUsageValues = 20

// A LimitUsage is what the streams of a user count for toward a limit.
type LimitUsage struct {
	Limit   Limit   // OnLimit of [TotalLimit] is what the plan states
	Value   *string // of the attribute Limit.Per; nil for a limit without Per, or without streams
	Counted int
	Left    int // how many more the limit admits, 0 or more
	// MoreValues is the number of further values of Limit.Per that have streams. It is set
	// in the last of the limit's usages if there are more than [MaxUsageValues].
	MoreValues int
}

// Explain returns what the streams of a user count for toward each limit of the rule, the
// limit of all streams first. A limit with Per has one usage for each value that a stream
// has, those that count most first; the value "" stands for a missing attribute.
func Explain(r Rule, streams []Stream) []LimitUsage {
	all := make([]*Attributes, len(streams))
	for i, st := range streams {
		if all[i] = st.Attributes; all[i] == nil {
			all[i] = &Attributes{DeviceID: st.Device, ContentID: st.Content, Priority: DefaultPriority}
		}
	}
	var out []LimitUsage
	for _, l := range r.allLimits() {
		if len(out) == 1 && l.Name == TotalLimit { // the number of streams, however they are counted
			out[0].Left = min(out[0].Left, l.left(l.countOf(all)))
			continue
		}
		out = append(out, l.usages(all)...)
	}
	return out
}

// usages returns what streams count for toward l.
func (l *Limit) usages(all []*Attributes) []LimitUsage {
	if l.Per == "" {
		n := l.countOf(all)
		return []LimitUsage{{Limit: *l, Counted: n, Left: l.left(n)}}
	}
	groups := make(map[string][]*Attributes)
	for _, as := range all {
		if l.selects(as) {
			groups[as.value(l.Per)] = append(groups[as.value(l.Per)], as)
		}
	}
	if len(groups) == 0 {
		return []LimitUsage{{Limit: *l, Left: l.Limit}}
	}
	out := make([]LimitUsage, 0, len(groups))
	for value, group := range groups {
		n := l.countOf(group)
		out = append(out, LimitUsage{Limit: *l, Value: &value, Counted: n, Left: l.left(n)})
	}
	slices.SortFunc(out, func(a, b LimitUsage) int {
		return cmp.Or(cmp.Compare(b.Counted, a.Counted), cmp.Compare(*a.Value, *b.Value))
	})
	if more := len(out) - MaxUsageValues; more > 0 {
		out = out[:MaxUsageValues]
		out[MaxUsageValues-1].MoreValues = more
	}
	return out
}

// left returns how many more l admits if n count.
func (l *Limit) left(n int) int { return max(l.Limit-n, 0) }

// countOf returns what streams count for toward l, if it is not per value of an attribute.
func (l *Limit) countOf(all []*Attributes) int {
	n, seen := 0, make(map[string]bool)
	for _, as := range all {
		if !l.selects(as) {
			continue
		}
		if unit := l.unit(as); unit == "" || !seen[unit] {
			n++
			seen[unit] = true
		}
	}
	return n
}
