package load

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// tick is the shortest wait between two looks at the clock. At higher rates
// several arrivals fall due at once, and their clocks have started.
const tick = 100 * time.Microsecond

// A Plan says when work is due.
type Plan struct {
	// Rate is how many arrivals a second are due, whatever becomes of those
	// before (open loop). 0 means that each worker goes on as soon as it has
	// finished (closed loop), which measures what the server can do.
	Rate float64
	// For and Count end the plan, whichever comes first; 0 is no bound.
	For   time.Duration
	Count int64
	// Workers is how many things can be done at once. In an open loop what is
	// due while all are busy waits, and that counts.
	Workers int
	// Grace is how long after the last arrival was due a backlog is worked
	// off. What is left then is dropped, and Run returns how many.
	Grace time.Duration

	sleep func(time.Duration) // nil means the system's best clock; for tests
}

// Do is one piece of work: the n-th arrival, counted from 0, done by worker
// number w. It was due at the time due.
type Do func(w int, n int64, due time.Time)

// Run carries out p until it is done or ctx ends, and returns how many arrivals
// were due but dropped. It returns when all that it started has.
func (p Plan) Run(ctx context.Context, do Do) int64 {
	if p.Rate > 0 {
		return p.open(ctx, do)
	}
	p.closed(ctx, do)
	return 0
}

func (p Plan) closed(ctx context.Context, do Do) {
	var next atomic.Int64
	begin := time.Now()
	var wg sync.WaitGroup
	for w := range p.Workers {
		wg.Go(func() {
			for ctx.Err() == nil {
				now := time.Now()
				if p.For > 0 && now.Sub(begin) >= p.For {
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

func (p Plan) open(ctx context.Context, do Do) int64 {
	begin := time.Now()
	arrivals := make(chan int64, p.Workers)
	var wg sync.WaitGroup
	for w := range p.Workers {
		wg.Go(func() {
			for n := range arrivals {
				do(w, n, begin.Add(p.offset(n)))
			}
		})
	}
	left := p.feed(ctx, begin, arrivals)
	close(arrivals)
	wg.Wait()
	return left
}

// feed hands out each arrival when it is due, or as soon after as a worker is
// free, and returns how many it could not hand out.
func (p Plan) feed(ctx context.Context, begin time.Time, arrivals chan<- int64) int64 {
	count := p.arrivals()
	if count >= 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, begin.Add(p.offset(count)+p.Grace))
		defer cancel()
	}
	sleep, free := p.sleeper()
	defer free()
	var passed time.Duration
	for n := int64(0); count < 0 || n < count; n++ {
		for due := p.offset(n); due > passed; {
			if passed = time.Since(begin); due > passed {
				sleep(min(max(due-passed, tick), 100*time.Millisecond)) // so that the end of ctx is seen
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

// offset is when arrival n is due.
func (p Plan) offset(n int64) time.Duration {
	return time.Duration(float64(n) / p.Rate * float64(time.Second))
}

// arrivals is how many there will be, or -1 for no end.
func (p Plan) arrivals() int64 {
	count := int64(-1)
	if p.For > 0 {
		count = int64(p.For.Seconds()*p.Rate + 0.5)
	}
	if p.Count > 0 && (count < 0 || p.Count < count) {
		count = p.Count
	}
	return count
}

// sleeper returns a function that sleeps, and one that frees what it needs.
func (p Plan) sleeper() (sleep func(time.Duration), free func()) {
	if p.sleep != nil {
		return p.sleep, func() {}
	}
	a, err := newAlarm()
	if err != nil { // a coarser clock only makes latencies look worse
		return time.Sleep, func() {}
	}
	return a.sleep, a.close
}
