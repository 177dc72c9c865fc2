package torture

import (
	"sort"
	"time"
)

// A record is what the watcher saw in one round.
type record struct {
	lives      []*life
	rules      []ruleChange
	complaints []string
	readings   []reading
	terms      []change
	revisions  int
}

// notBefore is a time before which revision rev was surely not committed: a read
// that began then was told of an older one.
func (r *record) notBefore(rev int64) time.Duration {
	at := sort.Search(len(r.readings), func(i int) bool { return r.readings[i].rev >= rev })
	if at == 0 {
		return 0
	}
	return r.readings[at-1].asked
}

// notAfter is a time after which it surely was, given when it was seen.
func (r *record) notAfter(rev int64, seen time.Duration) time.Duration {
	at := sort.Search(len(r.readings), func(i int) bool { return r.readings[i].rev >= rev })
	if at < len(r.readings) {
		return min(seen, r.readings[at].told)
	}
	return seen
}

// bornBetween is when the stream came to be.
func (r *record) bornBetween(l *life) (from, to time.Duration) {
	return r.notBefore(l.born), r.notAfter(l.born, l.bornSeen)
}

// goneBetween is when the stream went; never, for one that lives.
func (r *record) goneBetween(l *life) (from, to time.Duration) {
	if l.gone == 0 {
		return never, never
	}
	return r.notBefore(l.gone), r.notAfter(l.gone, l.goneSeen)
}

const never = time.Duration(1<<63 - 1)
