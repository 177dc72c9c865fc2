package load

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOpen_ConstantArrivals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		var mu sync.Mutex
		due := map[int64]time.Duration{}
		p := Plan{Rate: 50, Duration: 2 * time.Second, Workers: 4, sleep: time.Sleep}
		left := p.Run(t.Context(), func(_ int, n int64, at time.Time) {
			mu.Lock()
			defer mu.Unlock()
			due[n] = at.Sub(begin)
			assert.Equal(t, time.Since(begin), due[n], "done when it was due")
		})
		assert.Zero(t, left)
		require.Len(t, due, 100)
		for n, at := range due {
			assert.Equal(t, time.Duration(n)*20*time.Millisecond, at)
		}
	})
}

// A stall of the server counts for every request that is due during the stall, although
// the generator cannot send these requests. A closed loop would omit them.
func TestOpen_NoCoordinatedOmission(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		s := NewSeries(begin, time.Second)
		p := Plan{Rate: 100, Duration: 3 * time.Second, Workers: 1, Grace: time.Minute, sleep: time.Sleep}
		left := p.Run(t.Context(), func(_ int, n int64, due time.Time) {
			time.Sleep(time.Millisecond)
			if n == 100 {
				time.Sleep(time.Second)
			}
			s.Add(time.Now(), time.Since(due), 1)
		})
		assert.Zero(t, left)
		sum := s.Summary()
		require.EqualValues(t, 300, sum.Count, "the stall loses no arrival")
		assert.InDelta(t, 1001, sum.Quantile(100).Milliseconds(), 2)
		// The arrivals of that second waited between 1 s and 0 s.
		var late int64
		for _, bar := range sum.Hist.Distribution() {
			if bar.From > 100_000 {
				late += bar.Count
			}
		}
		assert.InDelta(t, 100, late, 5)
		assert.InDelta(t, time.Millisecond, sum.Quantile(50), float64(20*time.Microsecond))
	})
}

func TestOpen_DropsBacklogAfterGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := Plan{Rate: 100, Duration: time.Second, Workers: 1, Grace: time.Second, sleep: time.Sleep}
		done := 0
		left := p.Run(t.Context(), func(int, int64, time.Time) { done++; time.Sleep(100 * time.Millisecond) })
		assert.EqualValues(t, 100, left+int64(done))
		assert.InDelta(t, 21, done, 2)
		assert.Less(t, time.Since(begin), 2500*time.Millisecond)
	})
}

func TestOpen_EndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		done := 0
		p := Plan{Rate: 0.2, Workers: 1, sleep: time.Sleep}
		p.Run(ctx, func(int, int64, time.Time) { done++ })
		assert.Equal(t, 1, done)
		assert.Less(t, time.Since(begin), 1200*time.Millisecond)
	})
}

func TestClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		seen := map[int64]int{}
		work := func(_ int, n int64, _ time.Time) {
			time.Sleep(10 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			seen[n]++
		}
		Plan{Duration: time.Second, Workers: 3}.Run(t.Context(), work)
		assert.Len(t, seen, 300)
		clear(seen)
		Plan{Count: 50, Workers: 8}.Run(t.Context(), work)
		assert.Len(t, seen, 50)
	})
}

// No arrival is started before it is due, by the real clock.
func TestOpen_RealClock(t *testing.T) {
	s := NewSeries(time.Now(), time.Second)
	begin := time.Now()
	p := Plan{Rate: 2000, Duration: 300 * time.Millisecond, Workers: 4, Grace: time.Second}
	p.Run(t.Context(), func(_ int, _ int64, due time.Time) { s.Add(time.Now(), time.Since(due), 1) })
	assert.EqualValues(t, 600, s.Summary().Count)
	assert.GreaterOrEqual(t, time.Since(begin), 299*time.Millisecond)
	t.Logf("woken late by %v (median)", s.Summary().Quantile(50))
}

func TestSeries(t *testing.T) {
	begin := time.Now()
	s := NewSeries(begin, time.Second)
	at := func(d time.Duration) time.Time { return begin.Add(d) }
	s.Add(at(100*time.Millisecond), time.Millisecond, 1)
	s.Add(at(900*time.Millisecond), 3*time.Millisecond, 1)
	s.Add(at(2500*time.Millisecond), 0, 10)          // a batch; too fast to measure
	s.Add(at(2400*time.Millisecond), time.Second, 1) // out of order
	sum := s.Summary()
	assert.EqualValues(t, 13, sum.Count)
	assert.Equal(t, 2401*time.Millisecond, sum.Took, "from when the first was due")
	assert.InEpsilon(t, time.Second, sum.Quantile(100), 0.001)
	require.Len(t, sum.Points, 2)
	assert.EqualValues(t, 2, sum.Points[0].Count)
	assert.InEpsilon(t, 3*time.Millisecond, sum.Points[0].Max, 0.001)
	assert.Zero(t, sum.Points[1].Count, "a second without an answer is a point, too")
	slow := NewSeries(begin, time.Second)
	slow.Add(begin, 100*time.Hour, 1) // too slow to measure
	assert.InEpsilon(t, maxLatency, slow.Summary().Quantile(100), 0.001)
	short := NewSeries(begin, time.Minute)
	short.Add(at(time.Second), time.Millisecond, 7)
	require.Len(t, short.Summary().Points, 1)
	assert.EqualValues(t, 7, short.Summary().Points[0].Count)
}
