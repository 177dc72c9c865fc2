//go:build linux

package torture

import (
	"fmt"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// A userState is the state of one user in the model.
type userState struct {
	own       int    // the user's own limit; -1 for none
	plan      string // the user's own plan; "" for none
	planLimit int    // the limit of the round's plan
	planEvict bool
	streams   []modelStream // oldest first
}

type modelStream struct {
	op      int
	session string
}

// A step is an operation in the model. The history of etcd has resolved as many unknown
// outcomes as possible.
type step struct {
	*op
	count bool // the step checks only the count in the answer to a stop
	// unclear is set if the operation may have had no effect. Another operation may have
	// ended the stream before a stop did. An end without a tombstone may be the effect of
	// a stop, which omits the tombstone while etcd is full.
	unclear bool
	victims []int // streams that a stop without an id may have ended, if its outcome is unknown
	// endedMeanwhile is the number of the user's streams that ended while a start was under
	// way. The start may have counted them when it chose the streams to evict. It does not
	// decide again when they end.
	endedMeanwhile int
}

// modelOf returns the model of all calls about one user. fallback is the limit of users who
// have no other. The end of a stream that no client requested is an operation too: the
// watcher recorded it, and leasecheck_test.go checks its time.
func modelOf(fallback int) porcupine.Model {
	m := porcupine.NondeterministicModel{
		Init: func() []any { return []any{userState{own: -1}} },
		Step: func(state, input, _ any) []any {
			var out []any
			for _, next := range state.(userState).step(input.(step), fallback) {
				out = append(out, next)
			}
			return out
		},
		Equal:             func(a, b any) bool { return a.(userState).equal(b.(userState)) },
		DescribeOperation: func(input, _ any) string { return input.(step).String() },
		DescribeState:     func(state any) string { return fmt.Sprintf("%+v", state) },
	}
	return m.ToModel()
}

func (s userState) equal(other userState) bool {
	return s.own == other.own && s.plan == other.plan && s.planLimit == other.planLimit &&
		s.planEvict == other.planEvict && slices.Equal(s.streams, other.streams)
}

// rule returns the limit in force, and whether a start may evict.
func (s userState) rule(fallback int) (limit int, evict bool) {
	limit, evict = fallback, true
	if s.plan != "" {
		limit, evict = s.planLimit, s.planEvict
	}
	if s.own >= 0 {
		limit = s.own
	}
	return limit, evict
}

func (s userState) without(op int) userState {
	s.streams = slices.DeleteFunc(slices.Clone(s.streams), func(m modelStream) bool { return m.op == op })
	return s
}

func (s userState) has(op int) bool {
	return slices.ContainsFunc(s.streams, func(m modelStream) bool { return m.op == op })
}

// step returns the possible states after an operation. It returns none if the operation
// contradicts the state.
func (s userState) step(in step, fallback int) []userState {
	switch {
	case in.count:
		return s.onlyIf(in.Count == len(s.streams) && !s.has(in.Stream))
	case in.Kind == kindStart:
		return s.start(in, fallback)
	case in.Kind == kindStop:
		return s.stop(in)
	case in.Kind == kindStopAny:
		return s.stopAny(in)
	case in.Kind == kindRemove:
		if in.Status == 404 {
			return s.onlyIf(len(s.streams) == 0)
		}
		// A node whose first attempt was not answered finds no stream at the second. It
		// cannot tell whether its own attempt or another operation ended the streams.
		removed := s
		removed.streams = nil
		if in.unknown() || in.unclear {
			return []userState{s, removed}
		}
		return []userState{removed}
	case in.Kind == kindList:
		return s.onlyIf(s.hasExactly(in.Active))
	case in.Kind == kindLimit:
		return []userState{s.withOwn(in)}
	case in.Kind == kindPlan:
		s.planLimit, s.planEvict = in.Limit, in.Evict
		return []userState{s}
	case in.Kind == kindUnrequestedEnd:
		if in.unclear {
			return []userState{s, s.without(in.Stream)}
		}
		return s.without(in.Stream).onlyIf(s.has(in.Stream))
	}
	panic("no such operation: " + in.Kind)
}

// withOwn returns the state after the user's own limit or plan was set or deleted.
func (s userState) withOwn(in step) userState {
	s.own, s.plan = in.Limit, in.Plan
	if in.Plan != "" {
		s.own = -1
	}
	return s
}

func (s userState) onlyIf(ok bool) []userState {
	if ok {
		return []userState{s}
	}
	return nil
}

// hasExactly reports whether the user's streams are those that ops started, in any order.
func (s userState) hasExactly(ops []int) bool {
	return len(ops) == len(s.streams) && !slices.ContainsFunc(ops, func(op int) bool { return !s.has(op) })
}

// start is the admission rule.
func (s userState) start(in step, fallback int) []userState {
	limit, mayEvict := s.rule(fallback)
	mayEvict = mayEvict && in.Evict && limit > 0
	remaining, takeover := s.remaining(in)
	allowed := limit
	if takeover {
		allowed = max(limit, len(s.streams)) // it adds nothing
	}
	evictions := 0
	if mayEvict {
		evictions = min(max(len(remaining)+1-allowed, 0), len(remaining))
	}
	admitted := len(remaining)-evictions+1 <= allowed
	if in.Status == 403 {
		return s.onlyIf(!admitted && in.Shown == limit && s.hasExactly(in.Active))
	}
	var out []userState
	for evicted := evictions; admitted && evicted <= len(remaining); evicted++ {
		next := s
		next.streams = append(slices.Clone(remaining[evicted:]), modelStream{in.N, in.Session})
		if in.unknown() || in.Count == len(next.streams) {
			out = append(out, next)
		}
		if !mayEvict || evicted == evictions+in.endedMeanwhile {
			break
		}
	}
	return out
}

// remaining returns the streams that a start does not replace, and whether the start takes
// over the slot of its session.
func (s userState) remaining(in step) (remaining []modelStream, takeover bool) {
	for _, m := range s.streams {
		switch {
		case in.Session != "" && m.session == in.Session && !takeover:
			takeover = true
		case m.op == in.Replaces:
		default:
			remaining = append(remaining, m)
		}
	}
	return remaining, takeover
}

func (s userState) stop(in step) []userState {
	switch {
	case in.Status == 410:
		return s.onlyIf(!s.has(in.Stream))
	case in.unknown():
		return []userState{s, s.without(in.Stream)}
	}
	return s.without(in.Stream).onlyIf(s.has(in.Stream) || in.unclear)
}

// stopAny ends any one of the streams. The model does not know which of them sent the
// oldest heartbeat, so it allows each.
func (s userState) stopAny(in step) []userState {
	if in.Status == 404 {
		return s.onlyIf(len(s.streams) == 0)
	}
	var out []userState
	if in.unclear || in.unknown() {
		out = append(out, s)
	}
	for _, m := range s.streams {
		if !in.unknown() || slices.Contains(in.victims, m.op) {
			out = append(out, s.without(m.op))
		}
	}
	return out
}

func (in step) String() string {
	var b strings.Builder
	b.WriteString(in.op.String())
	if in.count {
		b.WriteString(" (the count)")
	}
	if in.unclear {
		b.WriteString(" (unclear)")
	}
	return b.String()
}
