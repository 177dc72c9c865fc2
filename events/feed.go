package events

import (
	"crypto/rand"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// FeedSize is the number of events that a [Feed] holds.
const FeedSize = 1 << 14

// A Feed holds the last [FeedSize] events of a node, and counts events. Give
// [Feed.Publisher] to each limiter of the node as its observer.
//
// Publishing never waits for followers. They read the ring of events without a lock,
// and a follower that is overtaken receives a gap event.
type Feed struct {
	id      string // distinguishes the feed from those of other nodes and of earlier processes
	ring    []atomic.Pointer[Event]
	next    atomic.Uint64 // number of the next event; the first is 1
	created time.Time

	mu         sync.Mutex // never held while waiting
	publishers map[string]*Publisher
	wake       chan struct{} // closed by the next event
	waiting    atomic.Int64  // followers in Wait
	multiShard atomic.Bool   // there are several publishers

	starts, stops, expiries, refusals, admitted atomic.Int64

	daily dailyConcurrency
}

// NewFeed returns an empty Feed.
func NewFeed() *Feed { return newFeed(FeedSize) }

func newFeed(size int) *Feed {
	f := &Feed{
		id: strings.ToLower(rand.Text()[:8]), ring: make([]atomic.Pointer[Event], size), created: time.Now(),
		publishers: make(map[string]*Publisher), wake: make(chan struct{}),
	}
	f.next.Store(1)
	f.daily.reset(f.created)
	return f
}

// Activity counts events since the node started. Starts, stops and expiries are those
// of all nodes that this node observed. Admitted and Refused count the starts that this
// node admitted and rejected.
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

// publish adds events of one publisher. It calls with, if not nil, under the lock.
func (f *Feed) publish(events []*Event, with func()) {
	f.mu.Lock()
	for _, e := range events {
		e.seq = f.next.Load()
		slot := &f.ring[e.seq%uint64(len(f.ring))]
		if old := slot.Load(); old != nil && old.position != (position{}) && old.publisher.base.before(old.position) {
			old.publisher.base = old.position
		}
		slot.Store(e)
		f.next.Store(e.seq + 1)
		if e.position != (position{}) {
			e.publisher.last = e.position
		}
	}
	if with != nil {
		with()
	}
	f.mu.Unlock()
	f.wakeAll()
}

// wakeAll wakes the waiting followers.
func (f *Feed) wakeAll() {
	if f.waiting.Load() == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.wake)
	f.wake = make(chan struct{})
}

// event returns an event; nil if it was overwritten or not published yet.
func (f *Feed) event(seq uint64) *Event {
	e := f.ring[seq%uint64(len(f.ring))].Load()
	if e == nil || e.seq != seq {
		return nil
	}
	return e
}

// oldestLocked returns the number of the oldest event in the ring.
func (f *Feed) oldestLocked() uint64 {
	next, size := f.next.Load(), uint64(len(f.ring))
	if next <= size {
		return 1
	}
	return next - size
}
