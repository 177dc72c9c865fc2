package lease

import (
	"crypto/rand"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// FeedSize is how many events a [Feed] keeps for those who come back, or are slow.
const FeedSize = 1 << 14

// A Feed is what happens to the streams of all users, as one node learns of it:
// its last [FeedSize] events, and counts. Give it to the limiters of the node as
// [Config.Feed].
//
// Whoever publishes waits for nobody who follows: followers read the events where
// they lie, without a lock, and one that is overtaken is told so.
type Feed struct {
	boot string // tells it from the feeds of other nodes, and of an earlier process
	ring []atomic.Pointer[Event]
	next atomic.Uint64 // of the event to come; the first is 1
	born time.Time

	mu      sync.Mutex // never held while anybody waits
	tellers map[string]*teller
	wake    chan struct{} // closed when there is something new for those who wait
	waiting atomic.Int64
	several atomic.Bool // tellers

	starts, stops, expiries, refusals, admitted atomic.Int64

	peaks peaks
}

// NewFeed returns a Feed that knows of nothing.
func NewFeed() *Feed { return newFeed(FeedSize) }

func newFeed(size int) *Feed {
	f := &Feed{
		boot: strings.ToLower(rand.Text()[:8]), ring: make([]atomic.Pointer[Event], size), born: time.Now(),
		tellers: make(map[string]*teller), wake: make(chan struct{}),
	}
	f.next.Store(1)
	f.peaks.reset(f.born)
	return f
}

// Activity counts what happened since a node has started. Starts, stops and
// expiries are those of all nodes, as far as this one has seen them happen; what it
// admitted and refused are its own.
type Activity struct {
	Starts, Stops, Expiries int64
	Admitted, Refused       int64
}

// Activity returns the counts.
func (f *Feed) Activity() Activity {
	return Activity{
		Starts: f.starts.Load(), Stops: f.stops.Load(), Expiries: f.expiries.Load(),
		Admitted: f.admitted.Load(), Refused: f.refusals.Load(),
	}
}

// enter makes a teller one of those that the feed consists of, in the place of an
// earlier one of that name.
func (s *teller) enter() {
	if s == nil {
		return
	}
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	if old := s.feed.tellers[s.name]; old != nil {
		old.out.Store(true)
	}
	s.feed.tellers[s.name] = s
	s.feed.several.Store(len(s.feed.tellers) > 1)
}

func (s *teller) leave() {
	if s == nil {
		return
	}
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	if s.feed.tellers[s.name] == s {
		delete(s.feed.tellers, s.name)
		s.feed.several.Store(len(s.feed.tellers) > 1)
	}
	s.out.Store(true)
}

// publish adds events of one teller; with is called while nobody else publishes.
func (f *Feed) publish(events []*Event, with func()) {
	f.mu.Lock()
	for _, e := range events {
		e.seq = f.next.Load()
		slot := &f.ring[e.seq%uint64(len(f.ring))]
		if old := slot.Load(); old != nil && old.place != (place{}) && old.from.base.before(old.place) {
			old.from.base = old.place
		}
		slot.Store(e)
		f.next.Store(e.seq + 1)
		if e.place != (place{}) {
			e.from.last = e.place
		}
	}
	if with != nil {
		with()
	}
	f.mu.Unlock()
	f.wakeAll()
}

// wakeAll wakes those who wait, if anybody does.
func (f *Feed) wakeAll() {
	if f.waiting.Load() == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.wake)
	f.wake = make(chan struct{})
}

// at is an event; nil if it has been overwritten, or is still to come.
func (f *Feed) at(seq uint64) *Event {
	e := f.ring[seq%uint64(len(f.ring))].Load()
	if e == nil || e.seq != seq {
		return nil
	}
	return e
}

// oldestLocked is the number of the oldest event that is kept.
func (f *Feed) oldestLocked() uint64 {
	next, size := f.next.Load(), uint64(len(f.ring))
	if next <= size {
		return 1
	}
	return next - size
}
