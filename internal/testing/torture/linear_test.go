//go:build linux

package torture

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
)

// linear builds the histories that porcupine checks, one per user.
//
// The record of the watcher narrows the intervals. A start took effect when its key was
// put, so its interval is the time in which that revision was committed. A start of unknown
// outcome whose key was never put did not happen, and other writes of unknown outcome had
// no other effects than those recorded. Changes of rules come from the record alone. An
// operation whose effect remains unknown is optional, and its interval ends with the last
// recorded effect that can be its own.
type linear struct {
	*checker
	ops map[string][]porcupine.Operation
}

func (c *checker) linearize() map[string][]porcupine.Operation {
	l := linear{checker: c, ops: map[string][]porcupine.Operation{}}
	for _, o := range c.ops {
		l.take(o)
	}
	for _, change := range c.rules {
		l.rule(change)
	}
	for _, live := range c.ours() {
		l.unrequestedEnd(live)
	}
	for user := range l.ops {
		if hasSeveral(user) { // the model has one limit
			delete(l.ops, user)
		}
	}
	return l.ops
}

func (l linear) add(user string, s step, call, ret time.Duration) {
	l.ops[user] = append(l.ops[user], porcupine.Operation{
		ClientId: s.N % 8, Input: s, Call: int64(call), Return: int64(ret),
	})
}

func (l linear) take(o *op) {
	switch o.Kind {
	case kindStart:
		l.start(o)
	case kindStop:
		l.stop(o)
	case kindStopAny, kindRemove:
		l.bulkStop(o)
	case kindList:
		if !o.unknown() {
			l.add(o.User, step{op: o}, o.Call, o.Return)
		}
	}
}

func (l linear) start(o *op) {
	if o.Status == 403 {
		l.add(o.User, step{op: o}, o.Call, o.Return)
	}
	reported := false
	for _, live := range l.tries[o.N] {
		s := step{op: o, endedMeanwhile: l.endedDuring(o, live)}
		from, to := l.createdBetween(live)
		if l.reported(live) {
			reported = true
			to = min(to, o.Return)
		} else { // the result of this attempt is in no response
			lost := *o
			lost.Status = 0
			s.op = &lost
		}
		if from > to {
			l.errorf("answered before its commit: %v, not committed before %v", o, from)
			return
		}
		l.add(o.User, s, max(o.Call, from), to)
	}
	if o.Status == 200 && !reported {
		l.errorf("answered 200, but its stream never existed: %v", o)
	}
}

// endedDuring returns how many streams of the user may have ended during a start for another
// reason.
func (l linear) endedDuring(o *op, admitted *observedStream) int {
	n := 0
	for _, other := range l.byUser[o.User] {
		if from, to := l.endedBetween(other); other.by != admitted && to >= o.Call && other.ended <= admitted.created && from <= o.Return {
			n++
		}
	}
	return n
}

func (l linear) stop(o *op) {
	live := l.byOp[o.Stream]
	if live == nil {
		l.errorf("a stop of a stream that never existed: %v", o)
		return
	}
	from, to := l.endedBetween(live)
	switch {
	case o.unknown() && (to < o.Call || live.ended == 0):
		// It had no effect.
	case o.unknown():
		l.add(o.User, step{op: o}, o.Call, to)
	case o.Status == 200:
		// A node that repeats a stop without a response cannot tell whether the first
		// attempt ended the stream. It may then answer 200 to a stop of an ended stream.
		unclear := to >= o.Call && from <= o.Return || l.etcdWasDisturbed(o)
		l.add(o.User, step{op: o, unclear: unclear}, o.Call, o.Return)
		l.add(o.User, step{op: o, count: true}, o.Call, o.Return)
	default:
		l.add(o.User, step{op: o}, o.Call, o.Return)
	}
}

// bulkStop adds a write that may end any of the user's streams.
func (l linear) bulkStop(o *op) {
	s := step{op: o, unclear: l.etcdWasDisturbed(o)}
	last := time.Duration(0)
	for _, live := range l.byUser[o.User] {
		from, to := l.endedBetween(live)
		if live.ended == 0 || to < o.Call || live.by != nil {
			continue
		}
		s.victims = append(s.victims, live.op)
		last = max(last, to)
		s.unclear = s.unclear || o.Kind == kindStopAny && from <= o.Return
	}
	switch {
	case !o.unknown():
		l.add(o.User, s, o.Call, o.Return)
		if o.Kind == kindStopAny && o.Status == 200 {
			l.add(o.User, step{op: o, count: true}, o.Call, o.Return)
		}
	case last > 0:
		l.add(o.User, s, o.Call, last)
	}
}

// rule adds a change of a limit or a plan, as recorded. checkRule compares these changes
// with the responses.
func (l linear) rule(change ruleChange) {
	from, to := l.notBefore(change.rev), l.notAfter(change.rev, change.seen)
	o := change.asOp()
	o.Call, o.Return = from, to
	for user := range l.users {
		if user == o.User || o.Kind == kindPlan && planName(user) == o.Plan {
			l.add(user, step{op: o}, from, to)
		}
	}
}

// unrequestedEnd adds the end of a stream that no client requested.
func (l linear) unrequestedEnd(live *observedStream) {
	if live.ended == 0 {
		return
	}
	e := l.endOf(live)
	if !e.unrequested {
		return
	}
	from, to := l.endedBetween(live)
	o := &op{Kind: kindUnrequestedEnd, User: live.user, Stream: live.op, Call: from, Return: to, Status: 200}
	l.add(live.user, step{op: o, unclear: e.unclear}, from, to)
}

// checkLinear searches, with porcupine, for an order of each user's operations that the
// model allows.
func (c *checker) checkLinear(dir string) {
	histories := c.linearize()
	users := make([]string, 0, len(histories))
	for user := range histories {
		users = append(users, user)
	}
	slices.Sort(users)
	model := modelOf(c.limit)
	var all sync.WaitGroup
	slots := make(chan struct{}, 2)
	for _, user := range users {
		all.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			ops := histories[user]
			slices.SortFunc(ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
			result, info := porcupine.CheckOperationsVerbose(model, ops, time.Minute)
			if result == porcupine.Ok {
				return
			}
			path := filepath.Join(dir, user+".html")
			text := "no order of the operations of " + user + " obeys the rules: see " + path
			if result == porcupine.Unknown {
				text = lateMark + "it took too long to find an order of the operations of " + user
			}
			_ = os.MkdirAll(dir, 0o755)
			if err := porcupine.VisualizePath(model, info, path); err != nil {
				text += ": " + err.Error()
			}
			c.errorf("%s\n%s", text, stuckAt(info, ops))
		})
	}
	all.Wait()
	c.linearOps = 0
	for _, ops := range histories {
		c.linearOps += len(ops)
	}
}

// stuckAt returns the first operations that fit into no order.
func stuckAt(info porcupine.LinearizationInfo, ops []porcupine.Operation) string {
	longest := map[string]bool{}
	for _, partition := range info.PartialLinearizationsOperations() {
		best := 0
		for i := range partition {
			if len(partition[i]) > len(partition[best]) {
				best = i
			}
		}
		if len(partition) > 0 {
			for _, o := range partition[best] {
				longest[o.Input.(step).String()] = true
			}
		}
	}
	var b strings.Builder
	var before []string
	n := 0
	for _, o := range ops {
		text := o.Input.(step).String()
		if longest[text] {
			before = append(before, text)
			continue
		}
		if n == 0 {
			for _, t := range before[max(0, len(before)-12):] {
				fmt.Fprintf(&b, "    %s\n", t)
			}
		}
		if n++; n > 6 {
			break
		}
		fmt.Fprintf(&b, "  ! %s\n", text)
	}
	return b.String()
}
