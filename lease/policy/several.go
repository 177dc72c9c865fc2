package policy

import (
	"cmp"
	"slices"
)

// decideByLimits decides for a rule with several limits. See the comment of the package
// for the steps.
//
// The decision stays correct if streams that it does not end disappear before it is
// applied, so the caller's transaction need not exclude deletions. The reason is that each
// limit bounds a monotone function of the set of streams: the number of streams, or of
// their distinct values, among those that a condition on each single stream selects.
// Fewer streams never have a greater number. The attributes of a stream do not change, and
// the bound was computed from the streams at the time of the decision. A new kind of limit
// must keep this property. "At least", ratios, and conditions on other streams or on the
// time do not have it.
func decideByLimits(r Rule, streams []Stream, s Start) (Decision, bool) {
	e := newEvaluation(&r, streams, &s)
	e.endExpired()
	if len(e.makeRoom()) > 0 {
		return Decision{}, false
	}
	return e.decision(), true
}

// A tally is a limit that the new stream fulfils the conditions of, with what counts for
// it. In unit, streams are known by their index, and the new stream by the number of the
// others. The id of a unit is the index of its first stream.
type tally struct {
	limit *Limit
	evict bool  // the start may end streams for this limit
	unit  []int // the unit of each stream, and of the new one last; -1 if it does not count
	most  int   // the limit, or what a session that continues has already
}

// An evaluation decides on one start.
type evaluation struct {
	streams  []Stream // oldest first
	start    *Start
	slot     int // of the session's stream, or -1
	remains  []bool
	endings  []ended
	tallies  []tally
	observed []tally
	seen     []bool // for counting
}

// ended is the index of a stream that the start ends, and why.
type ended struct {
	index  int
	reason Reason
}

func newEvaluation(r *Rule, streams []Stream, s *Start) *evaluation {
	n := len(streams)
	e := &evaluation{streams: streams, start: s, slot: -1, remains: make([]bool, n+1), seen: make([]bool, n+1)}
	for i, st := range streams {
		switch {
		case s.Session != "" && st.Session == s.Session && st.Slot >= 0 && e.slot < 0:
			e.slot = st.Slot
			e.endings = append(e.endings, ended{i, ReasonReplaced})
		case s.replaces(st):
			e.endings = append(e.endings, ended{i, ReasonReplaced})
		default:
			e.remains[i] = true
		}
	}
	e.remains[n] = true // the new stream
	limits := r.allLimits()
	e.tallies = make([]tally, 0, len(limits))
	units, names := make([]int, len(limits)*(n+1)), make([]string, n+1)
	for k := range limits {
		l := &limits[k]
		if !l.selects(attributesOf(s.Attributes)) {
			continue
		}
		t := tally{limit: l, unit: units[k*(n+1):][:n+1], most: l.Limit}
		e.setUnits(&t, names)
		if e.slot >= 0 {
			t.most = max(t.most, e.countHeld(&t))
		}
		t.evict = s.Evict && t.most > 0 && l.OnLimit.evicts()
		if l.Observe {
			e.observed = append(e.observed, t)
		} else {
			e.tallies = append(e.tallies, t)
		}
	}
	return e
}

// allLimits returns the limits of the rule: that of all streams, that of their number
// however they are counted, and the further ones.
func (r *Rule) allLimits() []Limit {
	var further []Limit
	onLimit := Deny
	if r.EvictionAllowed {
		onLimit = ReplaceOldest
	}
	if r.Several != nil {
		further, onLimit = r.Several.Limits, r.Several.OnLimit
	}
	out := make([]Limit, 0, len(further)+2)
	out = append(out, Limit{Name: TotalLimit, Count: cmp.Or(r.Counting, CountStreams), Limit: r.Limit, OnLimit: onLimit})
	if most := cmp.Or(r.MaxStreams, MaxLimit); !r.Counting.PerStream() || most < r.Limit {
		out = append(out, Limit{Name: TotalLimit, Count: CountStreams, Limit: most, OnLimit: onLimit})
	}
	return append(out, further...)
}

func attributesOf(as *Attributes) *Attributes {
	if as == nil {
		return &noAttributes
	}
	return as
}

// setUnits sets the unit of each stream, and that of the new stream last. It overwrites
// names.
func (e *evaluation) setUnits(t *tally, names []string) {
	mine := attributesOf(e.start.Attributes)
	for i := range t.unit {
		as := mine
		if i < len(e.streams) {
			as = attributesOf(e.streams[i].Attributes)
		}
		if t.limit.Per != "" && as.value(t.limit.Per) != mine.value(t.limit.Per) || !t.limit.selects(as) {
			t.unit[i], names[i] = -1, ""
			continue
		}
		t.unit[i], names[i] = i, t.limit.unit(as)
		if names[i] != "" {
			t.unit[i] = slices.Index(names[:i+1], names[i])
		}
	}
}

// count returns what the streams in a set count for.
func (e *evaluation) count(t *tally, set []bool) int {
	clear(e.seen)
	n := 0
	for i, unit := range t.unit {
		if set[i] && unit >= 0 && !e.seen[unit] {
			e.seen[unit] = true
			n++
		}
	}
	return n
}

// countHeld returns what all streams of the user count for, without the new one.
func (e *evaluation) countHeld(t *tally) int {
	held := slices.Repeat([]bool{true}, len(e.streams)+1)
	held[len(e.streams)] = false
	return e.count(t, held)
}

// holds reports whether a limit holds with the streams that remain.
func (e *evaluation) holds(t *tally) bool { return e.count(t, e.remains) <= t.most }

// violated returns the limits that do not hold.
func (e *evaluation) violated() []*tally {
	var out []*tally
	for i := range e.tallies {
		if t := &e.tallies[i]; !e.holds(t) {
			out = append(out, t)
		}
	}
	return out
}

func (e *evaluation) end(i int, reason Reason) {
	e.remains[i] = false
	e.endings = append(e.endings, ended{i, reason})
}

// endExpired ends the streams whose leases have expired, if a limit does not hold.
func (e *evaluation) endExpired() {
	if len(e.violated()) == 0 {
		return
	}
	for i, st := range e.streams {
		if e.remains[i] && st.Expired {
			e.end(i, ReasonExpired)
		}
	}
}

// makeRoom ends streams until all limits hold. It returns the limits that reject the
// start: those that do not hold and allow no eviction, because no eviction may satisfy
// them; otherwise those that do not hold after all evictions that they allow.
func (e *evaluation) makeRoom() (rejecting []*tally) {
	violated := e.violated()
	for _, t := range violated {
		if !t.evict {
			rejecting = append(rejecting, t)
		}
	}
	if len(rejecting) > 0 {
		return rejecting
	}
	first := len(e.endings)
	for ; len(violated) > 0; violated = e.violated() {
		victim := e.victim(violated)
		if victim < 0 {
			return violated
		}
		e.evict(victim, violated)
	}
	e.restore(first)
	return nil
}

// victim returns the stream to end next, or -1: the one that counts for the most violated
// limits, of these one with the lowest priority, and of these the oldest.
func (e *evaluation) victim(violated []*tally) int {
	best, most, lowest := -1, 0, 0
	for i := range e.streams {
		if !e.remains[i] {
			continue
		}
		n := 0
		for _, t := range violated {
			if e.mayEnd(t, i) {
				n++
			}
		}
		priority := attributesOf(e.streams[i].Attributes).Priority
		if n > most || n > 0 && n == most && priority < lowest {
			best, most, lowest = i, n, priority
		}
	}
	return best
}

// mayEnd reports whether the start may end stream i for a limit. Ending a stream of the
// new stream's own unit has no effect on the limit.
func (e *evaluation) mayEnd(t *tally, i int) bool {
	unit := t.unit[i]
	if unit < 0 || unit == t.unit[len(e.streams)] {
		return false
	}
	if t.limit.OnLimit != ReplaceLowest {
		return true
	}
	for j := range e.streams {
		if e.remains[j] && t.unit[j] == unit &&
			attributesOf(e.streams[j].Attributes).Priority >= attributesOf(e.start.Attributes).Priority {
			return false
		}
	}
	return true
}

// evict ends a stream, with all streams of its unit for each of the limits.
func (e *evaluation) evict(victim int, violated []*tally) {
	ends := make([]bool, len(e.streams))
	for _, t := range violated {
		if !e.mayEnd(t, victim) {
			continue
		}
		for i := range e.streams {
			ends[i] = ends[i] || e.remains[i] && t.unit[i] == t.unit[victim]
		}
	}
	for i := range e.streams {
		if ends[i] {
			e.end(i, ReasonEvicted)
		}
	}
}

// restore does not end, of the endings from the given one on, those without which all
// limits hold. It considers each once, the last first: a stream that is needed while fewer
// streams remain is needed while more remain.
func (e *evaluation) restore(first int) {
	for k := len(e.endings) - 1; k >= first; k-- {
		i := e.endings[k].index
		e.remains[i] = true
		if len(e.violated()) == 0 {
			e.endings = slices.Delete(e.endings, k, k+1)
		} else {
			e.remains[i] = false
		}
	}
}

// violatedWith returns the names of the limits that would not hold if stream i did not end.
func (e *evaluation) violatedWith(i int) []string {
	e.remains[i] = true
	defer func() { e.remains[i] = false }()
	var names []string
	for _, t := range e.violated() {
		if !slices.Contains(names, t.limit.Name) { // the plan's limit, and the number of streams
			names = append(names, t.limit.Name)
		}
	}
	return names
}

// decision returns the decision that admits the start.
func (e *evaluation) decision() Decision {
	d := Decision{Slot: e.slot}
	for _, end := range e.endings {
		out := Ending{Stream: e.streams[end.index], Reason: end.reason}
		if end.reason == ReasonEvicted {
			out.Limits = e.violatedWith(end.index)
		}
		d.Endings = append(d.Endings, out)
	}
	for i := range e.observed {
		if t := &e.observed[i]; !e.holds(t) {
			d.Observed = append(d.Observed, t.limit.Name)
		}
	}
	if d.Slot < 0 {
		var remaining []Stream
		for i, st := range e.streams {
			if e.remains[i] {
				remaining = append(remaining, st)
			}
		}
		d.Slot = lowestFreeSlot(remaining)
	}
	return d
}
