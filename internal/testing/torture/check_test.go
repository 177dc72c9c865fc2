//go:build linux

package torture

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Times in responses are checked with some slack, because clocks are read at different
// moments and the machine is busy.
const (
	slack     = 100 * time.Millisecond
	lateSlack = 2500 * time.Millisecond
	// maxReplicaAge is the maximum age of the replica that a node answers from.
	maxReplicaAge = 3 * time.Second
	// lateWork is how long after a call a node may still work on it.
	lateWork = 3200 * time.Millisecond
)

// A checker compares the responses that clients received with the history of etcd.
type checker struct {
	*record
	limit     int
	ttl       time.Duration
	cleanup   time.Duration // how long a start without a response may leave a stream while no fault is active
	ops       []*op
	windows   []window
	recordEnd time.Duration // when the record ended

	stall *stallMeter // of the round

	users  map[string]bool
	byOp   map[int]*observedStream // the stream that the start returned, or else the last one that it created
	tries  map[int][]*observedStream
	byUser map[string][]*observedStream
	about  map[int][]*op    // by the start of their stream
	ending map[string][]*op // by user: those that may end any of the user's streams

	mu              sync.Mutex
	found           []string
	maxLate         time.Duration // by how much a silent stream outlived its TTL while etcd was undisturbed, at most
	unrequestedEnds int
	linearOps       int
}

func newChecker(r *record, h *history, windows []window) *checker {
	c := &checker{
		record: r, ops: h.ops, windows: windows, recordEnd: now(), users: map[string]bool{}, byOp: map[int]*observedStream{},
		tries:  map[int][]*observedStream{},
		byUser: map[string][]*observedStream{}, about: map[int][]*op{}, found: append(r.violations, h.unexpected...),
	}
	for _, o := range h.ops {
		if o.User != "" {
			c.users[o.User] = true
		}
		switch o.Kind {
		case kindStart:
			c.about[o.N] = append(c.about[o.N], o)
		case kindHeartbeat, kindStop:
			c.about[o.Stream] = append(c.about[o.Stream], o)
		}
	}
	for _, l := range r.streams {
		if c.users[l.user] { // else it is left over from the previous round
			c.take(l)
		}
	}
	return c
}

// take adds a stream. A start without a response from etcd is repeated if its stream does
// not exist, which may have existed and ended since. But the streams of one start never
// exist at the same time.
func (c *checker) take(l *observedStream) {
	for _, earlier := range c.tries[l.op] {
		if earlier.ended == 0 || earlier.ended > l.created {
			c.errorf("one start has two streams: %v and %v", earlier, l)
		}
	}
	c.tries[l.op] = append(c.tries[l.op], l)
	c.byUser[l.user] = append(c.byUser[l.user], l)
	if c.byOp[l.op] == nil || !c.reported(c.byOp[l.op]) {
		c.byOp[l.op] = l
	}
}

// reported reports whether the client received the stream in a response.
func (c *checker) reported(l *observedStream) bool {
	o := c.startOf(l)
	return o != nil && o.Status == 200 && o.Nonce == l.nonce
}

func (c *checker) errorf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.found) < 100 {
		c.found = append(c.found, fmt.Sprintf(format, args...))
	}
}

// late reports what took too long, which a slow machine can cause.
func (c *checker) late(format string, args ...any) { c.errorf(lateMark+format, args...) }

// lateMark is the prefix of findings that a slow machine can cause.
const lateMark = "late: "

// onlyLate reports whether all findings have the prefix lateMark.
func onlyLate(found []string) bool {
	return !slices.ContainsFunc(found, func(what string) bool { return !strings.HasPrefix(what, lateMark) })
}

// checkAll returns all violations. It writes the visualizations of porcupine to dir.
func (c *checker) checkAll(dir string) []string {
	for _, o := range c.ops {
		switch o.Kind {
		case kindHeartbeat:
			c.checkHeartbeat(o)
		case kindStop:
			c.checkEndedResponse(o)
		case kindBoundedList:
			c.checkBoundedList(o)
		case kindStart:
			c.checkStartTTL(o)
			c.checkRefusal(o)
			c.checkSeveralRefusal(o)
		case kindLimit, kindPlan:
			c.checkRule(o)
		}
	}
	for _, l := range c.ours() {
		c.checkEnd(l)
	}
	c.checkLeases()
	c.checkEndIsFinal()
	c.checkLinear(dir)
	return c.found
}

// checkStartTTL checks that a new stream has at least half its TTL. It has all of it unless
// its renewal was not answered.
func (c *checker) checkStartTTL(o *op) {
	if o.Status == 200 && !o.ClockSet && o.Expires < o.Call+c.ttl/2-slack {
		c.errorf("a stream begins with less than half its TTL: %v", o)
	}
}

// checkHeartbeat checks heartbeats: after a 200 the stream has at least three quarters of its
// TTL, and it existed within the last maxReplicaAge.
func (c *checker) checkHeartbeat(o *op) {
	live := c.byOp[o.Stream]
	if live == nil {
		c.errorf("a heartbeat of a stream that never existed: %v", o)
		return
	}
	c.checkEndedResponse(o)
	if o.Status != 200 || o.Degraded {
		return
	}
	if _, to := c.endedBetween(live); to < o.Call-maxReplicaAge-slack {
		c.late("answered as alive long after its end at %.3f: %v; %v", to.Seconds(), o, live)
	}
	if !o.ClockSet && !o.Batch && o.Expires < o.Call+c.ttl-c.ttl/4-slack {
		c.errorf("a heartbeat left less than three quarters of the TTL: %v", o)
	}
}

// checkEndIsFinal checks that a node which has reported a stream as ended does not report
// it as alive later. This holds across restarts of the node, which then reads etcd again.
func (c *checker) checkEndIsFinal() {
	type nodeStream struct{ node, stream int }
	ends := map[nodeStream]*op{} // the first answer of a node that reports the end of a stream
	for _, o := range c.ops {
		if o.Kind != kindHeartbeat && o.Kind != kindStop {
			continue
		}
		reportsEnd := o.Status == 410 || o.Kind == kindStop && o.Status == 200
		key := nodeStream{o.Node, o.Stream}
		if first := ends[key]; reportsEnd && (first == nil || o.Return < first.Return) {
			ends[key] = o
		}
	}
	for _, o := range c.ops {
		first := ends[nodeStream{o.Node, o.Stream}]
		if o.Kind == kindHeartbeat && o.Status == 200 && !o.Degraded && first != nil && o.Call > first.Return {
			c.errorf("reported as alive after its end by the same node: %v, after %v", o, first)
		}
		if o.Kind == kindStop && o.Status == 200 && first != nil && first.Status == 410 && o.Call > first.Return {
			c.errorf("stopped after its end was reported: %v, after %v", o, first)
		}
	}
}

// checkEndedResponse checks that a stream had ended when its call was answered 410.
func (c *checker) checkEndedResponse(o *op) {
	live := c.byOp[o.Stream]
	if o.Status != 410 || live == nil {
		return
	}
	if from, _ := c.endedBetween(live); from > o.Return {
		c.errorf("410 for a stream that exists: %v; %v", o, live)
	}
}

// checkBoundedList checks that a list without a consistency is no older than maxReplicaAge.
func (c *checker) checkBoundedList(o *op) {
	if o.unknown() {
		return
	}
	shown := map[int]bool{}
	for _, n := range o.Active {
		shown[n] = true
		live := c.byOp[n]
		if live == nil {
			c.errorf("a list shows a stream that never existed: %v", o)
		} else if _, to := c.endedBetween(live); to < o.Call-maxReplicaAge-slack {
			c.late("a list shows a stream that ended long before: %v; %v", o, live)
		}
	}
	for _, live := range c.byUser[o.User] {
		_, born := c.createdBetween(live)
		gone, _ := c.endedBetween(live)
		if born < o.Call-maxReplicaAge-slack && gone > o.Return && !shown[live.op] {
			c.late("a list lacks a stream: %v; %v", o, live)
		}
	}
}

// An end says whether the operations of clients explain the end of a stream.
type end struct {
	unrequested bool // no operation ended it
	unclear     bool // an operation may have ended it
}

// endOf finds the operation that ended a stream.
func (c *checker) endOf(l *observedStream) end {
	reported := c.reported(l)
	switch l.reason {
	case "replaced", "evicted":
		if !c.mayEnd(l) {
			c.errorf("%s by a start that may not end it: %v, %v", l.reason, l, c.startOf(l.by))
		}
		return end{}
	case "stopped", "removed":
		// The node itself stops a stream whose client has disconnected.
		if c.mayHaveBeenStopped(l) {
			return end{unrequested: !reported, unclear: true}
		}
		if reported {
			c.errorf("%s without a request: %v", l.reason, l)
		}
		return end{unrequested: true}
	case "":
		return end{unrequested: true, unclear: l.by != nil && c.mayEnd(l) || c.mayHaveBeenStopped(l)}
	}
	c.errorf("an end for an unknown reason: %v", l)
	return end{unrequested: true, unclear: true}
}

func (c *checker) startOf(l *observedStream) *op {
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

// mayEnd reports whether the start in the revision of a stream's end was allowed to end it.
func (c *checker) mayEnd(l *observedStream) bool {
	by := c.startOf(l.by)
	return by != nil && (by.Evict || by.Session != "" && by.Session == l.session || by.Replaces == l.op)
}

// mayHaveBeenStopped reports whether a stop or removal was under way that may have ended the
// stream.
func (c *checker) mayHaveBeenStopped(l *observedStream) bool {
	from, to := c.endedBetween(l)
	may := func(o *op) bool { return o.Call <= to && (o.unknown() || o.Return >= from) }
	for _, o := range c.about[l.op] {
		if o.Kind == kindStop && may(o) {
			return true
		}
	}
	for _, o := range c.bulkStops()[l.user] {
		if may(o) {
			return true
		}
	}
	return false
}

// bulkStops are the operations that may end any stream of a user.
func (c *checker) bulkStops() map[string][]*op {
	if c.ending == nil {
		c.ending = map[string][]*op{}
		for _, o := range c.ops {
			if o.Kind == kindStopAny || o.Kind == kindRemove {
				c.ending[o.User] = append(c.ending[o.User], o)
			}
		}
	}
	return c.ending
}

// ours are the streams of the round's users.
func (c *checker) ours() []*observedStream {
	var out []*observedStream
	for _, l := range c.streams {
		if c.users[l.user] {
			out = append(out, l)
		}
	}
	return out
}
