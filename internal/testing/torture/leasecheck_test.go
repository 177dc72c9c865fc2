//go:build linux

package torture

import (
	"slices"
	"time"
)

// checkEnd checks that a stream expires no earlier than the answers to its clients said, and
// not much later.
func (c *checker) checkEnd(l *observedStream) {
	if l.ended == 0 {
		c.checkAbandonedStart(l, c.recordEnd) // drain checks that it ends
		return
	}
	e := c.endOf(l)
	if !e.unrequested {
		return
	}
	if !e.unclear && c.reported(l) {
		c.checkNotEarly(l)
	}
	c.checkNotLate(l)
}

// checkNotEarly checks that no response promised more time than the stream had.
func (c *checker) checkNotEarly(l *observedStream) {
	from, to := c.endedBetween(l)
	for _, o := range c.about[l.op] {
		if o.Return <= from && c.promisedUntil(o) > to+slack {
			c.errorf("ended at %.3f, before the time in an answer: %v; %v", to.Seconds(), l, o)
		}
	}
}

// promisedUntil returns the time before which, by the answer to o, its stream does not
// expire; 0 if it says nothing. The answer to a batch has no times, and promises three
// quarters of the TTL.
func (c *checker) promisedUntil(o *op) time.Duration {
	switch {
	case o.Kind != kindStart && o.Kind != kindHeartbeat, o.Status != 200, o.Degraded, o.ClockSet:
		return 0
	case o.Batch:
		return o.Call + c.ttl*3/4
	}
	return o.Expires
}

// checkLeases checks that etcd lets no lease expire before the time that an answer
// promised. It finds a renewal that was due and was skipped even if a later one keeps the
// stream alive. A leader that was deposed may report an earlier expiry.
func (c *checker) checkLeases() {
	for _, r := range c.leases {
		read := &op{Node: -1, Call: r.sentAt - time.Second, Return: r.receivedAt}
		if !c.users[r.stream.user] || !c.reported(r.stream) || c.etcdWasDisturbed(read) {
			continue
		}
		for _, o := range c.about[r.stream.op] {
			if o.Return <= r.sentAt && c.promisedUntil(o) > r.expires+slack {
				c.errorf("its lease expires before %.3f, and an answer promised %.3f: %v; %v",
					r.expires.Seconds(), c.promisedUntil(o).Seconds(), r.stream, o)
				break
			}
		}
	}
}

// checkNotLate checks that a silent stream expires one TTL after the last work of any node
// for it, unless etcd was disturbed since.
func (c *checker) checkNotLate(l *observedStream) {
	from, _ := c.endedBetween(l)
	active := c.lastActivity(l)
	if late := from - max(active, c.disturbedUntil(from)) - c.ttl; late > 0 {
		c.maxLate = max(c.maxLate, late)
		if late > 2*time.Second+lateSlack {
			c.late("ended %.1f s late: %v, last activity at %.3f", late.Seconds(), l, active.Seconds())
		}
	}
	c.unrequestedEnds++
	c.checkAbandonedStart(l, from)
}

// lastActivity is the maxLate time of any work of a node for a stream.
func (c *checker) lastActivity(l *observedStream) time.Duration {
	last := time.Duration(0)
	for _, o := range c.about[l.op] {
		if o.Kind != kindStop {
			last = max(last, c.workEnds(o))
		}
	}
	return last
}

// checkRefusal checks that no start is rejected because of an expired stream. etcd reports
// the expiry of a lease up to a second late, and revokes the lease at about that time.
func (c *checker) checkRefusal(o *op) {
	for _, n := range o.Active {
		live := c.byOp[n]
		if live == nil {
			c.errorf("refused because of a stream that never existed: %v", o)
			continue
		}
		active := time.Duration(0)
		for _, about := range c.about[n] {
			if about.Kind == kindStart || about.Kind == kindHeartbeat && about.Call <= o.Call {
				active = max(active, c.workEnds(about))
			}
		}
		if o.Call > max(active, c.disturbedUntil(o.Call))+c.ttl+time.Second+lateSlack {
			c.late("refused because of an expired stream: %v; %v, last activity at %.3f", o, live, active.Seconds())
		}
	}
}

// checkAbandonedStart checks that the stream of a start without a response is removed. until
// is the time up to which the stream existed.
func (c *checker) checkAbandonedStart(l *observedStream, until time.Duration) {
	o := c.startOf(l)
	if c.cleanup == 0 || o == nil || c.reported(l) {
		return
	}
	since := max(c.lastActivity(l), c.disturbedUntil(until))
	if until > since+c.cleanup {
		c.late("a start without a response has left its stream for %.1f s: %v; %v", (until - since).Seconds(), l, o)
	}
}

// workEnds is the maxLate time of any work of a node for an operation.
func (c *checker) workEnds(o *op) time.Duration {
	until := o.Return
	if o.unknown() || o.Degraded {
		until = max(until, o.Call+lateWork)
	}
	for _, w := range c.windows {
		for _, n := range w.Nodes {
			if n == o.Node && w.From <= until && w.To+lateWork > until && w.To >= o.Call {
				until = w.To + lateWork
			}
		}
	}
	return until
}

// disturbedUntil is the last time before at when etcd may have renewed all leases, as a new
// leader does, or could not revoke any.
func (c *checker) disturbedUntil(at time.Duration) time.Duration {
	last := time.Duration(0)
	for _, t := range c.terms {
		if t.at <= at {
			last = max(last, t.at+electionMs*time.Millisecond)
		}
	}
	for _, w := range c.windows {
		if w.Etcd && w.From <= at {
			last = max(last, w.To)
		}
	}
	return last
}

// etcdWasDisturbed reports whether etcd may have failed to answer the node that served o.
func (c *checker) etcdWasDisturbed(o *op) bool {
	for _, w := range c.windows {
		if (w.Etcd || slices.Contains(w.Nodes, o.Node)) && w.From <= o.Return && w.To+slack >= o.Call {
			return true
		}
	}
	for _, t := range c.terms[1:] { // the first is from before the round
		if t.at >= o.Call-time.Second && t.at <= o.Return+time.Second {
			return true
		}
	}
	return false
}
