package overload

import (
	"sync"
	"time"
)

// A LogSampler limits log lines of one kind to [MaxLinesPerSecond], so that a node that
// rejects thousands of requests a second does not spend its time on the log. Metrics count
// all of them. The zero value is ready to use.
type LogSampler struct {
	mu         sync.Mutex
	second     time.Time // start of the current second
	allowed    int       // lines in it
	suppressed int64     // lines since the last allowed one
}

// MaxLinesPerSecond is how many lines a LogSampler allows each second.
const MaxLinesPerSecond = 10

// Allow reports whether a line may be written at now, and how many lines were suppressed
// since the last allowed one.
func (s *LogSampler) Allow(now time.Time) (suppressed int64, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if now.Sub(s.second) >= time.Second {
		s.second, s.allowed = now, 0
	}
	if s.allowed >= MaxLinesPerSecond {
		s.suppressed++
		return 0, false
	}
	suppressed, s.suppressed = s.suppressed, 0
	s.allowed++
	return suppressed, true
}
