package api

import (
	"math/bits"
	"sync/atomic"
	"time"

	"streamcount/api/apitype"
)

// A timedCall is a kind of call whose time is noted.
type timedCall int8

const (
	timedNone timedCall = iota
	timedStart
	timedHeartbeat
	timedStop
	timedKinds
)

// timedCalls are the operations whose time is noted. A batch of heartbeats takes as
// long as it has members, so it is none of them.
var timedCalls = map[string]timedCall{
	"start": timedStart, "heartbeat": timedHeartbeat,
	"stop": timedStop, "stop-by-id": timedStop, "stop-by-beacon": timedStop,
}

const (
	latencyWindow  = 10 * time.Second
	latencyWindows = 7 // six whole ones make the last minute, and one fills
	latencySteps   = 16
	latencyBuckets = 24 * latencySteps // up to two minutes
)

// latencies counts how long calls took, in buckets of a sixteenth of a power of two
// of microseconds. To note one costs an addition; nobody waits for anybody.
type latencies [timedKinds][latencyWindows]latencyCounts

type latencyCounts struct {
	window  atomic.Int64 // which one it is, since 1970
	buckets [latencyBuckets]atomic.Uint32
}

// note counts a call that took so long.
func (l *latencies) note(call timedCall, took time.Duration) {
	if call != timedNone {
		l.noteAt(call, took, time.Now())
	}
}

func (l *latencies) noteAt(call timedCall, took time.Duration, now time.Time) {
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

func (l *latencies) read(now time.Time) apitype.Latency {
	return apitype.Latency{
		Start: l.percentiles(timedStart, now), Heartbeat: l.percentiles(timedHeartbeat, now),
		Stop: l.percentiles(timedStop, now),
	}
}

func (l *latencies) percentiles(call timedCall, now time.Time) apitype.Percentiles {
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
