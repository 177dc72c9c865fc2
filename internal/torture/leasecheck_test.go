package torture

import (
	"slices"
	"time"
)

// checkEnd holds the end of a stream against what its clients were told of its
// lease: it never lapses earlier, and not much later.
func (c *checker) checkEnd(l *life) {
	if l.gone == 0 {
		c.checkGhost(l, c.ended) // else the round's end asks for it
		return
	}
	e := c.endOf(l)
	if !e.vanished {
		return
	}
	if !e.unclear && c.told(l) {
		c.checkNotEarly(l)
	}
	c.checkNotLate(l)
}

// checkNotEarly: nobody was promised more time than the stream had.
func (c *checker) checkNotEarly(l *life) {
	from, to := c.goneBetween(l)
	for _, o := range c.about[l.op] {
		told := (o.Kind == kindStart || o.Kind == kindBeat) && o.Status == 200 && !o.Degraded && !o.ClockSet && o.Return <= from
		if told && o.Expires > to+slack {
			c.complain("gone at %.3f, before its time: %v; its client was told: %v", to.Seconds(), l, o)
		}
	}
}

// checkNotLate: a silent stream goes one TTL after the last that any node may
// have done for it, unless etcd was disturbed since.
func (c *checker) checkNotLate(l *life) {
	from, _ := c.goneBetween(l)
	heard := c.lastHeard(l)
	calm := c.disturbedUntil(from)
	if late := from - max(heard, calm) - c.ttl; late > 0 {
		c.latest = max(c.latest, late)
		if late > 2*time.Second+lateSlack {
			c.late("%.1f s late: %v, last heard of at %.3f", late.Seconds(), l, heard.Seconds())
		}
	}
	c.lapses++
	c.checkGhost(l, from)
}

// lastHeard is when a node can have done the last thing for a stream.
func (c *checker) lastHeard(l *life) time.Duration {
	heard := time.Duration(0)
	for _, o := range c.about[l.op] {
		if o.Kind != kindStop {
			heard = max(heard, c.workEnds(o))
		}
	}
	return heard
}

// checkRefusal: 403 is not said because of a stream whose lease has run out. etcd
// tells a lapse only a second after it, and revokes the lease at about that time.
func (c *checker) checkRefusal(o *op) {
	for _, n := range o.Active {
		live := c.byOp[n]
		if live == nil {
			c.complain("refused for a stream that never was: %v", o)
			continue
		}
		heard := time.Duration(0)
		for _, about := range c.about[n] {
			if about.Kind == kindStart || about.Kind == kindBeat && about.Call <= o.Call {
				heard = max(heard, c.workEnds(about))
			}
		}
		if o.Call > max(heard, c.disturbedUntil(o.Call))+c.ttl+time.Second+lateSlack {
			c.late("refused for a stream that has lapsed: %v; %v, last heard of at %.3f", o, live, heard.Seconds())
		}
	}
}

// checkGhost: a start that nobody was told of leaves nothing.
func (c *checker) checkGhost(l *life, there time.Duration) {
	o := c.startOf(l)
	if c.cleanup == 0 || o == nil || c.told(l) {
		return
	}
	since := max(c.lastHeard(l), c.disturbedUntil(there))
	if there > since+c.cleanup {
		c.late("a start that nobody was told of has left its stream for %.1f s: %v; %v", (there - since).Seconds(), l, o)
	}
}

// workEnds is when a node can have done the last thing for an operation.
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

// disturbedUntil is the last moment before at at which etcd may have given all
// leases their time again, or could not end them.
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

// troubled reports whether etcd may have failed to answer the node that served o.
func (c *checker) troubled(o *op) bool {
	for _, w := range c.windows {
		if (w.Etcd || slices.Contains(w.Nodes, o.Node)) && w.From <= o.Return && w.To+slack >= o.Call {
			return true
		}
	}
	for _, t := range c.terms[1:] { // the first is that of the round's begin
		if t.at >= o.Call-time.Second && t.at <= o.Return+time.Second {
			return true
		}
	}
	return false
}
