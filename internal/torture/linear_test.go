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

// linear makes the histories that porcupine checks, one for each user.
//
// The watcher narrows them. A start happened when its key was put, so its interval
// shrinks to the time in which that revision was committed; and of an unknown
// outcome it knows more than the client: a start whose key never came has not
// happened, and other writes can have done only what the watcher saw done. Changes
// of rules are taken from the watcher alone. What
// nobody can tell stays open: such an operation may have had its effect or not,
// and returns when the last effect that could be its own was seen.
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
		l.vanish(live)
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
	case kindQuietest, kindRemove:
		l.many(o)
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
	told := false
	for _, live := range l.tries[o.N] {
		s := step{op: o, spare: l.wentDuring(o, live)}
		from, to := l.bornBetween(live)
		if l.told(live) {
			told = true
			to = min(to, o.Return)
		} else { // nobody was told what this try has done
			lost := *o
			lost.Status = 0
			s.op = &lost
		}
		if from > to {
			l.complain("answered before it was done: %v, not committed before %v", o, from)
			return
		}
		l.add(o.User, s, max(o.Call, from), to)
	}
	if o.Status == 200 && !told {
		l.complain("admitted, but never there: %v", o)
	}
}

// wentDuring is how many streams of the user may have gone while a start was under
// way, by something else.
func (l linear) wentDuring(o *op, admitted *life) int {
	n := 0
	for _, other := range l.byUser[o.User] {
		if from, to := l.goneBetween(other); other.by != admitted && to >= o.Call && other.gone <= admitted.born && from <= o.Return {
			n++
		}
	}
	return n
}

func (l linear) stop(o *op) {
	live := l.byOp[o.Stream]
	if live == nil {
		l.complain("a stream that never was: %v", o)
		return
	}
	from, to := l.goneBetween(live)
	switch {
	case o.unknown() && (to < o.Call || live.gone == 0):
		// Nothing came of it.
	case o.unknown():
		l.add(o.User, step{op: o}, o.Call, to)
	case o.Status == 200:
		// A node whose own try got no answer cannot tell whether that was the one that
		// ended the stream, so a stop that is said again may be answered 200 as well.
		unclear := to >= o.Call && from <= o.Return || l.troubled(o)
		l.add(o.User, step{op: o, unclear: unclear}, o.Call, o.Return)
		l.add(o.User, step{op: o, count: true}, o.Call, o.Return)
	default:
		l.add(o.User, step{op: o}, o.Call, o.Return)
	}
}

// many is for writes that may end any of a user's streams.
func (l linear) many(o *op) {
	s := step{op: o, unclear: l.troubled(o)}
	last := time.Duration(0)
	for _, live := range l.byUser[o.User] {
		from, to := l.goneBetween(live)
		if live.gone == 0 || to < o.Call || live.by != nil {
			continue
		}
		s.victims = append(s.victims, live.op)
		last = max(last, to)
		s.unclear = s.unclear || o.Kind == kindQuietest && from <= o.Return
	}
	switch {
	case !o.unknown():
		l.add(o.User, s, o.Call, o.Return)
		if o.Kind == kindQuietest && o.Status == 200 {
			l.add(o.User, step{op: o, count: true}, o.Call, o.Return)
		}
	case last > 0:
		l.add(o.User, s, o.Call, last)
	}
}

// rule is a change of a limit or a plan, as the watcher saw it. What clients were
// told of theirs is held against these elsewhere.
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

// vanish is the end of a stream that no client's operation accounts for.
func (l linear) vanish(live *life) {
	if live.gone == 0 {
		return
	}
	e := l.endOf(live)
	if !e.vanished {
		return
	}
	from, to := l.goneBetween(live)
	o := &op{Kind: kindVanish, User: live.user, Stream: live.op, Call: from, Return: to, Status: 200}
	l.add(live.user, step{op: o, unclear: e.unclear}, from, to)
}

// checkLinear has porcupine look for an order of each user's operations that the
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
				text = "it took too long to find an order of the operations of " + user
			}
			_ = os.MkdirAll(dir, 0o755)
			if err := porcupine.VisualizePath(model, info, path); err != nil {
				text += ": " + err.Error()
			}
			c.complain("%s\n%s", text, stuckAt(info, ops))
		})
	}
	all.Wait()
	c.linearOps = 0
	for _, ops := range histories {
		c.linearOps += len(ops)
	}
}

// stuckAt tells the first operations that fit into no order.
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
