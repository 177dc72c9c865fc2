package bench

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"streamcount/internal/bench/load"
)

// A fault is something that an answer, or its absence, showed to be wrong.
type fault int

const (
	lost       fault = iota // a stream ended that nobody had ended
	overLimit               // an answer or a listing counts more streams than the limit
	refused                 // a start was refused although a slot was free
	admitted                // a start was admitted although all slots were taken
	remains                 // a stream is there that had been stopped, or never been admitted
	late                    // a stream ended because its heartbeats were not answered in time
	unexpected              // a status that the call should not have had
	malformed               // an answer that cannot be read
	connection              // no answer
	timeout                 // no answer in time
	unsent                  // a request was due, but the backlog was too long
	grown                   // it held more and more
	collapsed               // less was done under overload than the target can do
	overloaded              // 503 or 429: the server said so, and players go on
	degraded                // a heartbeat that was answered without a renewal
	faults
)

var faultNames = [faults]string{
	"lost streams", "over the limit", "wrongly refused", "wrongly admitted", "not ended", "late heartbeats",
	"unexpected status", "malformed answers", "connection errors", "timeouts", "not sent", "growths", "collapses",
	"overload answers", "degraded heartbeats",
}

// harmless faults are shown, but say nothing against the target: it refused
// loudly what it could not do.
func (f fault) harmless() bool { return f == overloaded || f == degraded }

// A tally counts faults, and keeps the first example of each. It is safe for
// concurrent use.
type tally struct {
	counts [faults]atomic.Int64

	mu       sync.Mutex
	examples [faults]string
}

// add counts n faults of a kind; format and args describe the first of them.
func (t *tally) add(f fault, n int64, format string, args ...any) {
	if n <= 0 || t.counts[f].Add(n) > n {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.examples[f] = fmt.Sprintf(format, args...)
}

// failure counts a call that brought no answer.
func (t *tally) failure(err error) {
	var late net.Error
	switch {
	case errors.Is(err, load.ErrMalformed):
		t.add(malformed, 1, "%v", err)
	case errors.As(err, &late) && late.Timeout():
		t.add(timeout, 1, "%v", err)
	default:
		t.add(connection, 1, "%v", err)
	}
}

// total is how many faults of the kinds there were that the target answers
// for.
func (t *tally) total() int64 {
	var n int64
	for f := range faults {
		if !f.harmless() {
			n += t.counts[f].Load()
		}
	}
	return n
}

// unknown is how many calls may have happened or not.
func (t *tally) unknown() int64 {
	var n int64
	for _, f := range []fault{unexpected, malformed, connection, timeout, overloaded} {
		n += t.counts[f].Load()
	}
	return n
}

// A Fault is one kind of fault of a target, over all its runs.
type Fault struct {
	Kind     string `json:"kind"`
	Count    int64  `json:"count"`
	Harmless bool   `json:"harmless,omitempty"` // the target refused loudly what it could not do
	Example  string `json:"example"`
}

// list is what was counted.
func (t *tally) list() []Fault {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []Fault
	for f := range faults {
		if n := t.counts[f].Load(); n > 0 {
			list = append(list, Fault{faultNames[f], n, f.harmless(), t.examples[f]})
		}
	}
	return list
}
