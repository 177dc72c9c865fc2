package load

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// minSleep is the minimum time between two checks of the clock. At higher rates several
// arrivals become due at once.
const minSleep = 100 * time.Microsecond

// A Plan describes when work is due.
type Plan struct {
	// Rate is the number of arrivals per second, independent of the progress of earlier
	// ones (open loop). With 0, each worker starts its next arrival when it has finished
	// the previous one (closed loop), which measures the capacity of the server.
	Rate float64
	// Duration and Count bound the plan; the first bound that is reached ends it. 0 means
	// no bound.
	Duration time.Duration
	Count    int64
	// Workers is the maximum concurrency. In an open loop an arrival that is due while
	// all workers are busy waits, and the wait counts as latency.
	Workers int
	// Grace is how long after the last arrival the backlog is processed. Arrivals that are
	// still waiting then are dropped, and Run returns their number.
	Grace time.Duration

	sleep func(time.Duration) // for tests; nil means the most precise timer of the system
}

// Do processes arrival n, counted from 0, on worker w. The arrival was due at the time
// due.
type Do func(w int, n int64, due time.Time)

// Run executes p until it is complete or ctx ends. It returns the number of dropped
// arrivals, after all calls of do have returned.
func (p Plan) Run(ctx context.Context, do Do) int64 {
	if p.Rate > 0 {
		return p.runOpen(ctx, do)
	}
	p.runClosed(ctx, do)
	return 0
}

func (p Plan) runClosed(ctx context.Context, do Do) {
	var next atomic.Int64
	begin := time.Now()
	var wg sync.WaitGroup
	for w := range p.Workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				now := time.Now()
				if p.Duration > 0 && now.Sub(begin) >= p.Duration {
					return
				}
				n := next.Add(1) - 1
				if p.Count > 0 && n >= p.Count {
					return
				}
				do(w, n, now)
			}
		})
	}
	wg.Wait()
}

func (p Plan) runOpen(ctx context.Context, do Do) int64 {
	begin := time.Now()
	arrivals := make(chan int64, p.Workers)
	var wg sync.WaitGroup
	for w := range p.Workers {
		wg.Go(func() {
			for n := range arrivals {
				do(w, n, begin.Add(p.dueAfter(n)))
			}
		})
	}
	left := p.dispatch(ctx, begin, arrivals)
	close(arrivals)
	wg.Wait()
	return left
}

// dispatch sends each arrival to a worker when it is due, or later when a worker is
// free, and returns the number of arrivals that it dropped.
func (p Plan) dispatch(ctx context.Context, begin time.Time, arrivals chan<- int64) int64 {
	count := p.arrivalCount()
	if count >= 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, begin.Add(p.dueAfter(count)+p.Grace))
		defer cancel()
	}
	sleep, free := p.newSleeper()
	defer free()
	var passed time.Duration
	for n := int64(0); count < 0 || n < count; n++ {
		for due := p.dueAfter(n); due > passed; {
			if passed = time.Since(begin); due > passed {
				sleep(min(max(due-passed, minSleep), 100*time.Millisecond)) // bounded, so that the loop observes the end of ctx
			}
			if ctx.Err() != nil {
				return max(count-n, 0)
			}
		}
		select {
		case arrivals <- n:
		case <-ctx.Done():
			return max(count-n, 0)
		}
	}
	return 0
}

// dueAfter returns the time from the beginning until arrival n is due.
func (p Plan) dueAfter(n int64) time.Duration {
	return time.Duration(float64(n) / p.Rate * float64(time.Second))
}

// arrivalCount returns the number of arrivals, or -1 if it is unbounded.
func (p Plan) arrivalCount() int64 {
	count := int64(-1)
	if p.Duration > 0 {
		count = int64(p.Duration.Seconds()*p.Rate + 0.5)
	}
	if p.Count > 0 && (count < 0 || p.Count < count) {
		count = p.Count
	}
	return count
}

// newSleeper returns a function that sleeps, and a function that frees its resources.
func (p Plan) newSleeper() (sleep func(time.Duration), free func()) {
	if p.sleep != nil {
		return p.sleep, func() {}
	}
	a, err := newPreciseTimer()
	if err != nil { // a less precise timer only increases the measured latencies
		return time.Sleep, func() {}
	}
	return a.sleep, a.close
}
