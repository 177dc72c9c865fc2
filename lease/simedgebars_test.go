package lease

import (
	"fmt"
	"time"

	"streamcount/lease/policy"
)

// The bars of the nodes, as the promises of docs/correctness.md describe them. The service has
// these times too, and here they are written again.
const (
	barQuiet      = 15 * time.Second // after the last rejected request
	barEntryQuiet = 5 * time.Second  // the same, for a request with which a viewer begins to play
	barMaxAge     = 10 * time.Minute
)

// edgeNode is what a node has answered to a session since the end of the session's newest stream.
type edgeNode struct {
	end      int64     // revision of that end
	seen     time.Time // when the node was first seen to have applied it
	rejected time.Time // the begin of the latest rejected request
	answered time.Time // the end of that request
	sure     bool      // a request was rejected for this end, and not for one before
	passed   bool      // the node has no bar for this end
}

// An edgeRequest is one request of a session in progress.
type edgeRequest struct {
	key     edgeKey
	node    *Limiter
	from    time.Time
	applied int64 // a revision that the node's replica contained when the request began
	entry   bool  // a viewer begins to play
	look    bool  // it has no effect
	before  edgeNode
}

// stateOf returns the state of a session on a node, after the end with a revision.
func (s *edgeSession) stateOf(l *Limiter, end int64) *edgeNode {
	n := s.nodes[l]
	if n == nil || n.end != end {
		n = &edgeNode{end: end}
		s.nodes[l] = n
	}
	return n
}

// becameCurrent records that the replica of a node is current for the first time.
func (c *edgeChecker) becameCurrent(l *Limiter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.current[l] = time.Now()
}

// request records the begin of a request. The session has no other ones in progress that
// began earlier.
func (c *edgeChecker) request(key edgeKey, l *Limiter, entry, look bool) edgeRequest {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := edgeRequest{key: key, node: l, from: time.Now(), applied: l.replica.AppliedRevision(), entry: entry, look: look}
	s := c.session(key)
	if end := s.barred(); end != nil && end.revision <= r.applied {
		n := s.stateOf(l, end.revision)
		if n.seen.IsZero() {
			n.seen = r.from
		}
		r.before = *n
	}
	return r
}

// allow checks that the node has not applied the end of the stream for which it has allowed a
// request. kept means that it has renewed the lease if that was due.
func (c *edgeChecker) allow(r edgeRequest, nonce string, kept bool) (wrong string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.session(r.key)
	if end, ended := s.over[nonce]; ended && end <= r.applied {
		return fmt.Sprintf("a request of %s was allowed for a stream that ended at revision %d, by a node that has applied revision %d",
			r.key, end, r.applied)
	}
	if kept && s.stream.Nonce == nonce {
		s.allowed = time.Now()
	}
	return ""
}

// pass checks that a node without a stream of the session need not have a bar of it.
func (c *edgeChecker) pass(r edgeRequest) (wrong string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.session(r.key)
	end := s.barred()
	if end == nil || end.revision > r.applied {
		return ""
	}
	n := s.stateOf(r.node, end.revision)
	age, quiet := time.Since(end.at), barQuiet
	if r.entry {
		quiet = barEntryQuiet
	}
	must := false
	switch {
	case n.passed || !c.has(r.node, end) || age >= barMaxAge:
	case end.reason == string(policy.ReasonEvicted) && age < c.cooldown:
		must = true
	case n.rejected.IsZero():
		must = !r.entry || age < quiet
	default:
		must = time.Since(n.rejected) < quiet
	}
	if must {
		return fmt.Sprintf("%s is not barred %v after its stream was ended (%s) and %v after its last request (of a viewer who begins: %v)",
			r.key, age, end.reason, time.Since(n.rejected), r.entry)
	}
	n.passed = n.passed || !r.look
	c.done["edge: a bar has ended"]++
	return ""
}

// reject checks that a session with a bar had a stream that was ended on purpose, and that the bar
// must not have ended. atStart means that a start has reported it.
func (c *edgeChecker) reject(r edgeRequest, by *EndedError, atStart bool) (wrong string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.session(r.key)
	if !c.mayBeBarred(s, r.node, r.applied, string(by.Reason)) {
		return fmt.Sprintf("%s is barred (%s), and its newest stream was not ended so (%q; the node has applied revision %d; it was current at %v)",
			r.key, by.Reason, s.recent, r.applied, c.current[r.node].Sub(simBegin))
	}
	end := s.barred()
	if end == nil {
		return ""
	}
	if !atStart && end.revision == r.before.end && end.reason == string(by.Reason) && c.hasEnded(r, end) {
		return fmt.Sprintf("%s is barred (%s), %v after its stream was ended, and %v after its last request (of a viewer who begins: %v)",
			r.key, by.Reason, time.Since(end.at), r.from.Sub(r.before.answered), r.entry)
	}
	if r.look {
		return ""
	}
	n := s.stateOf(r.node, end.revision)
	began := r.from
	if sure := end.revision <= r.applied; sure || n.rejected.IsZero() {
		if !sure && end.at.Before(began) {
			began = end.at
		}
		n.sure = n.sure || sure
		if began.After(n.rejected) {
			n.rejected = began
		}
	}
	n.answered = time.Now()
	return ""
}

// hasEnded reports whether the bar of an end must have ended before a request.
func (c *edgeChecker) hasEnded(r edgeRequest, end *edgeEnd) bool {
	n, quiet := r.before, barQuiet
	if r.entry {
		quiet = barEntryQuiet
	}
	age := r.from.Sub(n.seen) // at least
	switch {
	case n.passed || age >= barMaxAge:
		return true
	case !n.sure && !r.entry, end.reason == string(policy.ReasonEvicted) && age < c.cooldown:
		return false // a first request does not show for how long the session was quiet
	case n.answered.IsZero():
		return age >= quiet
	}
	return r.from.Sub(n.answered) >= quiet
}

// has reports whether a node must have received an end: from its watch, or from the tombstones that
// exist when it starts. A tombstone exists for three quarters of a TTL.
func (c *edgeChecker) has(l *Limiter, end *edgeEnd) bool {
	current, ok := c.current[l]
	return ok && end.at.Add(c.ttl*3/4).After(current)
}

// mayStart reports whether a node with an implicit start of the session in progress may have no bar.
func (c *edgeChecker) mayStart(s *edgeSession, end *edgeEnd) bool {
	for _, start := range s.starts {
		if n := s.stateOf(start.node, end.revision); n.passed || !c.has(start.node, end) {
			return true
		}
	}
	return false
}

// mayBeBarred reports whether a stream of the session was ended on purpose, for a reason, and
// no later one was put up to a revision. A node that starts reads the tombstones that exist. It may
// have the bar of an end although there was a later stream, if that has ended too, and one of a
// decision that has failed.
func (c *edgeChecker) mayBeBarred(s *edgeSession, l *Limiter, applied int64, reason string) bool {
	lifted := func(end edgeEnd) bool {
		for _, put := range s.puts {
			if put.revision > end.revision && put.revision <= applied && !c.mayHaveMissed(l, put.at) {
				return true
			}
		}
		return false
	}
	for _, end := range s.ends {
		if (end.reason == "" || end.reason == reason) && !lifted(end) {
			return true
		}
	}
	for _, end := range s.failed {
		if end.reason == reason && c.mayHaveMissed(l, end.at) && !lifted(end) {
			return true
		}
	}
	return false
}

// mayHaveMissed reports whether a node may have read etcd for the first time after a time.
func (c *edgeChecker) mayHaveMissed(l *Limiter, t time.Time) bool {
	current, ok := c.current[l]
	return !ok || t.Before(current)
}
