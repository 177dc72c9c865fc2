package api

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A byte that does not arrive is late before it has.
func TestLag_OfWhatHasNotArrived(t *testing.T) {
	l := newLag()
	assert.Zero(t, l.at(time.Now()))
	l.send()
	now := time.Now()
	assert.GreaterOrEqual(t, l.at(now.Add(2*time.Second)), 2*time.Second)
	l.arrive()
	waited := l.at(now.Add(2 * time.Second))
	assert.Greater(t, waited, time.Duration(0))
	assert.LessOrEqual(t, waited, time.Since(now)+time.Second)
}

func TestLag_IsMeasured(t *testing.T) {
	l := newLag()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- l.watch(ctx) }()
	require.Eventually(t, func() bool { return l.at(time.Now()) > 0 && l.sent.Load() == 0 }, time.Minute, time.Millisecond)
	cancel()
	require.NoError(t, <-ended)
	assert.Zero(t, l.at(time.Now()))
}

// A server that runs sheds by what it measures.
func TestLag_IsHeeded(t *testing.T) {
	s := newServer(t, Config{}, &fake{})
	run(t, s)
	require.Eventually(t, func() bool { return s.shed.lag(time.Now()) > 0 }, time.Minute, time.Millisecond)
}

// Where everything waits for long, starts make way for heartbeats, however quickly they
// are served themselves; a few are let in, and all when the wait is over.
func TestShed_WhereEverythingWaits(t *testing.T) {
	s, now, wait := newShedder(4096), time.Now(), time.Duration(0)
	s.lag = func(time.Time) time.Duration { return wait }
	let := func(d time.Duration) (in int) { // of as many as will at once, in the last window
		for end := now.Add(d); now.Before(end); {
			in = 0
			for range 500 {
				if s.enter(now) {
					in++
				}
			}
			now = now.Add(shedWindow)
			for range in {
				s.leave(now, time.Millisecond)
			}
		}
		return in
	}
	assert.Equal(t, 500, let(time.Second))
	wait = shedLag / 3
	assert.Equal(t, 500, let(10*time.Second), "that is no reason")
	wait = 2 * shedLag
	assert.Equal(t, shedLeast, let(10*time.Second))
	wait = shedLag * 3 / 4
	assert.Equal(t, shedLeast, let(time.Second), "it is not over yet")
	wait = 0
	assert.Equal(t, 500, let(20*time.Second))
}

// Once nobody waits, as many are let in as ever, also where etcd is slow and only few
// come out in a window, and where nobody came meanwhile.
func TestShed_IsOverWhenItIsOver(t *testing.T) {
	for _, quiet := range []bool{false, true} {
		s, now, wait := newShedder(4096), time.Now(), 2*shedLag
		s.lag = func(time.Time) time.Duration { return wait }
		type start struct{ out time.Time }
		var inside []start
		step := func(took time.Duration) { // 20 arrive each 10 ms
			now = now.Add(10 * time.Millisecond)
			for len(inside) > 0 && !inside[0].out.After(now) {
				s.leave(now, took)
				inside = inside[1:]
			}
			for range 20 {
				if s.enter(now) {
					inside = append(inside, start{now.Add(took)})
				}
			}
		}
		for range 100 {
			step(10 * time.Millisecond) // so long they take at best
		}
		for range 1000 {
			step(500 * time.Millisecond)
		}
		require.Less(t, s.limit, float64(shedFloor)/2)
		wait = 0
		if quiet {
			now = now.Add(2 * shedQuiet)
			s.refuses(now)
			assert.GreaterOrEqual(t, s.limit, float64(shedFloor))
			continue
		}
		for range 1000 {
			step(500 * time.Millisecond)
		}
		assert.GreaterOrEqual(t, s.limit, float64(shedFloor))
	}
}
