package torture

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// What is told of a node's or a lease's time is checked with some slack, for
// clocks that are read at different moments, and for a machine that has other
// things to do.
const (
	slack     = 100 * time.Millisecond
	lateSlack = 2500 * time.Millisecond
	// viewLag is how old a node's view may be that it answers from.
	viewLag = 3 * time.Second
	// lateWork is how long after its call a node may still work for a client.
	lateWork = 3200 * time.Millisecond
)

// A checker holds what clients were told against what etcd saw.
type checker struct {
	*record
	limit   int
	ttl     time.Duration
	cleanup time.Duration // a start that was not answered leaves nothing for longer, while nothing is broken
	ops     []*op
	windows []window
	ended   time.Duration // when the record did

	users  map[string]bool
	byOp   map[int]*life // the stream that a start's client was told of, else the last it made
	tries  map[int][]*life
	byUser map[string][]*life
	about  map[int][]*op    // by the start of the stream that they are about
	ending map[string][]*op // by user: that may end any of his streams

	mu        sync.Mutex
	found     []string
	latest    time.Duration // that a silent stream outlived its TTL, with etcd undisturbed
	lapses    int
	linearOps int
}

func newChecker(r *record, h *history, windows []window) *checker {
	c := &checker{
		record: r, ops: h.ops, windows: windows, ended: now(), users: map[string]bool{}, byOp: map[int]*life{},
		tries:  map[int][]*life{},
		byUser: map[string][]*life{}, about: map[int][]*op{}, found: append(r.complaints, h.lost...),
	}
	for _, o := range h.ops {
		if o.User != "" {
			c.users[o.User] = true
		}
		switch o.Kind {
		case kindStart:
			c.about[o.N] = append(c.about[o.N], o)
		case kindBeat, kindStop:
			c.about[o.Stream] = append(c.about[o.Stream], o)
		}
	}
	for _, l := range r.lives {
		if c.users[l.user] { // else it is left from the round before
			c.take(l)
		}
	}
	return c
}

// take notes a stream. A start that got no answer from etcd is tried again when
// its stream is not there: it may have been, and have been ended by somebody else
// meanwhile. But there are never two at once.
func (c *checker) take(l *life) {
	for _, earlier := range c.tries[l.op] {
		if earlier.gone == 0 || earlier.gone > l.born {
			c.complain("one start, two streams: %v and %v", earlier, l)
		}
	}
	c.tries[l.op] = append(c.tries[l.op], l)
	c.byUser[l.user] = append(c.byUser[l.user], l)
	if c.byOp[l.op] == nil || !c.told(c.byOp[l.op]) {
		c.byOp[l.op] = l
	}
}

// told reports whether the client of a stream knows it.
func (c *checker) told(l *life) bool {
	o := c.startOf(l)
	return o != nil && o.Status == 200 && o.Nonce == l.nonce
}

func (c *checker) complain(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.found) < 100 {
		c.found = append(c.found, fmt.Sprintf(format, args...))
	}
}

// late is complain about what took too long. That may be the machine's fault.
func (c *checker) late(format string, args ...any) { c.complain(lateMark+format, args...) }

// lateMark begins what may be the fault of a machine that has too much to do.
const lateMark = "late: "

// onlyLate reports whether nothing worse was found.
func onlyLate(found []string) bool {
	return !slices.ContainsFunc(found, func(what string) bool { return !strings.HasPrefix(what, lateMark) })
}

// checkAll says what is wrong; nothing, if all is well. What porcupine has to
// show goes to dir.
func (c *checker) checkAll(dir string) []string {
	for _, o := range c.ops {
		switch o.Kind {
		case kindBeat:
			c.checkBeat(o)
		case kindStop:
			c.checkGone(o)
		case kindLook:
			c.checkLook(o)
		case kindStart:
			c.checkTold(o)
			c.checkRefusal(o)
		case kindLimit, kindPlan:
			c.checkRule(o)
		}
	}
	for _, l := range c.ours() {
		c.checkEnd(l)
	}
	c.checkFinal()
	c.checkLinear(dir)
	return c.found
}

// checkTold holds a start's answer against the promise that it has a full TTL, or
// half of one where its renewal was not answered.
func (c *checker) checkTold(o *op) {
	if o.Status == 200 && !o.ClockSet && o.Expires < o.Call+c.ttl/2-slack {
		c.complain("a stream begins with less than half its TTL: %v", o)
	}
}

// checkBeat: 200 means that the stream was there no longer ago than a view may
// lag, and has three quarters of its TTL.
func (c *checker) checkBeat(o *op) {
	live := c.byOp[o.Stream]
	if live == nil {
		c.complain("a stream that never was: %v", o)
		return
	}
	c.checkGone(o)
	if o.Status != 200 || o.Degraded {
		return
	}
	if _, to := c.goneBetween(live); to < o.Call-viewLag-slack {
		c.late("answered as alive long after its end at %.3f: %v; %v", to.Seconds(), o, live)
	}
	if !o.ClockSet && o.Expires < o.Call+c.ttl-c.ttl/4-slack {
		c.complain("a heartbeat left less than three quarters of the TTL: %v", o)
	}
}

// checkFinal: who has said that a stream is over does not call it alive again. A
// node that was restarted in between may know nothing of it, but then it knows
// etcd's state.
func (c *checker) checkFinal() {
	type at struct{ node, stream int }
	over := map[at]*op{}
	for _, o := range c.ops {
		if o.Kind != kindBeat && o.Kind != kindStop {
			continue
		}
		said := o.Status == 410 || o.Kind == kindStop && o.Status == 200
		place := at{o.Node, o.Stream}
		if first := over[place]; said && (first == nil || o.Return < first.Return) {
			over[place] = o
		}
	}
	for _, o := range c.ops {
		first := over[at{o.Node, o.Stream}]
		if o.Kind == kindBeat && o.Status == 200 && !o.Degraded && first != nil && o.Call > first.Return {
			c.complain("alive again on the same node: %v, after %v", o, first)
		}
		if o.Kind == kindStop && o.Status == 200 && first != nil && first.Status == 410 && o.Call > first.Return {
			c.complain("stopped when it was said to be over: %v, after %v", o, first)
		}
	}
}

// checkGone: 410 means that the stream is gone.
func (c *checker) checkGone(o *op) {
	live := c.byOp[o.Stream]
	if o.Status != 410 || live == nil {
		return
	}
	if from, _ := c.goneBetween(live); from > o.Return {
		c.complain("410 for a living stream: %v; %v", o, live)
	}
}

// checkLook: a list may be as old as the view, and no older.
func (c *checker) checkLook(o *op) {
	if o.unknown() {
		return
	}
	shown := map[int]bool{}
	for _, n := range o.Active {
		shown[n] = true
		live := c.byOp[n]
		if live == nil {
			c.complain("a list shows a stream that never was: %v", o)
		} else if _, to := c.goneBetween(live); to < o.Call-viewLag-slack {
			c.late("a list shows a stream that is long gone: %v; %v", o, live)
		}
	}
	for _, live := range c.byUser[o.User] {
		_, born := c.bornBetween(live)
		gone, _ := c.goneBetween(live)
		if born < o.Call-viewLag-slack && gone > o.Return && !shown[live.op] {
			c.late("a list lacks a stream: %v; %v", o, live)
		}
	}
}

// An end is what the clients' operations say about the end of a stream.
type end struct {
	vanished bool // nobody ended it
	unclear  bool // or somebody did
}

// endOf finds who ended a stream.
func (c *checker) endOf(l *life) end {
	told := c.told(l)
	switch l.reason {
	case "replaced", "evicted":
		if !c.mayEnd(l) {
			c.complain("%s by a start that had no right to: %v, %v", l.reason, l, c.startOf(l.by))
		}
		return end{}
	case "stopped", "removed":
		// The node itself stops a stream whose client hung up.
		if c.asked(l) {
			return end{vanished: !told, unclear: true}
		}
		if told {
			c.complain("%s by nobody: %v", l.reason, l)
		}
		return end{vanished: true}
	case "":
		return end{vanished: true, unclear: l.by != nil && c.mayEnd(l) || c.asked(l)}
	}
	c.complain("an end for no known reason: %v", l)
	return end{vanished: true, unclear: true}
}

func (c *checker) startOf(l *life) *op {
	if l == nil {
		return nil
	}
	for _, o := range c.about[l.op] {
		if o.Kind == kindStart {
			return o
		}
	}
	return nil
}

// mayEnd reports whether the start that came with a stream's end may have ended
// it.
func (c *checker) mayEnd(l *life) bool {
	by := c.startOf(l.by)
	return by != nil && (by.Evict || by.Session != "" && by.Session == l.session || by.Replaces == l.op)
}

// asked reports whether a client has asked for something that may have ended the
// stream when it ended.
func (c *checker) asked(l *life) bool {
	from, to := c.goneBetween(l)
	may := func(o *op) bool { return o.Call <= to && (o.unknown() || o.Return >= from) }
	for _, o := range c.about[l.op] {
		if o.Kind == kindStop && may(o) {
			return true
		}
	}
	for _, o := range c.many()[l.user] {
		if may(o) {
			return true
		}
	}
	return false
}

// many are the operations that may end any stream of a user.
func (c *checker) many() map[string][]*op {
	if c.ending == nil {
		c.ending = map[string][]*op{}
		for _, o := range c.ops {
			if o.Kind == kindQuietest || o.Kind == kindRemove {
				c.ending[o.User] = append(c.ending[o.User], o)
			}
		}
	}
	return c.ending
}

// ours are the streams of the round's users.
func (c *checker) ours() []*life {
	var out []*life
	for _, l := range c.lives {
		if c.users[l.user] {
			out = append(out, l)
		}
	}
	return out
}
