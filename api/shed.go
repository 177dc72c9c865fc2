package api

import (
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
)

// shedder bounds how many starts are served at once, by how long they take. Under
// overload a queue only makes everybody wait; and starts that wait in it hold up the
// heartbeats of those who play. So while starts take much longer than they would
// alone, fewer are let in, and the others are refused at once. Heartbeats and stops
// are never refused for that: they keep, or free, what is there.
type shedder struct {
	most int
	lag  func(now time.Time) time.Duration // how long arrivals wait before they are seen

	mu     sync.Mutex
	limit  float64
	inside int
	full   bool          // somebody was refused in this window
	began  time.Time     // of this window
	sum    time.Duration // of what was served in it
	served int
	quick  quickest
	held   time.Time // until then it goes down no further
}

const (
	shedWindow = 100 * time.Millisecond
	shedFew    = 5 // fewer say nothing
	// shedFloor may be inside whatever they take, so that a service with little to do
	// refuses nobody because etcd is slow.
	shedFloor = 64
	// Starts may take shedPatience, or shedTimes as long as they take at best.
	shedPatience = 100 * time.Millisecond
	shedTimes    = 4
	shedEpoch    = time.Minute // for which the best is remembered, and once more
	// Where arrivals wait for longer than shedLag, heartbeats among them, few starts are
	// let in whatever they take, though that leaves something undone.
	shedLag   = 2 * time.Second
	shedLeast = 8
	shedQuiet = time.Second // of this it is no longer known how many may be let in
)

func newShedder(most int) *shedder {
	return &shedder{most: most, limit: float64(most), lag: func(time.Time) time.Duration { return 0 }}
}

// sheds are the calls that are refused under overload.
var sheds = map[string]bool{"start": true, "list": true, "stats": true}

// serve answers a call by do, or refuses it where there is too much to do.
func (s *Server) serve(op *huma.Operation, w http.ResponseWriter, do func()) {
	if !sheds[op.OperationID] {
		do()
		return
	}
	began := time.Now()
	if !s.shed.enter(began) {
		s.turnedAway.slow.Add(1)
		tooMuch().write(w)
		return
	}
	defer func() {
		now := time.Now()
		s.shed.leave(now, now.Sub(began))
	}()
	do()
}

func tooMuch() *problem {
	return overloaded.problem("The node has more to do than it can. Play on, and try again after the seconds in "+
		"Retry-After.").with("Retry-After", soon())
}

// refuses reports whether nobody may enter at now.
func (s *shedder) refuses(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(now)
	if s.inside < int(s.limit) {
		return false
	}
	s.full = true
	return true
}

// enter reports whether one more may be served at now; leave must be called then.
func (s *shedder) enter(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turn(now)
	if s.inside >= int(s.limit) {
		s.full = true
		return false
	}
	s.inside++
	return true
}

// leave says that one was served, and how long it took.
func (s *shedder) leave(now time.Time, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.inside--
	s.sum += took
	s.served++
	s.turn(now)
}

// turn moves the limit when a window is over: down where everybody waits for long, and
// up again where nobody does, or where there is little to do.
func (s *shedder) turn(now time.Time) {
	if now.Sub(s.began) < shedWindow {
		return
	}
	lag := s.lag(now)
	slow, step := lag > shedLag/2, s.limit/20
	if lag > shedLag && now.After(s.held) {
		s.limit = max(min(shedLeast, s.limit), min(shedFloor, s.limit)/2)
		s.held = now.Add(lag)
	}
	if s.served >= shedFew {
		mean := s.sum / time.Duration(s.served)
		patience := max(shedPatience, shedTimes*s.quick.note(now, mean))
		if mean > patience && now.After(s.held) {
			part := min(max(float64(patience)/float64(mean), 0.1), 0.9)
			s.limit = max(min(shedFloor, s.limit), min(s.limit, float64(s.inside+s.served))*part)
			s.held = now.Add(mean) // whoever is inside now will be as slow, whatever the limit
		}
		slow = slow || mean > patience
		if mean > patience/2 {
			step *= float64(shedWindow) / float64(max(shedWindow, mean)) // nor can more show sooner
		}
	}
	idle := float64(s.inside) < s.limit/2
	switch low := s.limit < shedFloor && lag <= shedLag/2; {
	case low && now.Sub(s.began) > shedQuiet:
		s.limit = shedFloor // nobody came meanwhile
	case low, !slow && (idle || s.full && s.served >= shedFew):
		s.limit += max(1, step)
	}
	s.limit = min(s.limit, float64(s.most))
	s.began, s.sum, s.served, s.full = now, 0, 0, false
}

// quickest is the least of what was noted in this epoch and the last.
type quickest struct {
	began     time.Time
	now, last time.Duration
}

func (q *quickest) note(now time.Time, d time.Duration) time.Duration {
	switch age := now.Sub(q.began); {
	case age > 2*shedEpoch:
		*q = quickest{now, d, d}
	case age > shedEpoch:
		*q = quickest{now, d, q.now}
	}
	q.now = min(q.now, d)
	return min(q.now, q.last)
}
