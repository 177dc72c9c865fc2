package policy

import (
	"cmp"
	"slices"
)

// oracle decides for rules with one limit. It is the function that decided before plans
// had several limits, and does not change.
func oracle(r Rule, streams []Stream, s Start) (Decision, bool) {
	var d Decision
	var remaining []Stream
	slot := -1
	for _, st := range streams {
		switch {
		case s.Session != "" && st.Session == s.Session && st.Slot >= 0 && slot < 0:
			slot = st.Slot
			d.Endings = append(d.Endings, Ending{Stream: st, Reason: ReasonReplaced})
		case len(s.Replaces) > 0 && s.Replaces[0] != [12]byte{} && st.Nonce == s.Replaces[0]:
			d.Endings = append(d.Endings, Ending{Stream: st, Reason: ReasonReplaced})
		default:
			remaining = append(remaining, st)
		}
	}
	takeover := slot >= 0
	if takeover {
		r.Limit = max(r.Limit, oracleCount(r, streams))
	}
	group := r.Counting.Group(s.Device, s.Content)
	if !oracleFits(r, remaining, group, takeover) {
		for _, st := range remaining {
			if st.Expired {
				d.Endings = append(d.Endings, Ending{Stream: st, Reason: ReasonExpired})
			}
		}
		remaining = slices.DeleteFunc(remaining, func(st Stream) bool { return st.Expired })
	}
	for s.Evict && r.Limit > 0 && len(remaining) > 0 && !oracleFits(r, remaining, group, takeover) {
		remaining, d.Endings = oracleEvict(r, remaining, d.Endings, group)
	}
	if !oracleFits(r, remaining, group, takeover) {
		return Decision{}, false
	}
	for slot < 0 || !takeover && slices.ContainsFunc(remaining, func(st Stream) bool { return st.Slot == slot }) {
		slot++
	}
	d.Slot = slot
	return d, true
}

func oracleFits(r Rule, remaining []Stream, group string, takeover bool) bool {
	if len(remaining) >= cmp.Or(r.MaxStreams, MaxLimit) && !takeover {
		return false
	}
	n := oracleCount(r, remaining)
	if group == "" || !slices.ContainsFunc(remaining, func(st Stream) bool { return r.Counting.Group(st.Device, st.Content) == group }) {
		n++
	}
	return n <= r.Limit
}

func oracleCount(r Rule, streams []Stream) int {
	n, seen := 0, make(map[string]bool)
	for _, st := range streams {
		if g := r.Counting.Group(st.Device, st.Content); g == "" || !seen[g] {
			n++
			seen[g] = true
		}
	}
	return n
}

func oracleEvict(r Rule, remaining []Stream, endings []Ending, group string) ([]Stream, []Ending) {
	of := func(st Stream) string { return r.Counting.Group(st.Device, st.Content) }
	first := max(0, slices.IndexFunc(remaining, func(st Stream) bool { return group == "" || of(st) != group }))
	victim := remaining[first]
	ends := func(st Stream) bool {
		g := of(st)
		return st.Index == victim.Index || g != "" && g != group && g == of(victim)
	}
	for _, st := range remaining {
		if ends(st) {
			endings = append(endings, Ending{Stream: st, Reason: ReasonEvicted})
		}
	}
	return slices.DeleteFunc(remaining, ends), endings
}
