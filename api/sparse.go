package api

import (
	"sync"
	"time"
)

// A sparse lets a few lines of one kind into the log each second, and counts those it
// keeps back: a node that refuses thousands a second has better things to do than to
// write that down thousands of times. Metrics count them all.
type sparse struct {
	mu     sync.Mutex
	second time.Time // when it began
	passed int       // in it
	kept   int64     // since the last that passed
}

const sparseLines = 10 // a second

// pass reports whether a line may be written at now, and how many were kept back
// before it.
func (s *sparse) pass(now time.Time) (kept int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.second) >= time.Second {
		s.second, s.passed = now, 0
	}
	if s.passed >= sparseLines {
		s.kept++
		return 0, false
	}
	kept, s.kept = s.kept, 0
	s.passed++
	return kept, true
}
