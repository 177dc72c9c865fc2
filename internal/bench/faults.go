package bench

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"streamcount/internal/bench/load"
)

// A faultKind is a kind of error that an answer, or a missing answer, shows.
type faultKind int

const (
	faultLostStream       faultKind = iota // a stream ended although no call had ended it
	faultOverLimit                         // an answer or a listing counts more streams than the limit
	faultWrongRefusal                      // a start was refused although a slot was free
	faultWrongAdmission                    // a start was admitted although all slots were taken
	faultNotEnded                          // a stream exists that was stopped or not admitted
	faultLateHeartbeat                     // a stream ended because its heartbeats were not answered in time
	faultUnexpectedStatus                  // a status that the call must not have
	faultMalformed                         // an answer that cannot be parsed
	faultConnection                        // no answer
	faultTimeout                           // no answer in time
	faultUnsent                            // a request was due, but the backlog was too long
	faultGrowth                            // memory, file descriptors or goroutines grew
	faultCollapse                          // throughput fell too much under overload
	faultOverload                          // 503 or 429: players retry
	faultDegraded                          // a heartbeat was answered without a renewal
	faultKinds
)

var faultNames = [faultKinds]string{
	"lost streams", "over the limit", "wrongly refused", "wrongly admitted", "not ended", "late heartbeats",
	"unexpected status", "malformed answers", "connection errors", "timeouts", "not sent", "growths", "collapses",
	"overload answers", "degraded heartbeats",
}

// harmless reports whether the fault is not an error of the target: the answer declares
// that the target is overloaded, and players retry.
func (f faultKind) harmless() bool { return f == faultOverload || f == faultDegraded }

// A faultCounter counts faults and stores the first example of each kind. It is safe
// for concurrent use.
type faultCounter struct {
	counts [faultKinds]atomic.Int64

	mu       sync.Mutex
	examples [faultKinds]string
}

// add counts n faults of a kind. format and args describe the example.
func (t *faultCounter) add(f faultKind, n int64, format string, args ...any) {
	if n <= 0 || t.counts[f].Add(n) > n {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.examples[f] = fmt.Sprintf(format, args...)
}

// addCallError counts a call without an answer.
func (t *faultCounter) addCallError(err error) {
	var netErr net.Error
	switch {
	case errors.Is(err, load.ErrMalformed):
		t.add(faultMalformed, 1, "%v", err)
	case errors.As(err, &netErr) && netErr.Timeout():
		t.add(faultTimeout, 1, "%v", err)
	default:
		t.add(faultConnection, 1, "%v", err)
	}
}

// total returns the number of faults that are not harmless.
func (t *faultCounter) total() int64 {
	var n int64
	for f := range faultKinds {
		if !f.harmless() {
			n += t.counts[f].Load()
		}
	}
	return n
}

// unknownOutcomes returns the number of calls that may or may not have had an effect.
func (t *faultCounter) unknownOutcomes() int64 {
	var n int64
	for _, f := range []faultKind{faultUnexpectedStatus, faultMalformed, faultConnection, faultTimeout, faultOverload} {
		n += t.counts[f].Load()
	}
	return n
}

// A Fault is one kind of fault of a target, over all its runs.
type Fault struct {
	Kind     string `json:"kind"`
	Count    int64  `json:"count"`
	Harmless bool   `json:"harmless,omitempty"` // see faultKind.harmless
	Example  string `json:"example"`
}

// list returns the faults that occurred.
func (t *faultCounter) list() []Fault {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []Fault
	for f := range faultKinds {
		if n := t.counts[f].Load(); n > 0 {
			list = append(list, Fault{faultNames[f], n, f.harmless(), t.examples[f]})
		}
	}
	return list
}
