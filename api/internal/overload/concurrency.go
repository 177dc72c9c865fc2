package overload

import (
	"sync"
	"time"
)

// A concurrencyLimiter limits how many calls of one kind run at the same time, by their
// latency. It is a gradient limiter: it compares the mean latency of each interval with the
// lowest mean of the last minutes, and with the scheduler delay. When the latency is too
// high it reduces the limit in proportion; when the latency is low, or when the limit is
// not used, it raises the limit by 5 %.
type concurrencyLimiter struct {
	max   int
	delay func(now time.Time) time.Duration // the scheduler delay

	mu            sync.Mutex
	limit         float64
	inFlight      int
	intervalStart time.Time
	totalLatency  time.Duration // of the calls that ended in this interval
	samples       int           // their number
	rejected      bool          // whether a call was rejected in this interval
	baseline      minLatency
	cooldownUntil time.Time // the limit is not reduced before
}

const (
	adjustInterval = 100 * time.Millisecond
	minSamples     = 5 // an interval with fewer calls does not show whether the latency is high
	// Latency is high when it exceeds latencyFactor times the baseline and minHighLatency.
	latencyFactor  = 4
	minHighLatency = 100 * time.Millisecond
	// High latency does not reduce the limit below softFloor, so that a node with little
	// load does not reject calls because etcd is slow.
	softFloor = 64
	// A scheduler delay above maxDelay also delays heartbeats. It reduces the limit down to
	// hardFloor, even if that leaves capacity unused.
	maxDelay  = 2 * time.Second
	hardFloor = 8
	// After an interval longer than idleReset the limit returns to softFloor.
	idleReset = time.Second
)

func newConcurrencyLimiter(limit int, delay func(time.Time) time.Duration) *concurrencyLimiter {
	return &concurrencyLimiter{max: limit, limit: float64(limit), delay: delay}
}

// acquire reports whether one more call may run. The caller must then call release.
func (l *concurrencyLimiter) acquire(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.adjust(now)
	if l.inFlight >= int(l.limit) {
		l.rejected = true
		return false
	}
	l.inFlight++
	return true
}

// release ends a call.
func (l *concurrencyLimiter) release(now time.Time, latency time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.inFlight--
	l.totalLatency += latency
	l.samples++
	l.adjust(now)
}

// adjust changes the limit at the end of an interval.
func (l *concurrencyLimiter) adjust(now time.Time) {
	if now.Sub(l.intervalStart) < adjustInterval {
		return
	}
	delay := l.delay(now)
	slow, step := delay > maxDelay/2, l.limit/20
	if delay > maxDelay && now.After(l.cooldownUntil) {
		l.limit = max(min(hardFloor, l.limit), min(softFloor, l.limit)/2)
		l.cooldownUntil = now.Add(delay)
	}
	if l.samples >= minSamples {
		mean := l.totalLatency / time.Duration(l.samples)
		high := max(minHighLatency, latencyFactor*l.baseline.observe(now, mean))
		if mean > high && now.After(l.cooldownUntil) {
			factor := min(max(float64(high)/float64(mean), 0.1), 0.9)
			l.limit = max(min(softFloor, l.limit), min(l.limit, float64(l.inFlight+l.samples))*factor)
			l.cooldownUntil = now.Add(mean) // the calls that are now in flight do not show the effect
		}
		slow = slow || mean > high
		if mean > high/2 {
			// The effect of a step shows after one mean latency, so the growth is limited to one
			// step in that time.
			step *= float64(adjustInterval) / float64(max(adjustInterval, mean))
		}
	}
	unused := float64(l.inFlight) < l.limit/2
	switch belowFloor := l.limit < softFloor && delay <= maxDelay/2; {
	case belowFloor && now.Sub(l.intervalStart) > idleReset:
		l.limit = softFloor
	case belowFloor, !slow && (unused || l.rejected && l.samples >= minSamples):
		l.limit += max(1, step)
	}
	l.limit = min(l.limit, float64(l.max))
	l.intervalStart, l.totalLatency, l.samples, l.rejected = now, 0, 0, false
}

// A minLatency is the lowest latency of the current and the previous window.
type minLatency struct {
	windowStart       time.Time
	current, previous time.Duration
}

const minLatencyWindow = time.Minute

// observe adds a latency and returns the lowest one.
func (m *minLatency) observe(now time.Time, latency time.Duration) time.Duration {
	switch age := now.Sub(m.windowStart); {
	case age > 2*minLatencyWindow:
		*m = minLatency{now, latency, latency}
	case age > minLatencyWindow:
		*m = minLatency{now, latency, m.current}
	}
	m.current = min(m.current, latency)
	return min(m.current, m.previous)
}
