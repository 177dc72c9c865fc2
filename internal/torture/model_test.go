package torture

import (
	"fmt"
	"slices"
	"strings"

	"github.com/anishathalye/porcupine"
)

// A userState is what one user has, in the model.
type userState struct {
	own       int    // limit of his own; -1 for none
	plan      string // of his own; "" for none
	planLimit int    // what the plan says, of users who may have one
	planEvict bool
	streams   []modelStream // oldest first
}

type modelStream struct {
	op      int
	session string
}

// A step is an operation as the model sees it: with what etcd's own account says
// of unknown outcomes.
type step struct {
	*op
	count bool // only the count of a stop's answer
	// unclear: it may have had no effect. A stop may have found the stream
	// ended by something else meanwhile; a silent end may be that of a stop
	// which etcd, being full, took without its tombstone.
	unclear bool
	victims []int // of a stop without an id whose outcome is unknown
	// spare is how many streams of the user went while a start was under way. It
	// may have counted them when it chose whom to evict: streams that go make room,
	// and nobody decides anew for that.
	spare int
}

// modelOf is the whole contract as one user sees it, where fallback is the limit
// of those who have no other. Streams that end by themselves are operations too:
// the watcher saw them, and the lease rules say whether they were right to.
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

// rule is the limit in force, and whether a start may evict.
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

// step returns the states in which an operation may leave the user; none if it
// cannot have happened.
func (s userState) step(in step, fallback int) []userState {
	switch {
	case in.count:
		return s.when(in.Count == len(s.streams) && !s.has(in.Stream))
	case in.Kind == kindStart:
		return s.start(in, fallback)
	case in.Kind == kindStop:
		return s.stop(in)
	case in.Kind == kindQuietest:
		return s.stopAny(in)
	case in.Kind == kindRemove:
		if in.Status == 404 {
			return s.when(len(s.streams) == 0)
		}
		// A node whose own try got no answer sees that all which that was to end is
		// gone, and cannot tell whether something else has ended it.
		removed := s
		removed.streams = nil
		if in.unknown() || in.unclear {
			return []userState{s, removed}
		}
		return []userState{removed}
	case in.Kind == kindList:
		return s.when(s.lists(in.Active))
	case in.Kind == kindLimit:
		return []userState{s.withOwn(in)}
	case in.Kind == kindPlan:
		s.planLimit, s.planEvict = in.Limit, in.Evict
		return []userState{s}
	case in.Kind == kindVanish:
		if in.unclear {
			return []userState{s, s.without(in.Stream)}
		}
		return s.without(in.Stream).when(s.has(in.Stream))
	}
	panic("no such operation: " + in.Kind)
}

// withOwn is after a limit or plan of the user's own was set, or taken away.
func (s userState) withOwn(in step) userState {
	s.own, s.plan = in.Limit, in.Plan
	if in.Plan != "" {
		s.own = -1
	}
	return s
}

func (s userState) when(ok bool) []userState {
	if ok {
		return []userState{s}
	}
	return nil
}

// lists reports whether the streams are those, in whatever order.
func (s userState) lists(ops []int) bool {
	return len(ops) == len(s.streams) && !slices.ContainsFunc(ops, func(op int) bool { return !s.has(op) })
}

// start is the admission rule.
func (s userState) start(in step, fallback int) []userState {
	limit, mayEvict := s.rule(fallback)
	mayEvict = mayEvict && in.Evict && limit > 0
	stay, goesOn := s.beside(in)
	most := limit
	if goesOn {
		most = max(limit, len(s.streams)) // it adds nothing
	}
	needed := 0
	if mayEvict {
		needed = min(max(len(stay)+1-most, 0), len(stay))
	}
	admitted := len(stay)-needed+1 <= most
	if in.Status == 403 {
		return s.when(!admitted && in.Shown == limit && s.lists(in.Active))
	}
	var out []userState
	for evicted := needed; admitted && evicted <= len(stay); evicted++ {
		next := s
		next.streams = append(slices.Clone(stay[evicted:]), modelStream{in.N, in.Session})
		if in.unknown() || in.Count == len(next.streams) {
			out = append(out, next)
		}
		if !mayEvict || evicted == needed+in.spare {
			break
		}
	}
	return out
}

// beside are the streams that a start does not replace.
func (s userState) beside(in step) (stay []modelStream, goesOn bool) {
	for _, m := range s.streams {
		switch {
		case in.Session != "" && m.session == in.Session && !goesOn:
			goesOn = true
		case m.op == in.Replaces:
		default:
			stay = append(stay, m)
		}
	}
	return stay, goesOn
}

func (s userState) stop(in step) []userState {
	switch {
	case in.Status == 410:
		return s.when(!s.has(in.Stream))
	case in.unknown():
		return []userState{s, s.without(in.Stream)}
	}
	return s.without(in.Stream).when(s.has(in.Stream) || in.unclear)
}

// stopAny ends any one: which was heard from last is the node's to know.
func (s userState) stopAny(in step) []userState {
	if in.Status == 404 {
		return s.when(len(s.streams) == 0)
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
