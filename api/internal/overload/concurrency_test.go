package overload

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A queueSim serves one call after the other, so the latency grows with the number of calls.
type queueSim struct {
	*concurrencyLimiter
	now     time.Time
	each    time.Duration // service time of a call
	least   time.Duration // added latency of a call
	done    time.Time     // when the last call ends
	refused int
}

func noDelay(time.Time) time.Duration { return 0 }

// offer sends calls at a rate for d. It returns the rate of successful calls and the highest
// latency of the second half.
func (r *queueSim) offer(rate float64, d time.Duration) (goodput float64, slowest time.Duration) {
	end, served := r.now.Add(d), 0
	half := r.now.Add(d / 2)
	gap := time.Duration(float64(time.Second) / rate)
	type call struct{ in, out time.Time }
	var running []call
	for ; r.now.Before(end); r.now = r.now.Add(gap) {
		for len(running) > 0 && !running[0].out.After(r.now) {
			latency := running[0].out.Sub(running[0].in)
			r.release(running[0].out, latency)
			if running[0].out.After(half) {
				served++
				slowest = max(slowest, latency)
			}
			running = running[1:]
		}
		if !r.acquire(r.now) {
			r.refused++
			continue
		}
		r.done = r.done.Add(r.each)
		if soonest := r.now.Add(r.each); r.done.Before(soonest) {
			r.done = soonest
		}
		running = append(running, call{r.now, r.done.Add(r.least)})
	}
	for _, l := range running {
		r.release(l.out, l.out.Sub(l.in))
		r.now = l.out
	}
	return float64(served) / (d / 2).Seconds(), slowest
}

// For any capacity and any distance to etcd: below the capacity no call is rejected; far
// above it the throughput stays near the capacity and the latency stays bounded.
func TestConcurrencyLimiter_KeepsThroughput(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		capacity := float64(rapid.IntRange(200, 3_000).Draw(t, "capacity"))
		least := time.Duration(rapid.SampledFrom([]int{1, 10, 120, 300}).Draw(t, "ms")) * time.Millisecond
		r := &queueSim{
			concurrencyLimiter: newConcurrencyLimiter(4096, noDelay), now: time.Now(), each: time.Duration(float64(time.Second) / capacity), least: least,
		}
		r.offer(capacity/2, 2*time.Second)
		if capacity/2*least.Seconds() < 4*softFloor {
			require.Zero(t, r.refused, "at half of the capacity")
		}
		r.offer(capacity*0.9, 10*time.Second) // adapts the limit
		good, slowest := r.offer(3*capacity, 8*time.Second)
		could := min(capacity, 4096/least.Seconds())
		require.Greater(t, good, 0.8*could, "of %.0f a second", could)
		require.Less(t, slowest, 4*max(minHighLatency, latencyFactor*least)+time.Duration(softFloor/capacity*1e9))
		require.Zero(t, r.inFlight)
		r.refused = 0
		good, _ = r.offer(could/2, 4*time.Second)
		require.Greater(t, good, 0.7*could/2, "after the overload")
	})
}

// A node with few calls does not reject them because etcd is slow, such as during a leader
// election.
func TestConcurrencyLimiter_SoftFloor(t *testing.T) {
	s, now := newConcurrencyLimiter(4096, noDelay), time.Now()
	for range 200 {
		for range softFloor / 2 {
			require.True(t, s.acquire(now))
		}
		now = now.Add(3 * time.Second)
		for range softFloor / 2 {
			s.release(now, 3*time.Second)
		}
	}
	assert.GreaterOrEqual(t, s.limit, float64(softFloor))
}

// A high scheduler delay reduces the limit to the hard floor, whatever the latency of the
// calls. When the delay ends, the limit rises again.
func TestConcurrencyLimiter_SchedulerDelay(t *testing.T) {
	s, now, delay := newConcurrencyLimiter(4096, nil), time.Now(), time.Duration(0)
	s.delay = func(time.Time) time.Duration { return delay }
	// offer returns how many of 500 concurrent calls are accepted in the last interval.
	offer := func(d time.Duration) (in int) {
		for end := now.Add(d); now.Before(end); {
			in = 0
			for range 500 {
				if s.acquire(now) {
					in++
				}
			}
			now = now.Add(adjustInterval)
			for range in {
				s.release(now, time.Millisecond)
			}
		}
		return in
	}
	assert.Equal(t, 500, offer(time.Second))
	delay = maxDelay / 3
	assert.Equal(t, 500, offer(10*time.Second), "below the threshold")
	delay = 2 * maxDelay
	assert.Equal(t, hardFloor, offer(10*time.Second))
	delay = maxDelay * 3 / 4
	assert.Equal(t, hardFloor, offer(time.Second), "no growth yet")
	delay = 0
	assert.Equal(t, 500, offer(20*time.Second))
}

// After the delay the limit recovers, also when etcd is slow and few calls end in an
// interval, and when no calls arrive for a while.
func TestConcurrencyLimiter_Recovers(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		s, now, delay := newConcurrencyLimiter(4096, nil), time.Now(), 2*maxDelay
		s.delay = func(time.Time) time.Duration { return delay }
		type start struct{ out time.Time }
		var inside []start
		step := func(took time.Duration) { // 20 calls arrive in 10 ms
			now = now.Add(10 * time.Millisecond)
			for len(inside) > 0 && !inside[0].out.After(now) {
				s.release(now, took)
				inside = inside[1:]
			}
			for range 20 {
				if s.acquire(now) {
					inside = append(inside, start{now.Add(took)})
				}
			}
		}
		for range 100 {
			step(10 * time.Millisecond) // the baseline
		}
		for range 1000 {
			step(500 * time.Millisecond)
		}
		require.Less(t, s.limit, float64(softFloor)/2)
		delay = 0
		if quiet {
			now = now.Add(2 * idleReset)
			require.True(t, s.acquire(now))
			s.release(now, 0)
			assert.GreaterOrEqual(t, s.limit, float64(softFloor))
			continue
		}
		for range 1000 {
			step(500 * time.Millisecond)
		}
		assert.GreaterOrEqual(t, s.limit, float64(softFloor))
	}
}
