// Package latency counts how long calls take, and returns percentiles of the last minute.
package latency

import (
	"math/bits"
	"sync/atomic"
	"time"

	"streamcount/api/apitype"
)

// A Call is a kind of call whose duration is recorded.
type Call int8

// The calls. The zero Call is not recorded. There is none for batches of heartbeats, whose
// duration depends on their size.
const (
	none Call = iota
	Start
	Heartbeat
	Stop
	timedKinds
)

const (
	latencyWindow  = 10 * time.Second
	latencyWindows = 7 // six complete ones for the last minute, and the current one
	latencySteps   = 16
	latencyBuckets = 24 * latencySteps // up to two minutes
)

// A Recorder counts the durations of calls, in buckets of a sixteenth of a power of two of
// microseconds. Recording a call is one atomic addition.
type Recorder [timedKinds][latencyWindows]latencyCounts

type latencyCounts struct {
	window  atomic.Int64 // its number since 1970
	buckets [latencyBuckets]atomic.Uint32
}

// Observe records the duration of a call that has ended now.
func (l *Recorder) Observe(call Call, took time.Duration) {
	if call != none {
		l.ObserveAt(call, took, time.Now())
	}
}

// ObserveAt records the duration of a call that ended at now.
func (l *Recorder) ObserveAt(call Call, took time.Duration, now time.Time) {
	window := now.UnixNano() / int64(latencyWindow)
	c := &l[call][window%latencyWindows]
	if old := c.window.Load(); old != window && c.window.CompareAndSwap(old, window) {
		for i := range c.buckets { // a few that are noted meanwhile are lost with the old ones
			c.buckets[i].Store(0)
		}
	}
	c.buckets[latencyBucket(took)].Add(1)
}

// latencyBucket is where a duration is counted.
func latencyBucket(took time.Duration) int {
	us := uint64(max(took.Microseconds(), 0))
	if us < latencySteps {
		return int(us)
	}
	power := bits.Len64(us) - 5 // so that us>>power is 16 to 31
	return min((power+1)*latencySteps+int(us>>power)-latencySteps, latencyBuckets-1)
}

// latencyOf is the middle of a bucket, in milliseconds.
func latencyOf(bucket int) float64 {
	if bucket < latencySteps {
		return float64(bucket) / 1000
	}
	power := bucket/latencySteps - 1
	low := uint64(bucket%latencySteps+latencySteps) << power
	return (float64(low) + float64(uint64(1)<<power)/2) / 1000
}

func (l *Recorder) Read(now time.Time) apitype.Latency {
	return apitype.Latency{
		Start: l.Percentiles(Start, now), Heartbeat: l.Percentiles(Heartbeat, now),
		Stop: l.Percentiles(Stop, now),
	}
}

// Percentiles returns the percentiles of a call over the last minute.
func (l *Recorder) Percentiles(call Call, now time.Time) apitype.Percentiles {
	var sum [latencyBuckets]int64
	var p apitype.Percentiles
	window := now.UnixNano() / int64(latencyWindow)
	for i := range l[call] {
		c := &l[call][i]
		if age := window - c.window.Load(); age < 0 || age >= latencyWindows {
			continue
		}
		for b := range sum {
			n := int64(c.buckets[b].Load())
			sum[b] += n
			p.Count += n
		}
	}
	for _, want := range []struct {
		out  *float64
		rank int64 // how many calls were as fast, or faster
	}{{&p.P50, (p.Count + 1) / 2}, {&p.P95, (p.Count*95 + 99) / 100}, {&p.P99, (p.Count*99 + 99) / 100}} {
		var below int64
		for b, n := range sum {
			if below += n; n > 0 && below >= want.rank {
				*want.out = latencyOf(b)
				break
			}
		}
	}
	return p
}
