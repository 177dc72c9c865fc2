//go:build linux

package torture

import (
	"sort"
	"time"
)

// A record has what the watcher recorded in one round.
type record struct {
	streams    []*observedStream
	rules      []ruleChange
	violations []string
	readings   []reading
	terms      []termChange
	leases     []leaseReading
	states     map[string][]severalState
	revisions  int
}

// notBefore returns a time before which revision rev was not committed: a read that began
// then returned an older revision.
func (r *record) notBefore(rev int64) time.Duration {
	at := sort.Search(len(r.readings), func(i int) bool { return r.readings[i].rev >= rev })
	if at == 0 {
		return 0
	}
	return r.readings[at-1].sentAt
}

// notAfter returns a time by which revision rev was committed. seen is when the watcher
// received it.
func (r *record) notAfter(rev int64, seen time.Duration) time.Duration {
	at := sort.Search(len(r.readings), func(i int) bool { return r.readings[i].rev >= rev })
	if at < len(r.readings) {
		return min(seen, r.readings[at].receivedAt)
	}
	return seen
}

// createdBetween returns the times between which the stream was put.
func (r *record) createdBetween(l *observedStream) (from, to time.Duration) {
	return r.notBefore(l.created), r.notAfter(l.created, l.createdSeen)
}

// endedBetween returns the times between which the stream ended, or never if it still exists.
func (r *record) endedBetween(l *observedStream) (from, to time.Duration) {
	if l.ended == 0 {
		return never, never
	}
	return r.notBefore(l.ended), r.notAfter(l.ended, l.endedSeen)
}

const never = time.Duration(1<<63 - 1)
