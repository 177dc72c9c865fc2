package policy

import "slices"

// A Refusal says why [Decide] does not admit a start under a rule that needs attributes.
type Refusal struct {
	Limits  []RefusingLimit // at least one
	Streams []Blocking      // for each stream of the user, in the same order
}

// A RefusingLimit is a limit that does not hold with the new stream.
type RefusingLimit struct {
	Name    string
	Limit   int
	Counted int // what the streams of the user count for, without the new one
	Count   Counting
	Message string
}

// LimitNames returns the names of limits.
func LimitNames(limits []RefusingLimit) []string {
	var names []string
	for _, l := range limits {
		names = append(names, l.Name)
	}
	return names
}

// A Blocking says how a running stream blocks a start.
type Blocking struct {
	Limits []string // the names of the refusing limits that the stream counts for
	Enough bool     // the start would be admitted if it named this stream in Replaces
}

// Refuse returns why Decide does not admit a start. The arguments are those of Decide. It
// reports false if Decide admits the start.
func Refuse(r Rule, streams []Stream, s Start) (Refusal, bool) {
	e := newEvaluation(&r, streams, &s)
	remained := slices.Clone(e.remains)
	e.endExpired()
	rejecting := e.makeRoom()
	if len(rejecting) == 0 {
		return Refusal{}, false
	}
	var out Refusal
	for _, t := range rejecting {
		if slices.ContainsFunc(out.Limits, func(l RefusingLimit) bool { return l.Name == t.limit.Name }) {
			continue // the plan's limit, and the number of streams
		}
		out.Limits = append(out.Limits, RefusingLimit{
			t.limit.Name, t.limit.Limit, e.countHeld(t), t.limit.Count, t.limit.Message,
		})
	}
	out.Streams = make([]Blocking, len(streams))
	for i, st := range streams {
		if !remained[i] || st.Expired {
			continue // the start ends it anyway
		}
		b := &out.Streams[i]
		for _, t := range rejecting {
			if t.unit[i] >= 0 && t.unit[i] != t.unit[len(streams)] && !slices.Contains(b.Limits, t.limit.Name) {
				b.Limits = append(b.Limits, t.limit.Name)
			}
		}
		b.Enough = len(b.Limits) > 0 && e.admitsWithout(i)
	}
	return out, true
}

// admitsWithout reports whether the start is admitted if stream i ends too.
func (e *evaluation) admitsWithout(i int) bool {
	f := *e
	f.remains = slices.Repeat([]bool{true}, len(e.streams)+1)
	f.endings = nil
	for _, end := range e.endings {
		if end.reason != ReasonEvicted {
			f.remains[end.index] = false
		}
	}
	f.remains[i] = false
	return len(f.makeRoom()) == 0
}
