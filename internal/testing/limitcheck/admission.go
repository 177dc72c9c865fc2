package limitcheck

import (
	"fmt"
	"slices"
)

// An admission is a new stream, with what is known about its decision. The decision was
// made on at least the streams before its revision, and on at most those of
// userStreams.held: between them, streams may have been deleted.
type admission struct {
	newest    *Stream
	limits    []Limit // those whose conditions the new stream fulfils, and that do not only observe
	remaining []*Stream
	evicted   []*Stream
	deleted   []*Stream // streams that the decision may have counted, and that ended before the revision
	// The bound of each limit is between these.
	low, high  []int
	oldestEnds bool // the priority of streams does not matter
	several    bool // the plan has several limits
}

// admission returns the admission of the stream that a revision puts. remaining are the
// user's other streams after it.
func (c *Checker) admission(user string, ch *change, before userStreams, remaining []*Stream, reasons map[string]string) *admission {
	a := &admission{newest: ch.put, remaining: remaining}
	continues := false
	for _, s := range ch.gone {
		continues = continues || s.Session != "" && s.Session == ch.put.Session
		if reasons[s.Nonce] == "evicted" {
			a.evicted = append(a.evicted, s)
		}
	}
	held := before.held()
	for _, s := range held {
		if !slices.Contains(before.now, s) {
			a.deleted = append(a.deleted, s)
		}
	}
	plan, all := c.limits(user, ch.put.plan, ch.put.limit)
	a.oldestEnds, a.several = plan.oldestEnds(), len(plan.Limits) > 0
	if a.several {
		c.Admitted++
	}
	for _, l := range all {
		if l.Observe || !l.matches(ch.put.Attributes) {
			continue
		}
		low, high := l.Limit, l.Limit
		if continues {
			low, high = max(low, l.number(before.now, ch.put)), max(high, l.number(held, ch.put))
		}
		a.limits, a.low, a.high = append(a.limits, l), append(a.low, low), append(a.high, high)
	}
	return a
}

// with returns what the new stream counts for, beside the remaining streams and others.
func (a *admission) with(l Limit, others ...*Stream) int {
	return l.number(slices.Concat([]*Stream{a.newest}, a.remaining, others), a.newest)
}

// check returns what is wrong with the admission.
func (a *admission) check(c *Checker) (wrong []string) {
	for i, l := range a.limits {
		if n := a.with(l); n > a.high[i] {
			wrong = append(wrong, fmt.Sprintf("limit %s of %d has %d, with %v", l.Name, a.high[i], n, a.remaining))
		}
	}
	if len(a.evicted) == 0 {
		return wrong
	}
	if a.several {
		c.Evicting++
	}
	for i, l := range a.limits {
		if a.with(l, a.evicted...) > a.high[i] && (!l.evicts() || a.high[i] == 0) {
			wrong = append(wrong, fmt.Sprintf("limit %s does not allow that streams end, and %v ended", l.Name, a.evicted))
		}
	}
	for _, s := range a.evicted {
		if !a.needed(s) {
			wrong = append(wrong, fmt.Sprintf("%v need not have ended, with %v", s, a.remaining))
		}
		if !a.allowed(s) {
			wrong = append(wrong, fmt.Sprintf("%v has no lower priority, and ended", s))
		}
	}
	if len(a.deleted) > 0 {
		return wrong // the streams that were decided on are not known
	}
	if a.several {
		c.Compared++
	}
	if want := a.expected(); !sameStreams(want, a.evicted) {
		wrong = append(wrong, fmt.Sprintf("%v ended in place of %v", a.evicted, want))
	}
	return wrong
}

// needed reports whether a limit may not have held without the end of stream s.
func (a *admission) needed(s *Stream) bool {
	for i, l := range a.limits {
		if a.with(l, append(slices.Clone(a.deleted), s)...) > a.low[i] {
			return true
		}
	}
	return false
}

// allowed reports whether stream s may have ended although the new one has no higher
// priority, because it counts for a limit that ends the oldest streams.
func (a *admission) allowed(s *Stream) bool {
	if s.Priority < a.newest.Priority {
		return true
	}
	for i, l := range a.limits {
		if l.OnLimit == replaceOldest && l.counts(s, a.newest) && a.with(l, slices.Concat(a.evicted, a.deleted)...) > a.low[i] {
			return true
		}
	}
	return false
}

// expected returns the streams that the rules end, of those that the start has not ended
// for another reason.
func (a *admission) expected() []*Stream {
	left := slices.Concat(a.remaining, a.evicted)
	slices.SortFunc(left, func(s, t *Stream) int { return int(s.revision - t.revision) })
	var ended []*Stream
	for {
		violated := a.violated(left)
		if len(violated) == 0 {
			break
		}
		victim := a.victim(left, violated)
		if victim == nil {
			return nil
		}
		out := func(s *Stream) bool {
			return slices.ContainsFunc(violated, func(l Limit) bool {
				return a.mayEnd(l, victim, left) && l.counts(s, a.newest) && l.unit(s) == l.unit(victim)
			})
		}
		var stay []*Stream
		for _, s := range left {
			if out(s) {
				ended = append(ended, s)
			} else {
				stay = append(stay, s)
			}
		}
		left = stay
	}
	var needed []*Stream
	for _, s := range slices.Backward(ended) {
		if back := append(slices.Clone(left), s); len(a.violated(back)) == 0 {
			left = back
		} else {
			needed = append(needed, s)
		}
	}
	return needed
}

// violated returns the limits that do not hold with the new stream and others.
func (a *admission) violated(others []*Stream) (out []Limit) {
	for i, l := range a.limits {
		if l.number(append(slices.Clone(others), a.newest), a.newest) > a.low[i] {
			out = append(out, l)
		}
	}
	return out
}

// victim returns the stream to end: the one that counts for the most limits, of these one
// with the lowest priority, and of these the oldest. Without such a stream it returns nil.
func (a *admission) victim(left []*Stream, violated []Limit) *Stream {
	var best *Stream
	most := 0
	for _, s := range left { // oldest first
		n := 0
		for _, l := range violated {
			if a.mayEnd(l, s, left) {
				n++
			}
		}
		if n > most || n > 0 && n == most && !a.oldestEnds && s.Priority < best.Priority {
			best, most = s, n
		}
	}
	return best
}

// mayEnd reports whether the end of stream s, with all streams of its unit, makes room for
// the new one, and whether the limit allows it.
func (a *admission) mayEnd(l Limit, s *Stream, left []*Stream) bool {
	if !l.counts(s, a.newest) || l.unit(s) == l.unit(a.newest) {
		return false
	}
	return l.OnLimit != replaceLowest || !slices.ContainsFunc(left, func(t *Stream) bool {
		return l.counts(t, a.newest) && l.unit(t) == l.unit(s) && t.Priority >= a.newest.Priority
	})
}

func sameStreams(a, b []*Stream) bool {
	return len(a) == len(b) && !slices.ContainsFunc(a, func(s *Stream) bool { return !slices.Contains(b, s) })
}
