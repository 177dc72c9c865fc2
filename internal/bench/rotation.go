package bench

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"streamcount/internal/bench/load"
	"streamcount/internal/retry"
)

// A rotation sends the heartbeats of viewers in turn, at the rate at which each viewer
// sends one per interval. The number of viewers may grow. Viewers take their turns in
// the order of their last renewals.
type rotation struct {
	vs       *viewers
	interval time.Duration
	batch    int64        // maximum number of heartbeats per request
	end      atomic.Int64 // the viewers before this one take part

	mu   sync.Mutex
	next int64 // the viewer whose turn it is
}

// take appends up to n viewers to list, in turn. It ends before a viewer whose last
// renewal is less than age ago.
func (ro *rotation) take(list []int64, n int64, age time.Duration) []int64 {
	ro.mu.Lock()
	defer ro.mu.Unlock()
	end := ro.end.Load()
	for tries := int64(0); tries < end && n > 0; tries++ {
		if ro.next >= end {
			ro.next = 0
		}
		if ro.vs.state[ro.next].Load() == idle {
			if ro.vs.sinceRenewal(ro.next) < age {
				break
			}
			list = append(list, ro.next)
			n--
		}
		ro.next++
	}
	return list
}

// size returns the number of heartbeats per request. It is smaller than batch if few
// viewers take part, so that their turns are spread over the interval.
func (ro *rotation) size() int64 { return min(ro.batch, max(ro.end.Load()/20, 1)) }

// rate returns the heartbeats per second that are due. It is higher while the viewer
// whose turn it is has waited too long, after a pause or because viewers were added.
func (ro *rotation) rate() float64 {
	end := ro.end.Load()
	rate := float64(end) / ro.interval.Seconds()
	ro.mu.Lock()
	defer ro.mu.Unlock()
	if ro.next < end && ro.vs.state[ro.next].Load() == idle && ro.vs.sinceRenewal(ro.next) > ro.interval*5/4 {
		rate *= 1.25
	}
	return rate
}

// start sends heartbeats in the background until stop is called.
func (ro *rotation) start(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	cs, closeAll := ro.vs.tr.callers(ro.vs.tr.ctx, keepAliveConnections) // the end of ctx does not interrupt a request
	turns := make(chan time.Time)
	for _, c := range cs {
		wg.Go(func() {
			var list []int64
			for due := range turns {
				list = ro.take(list[:0], ro.size(), 0)
				if n := ro.vs.heartbeatBatch(c, list); n > 0 {
					ro.vs.tr.recordLatency(opBatched, due, n)
				}
			}
		})
	}
	wg.Go(func() {
		defer close(turns)
		for due := time.Now(); ; {
			n := ro.size()
			if ro.end.Load() == 0 {
				due = due.Add(10 * time.Millisecond)
			} else {
				due = due.Add(time.Duration(float64(n) / ro.rate() * float64(time.Second)))
			}
			if retry.Sleep(ctx, time.Until(due)) != nil {
				return
			}
			select {
			case turns <- due:
			case <-ctx.Done():
				return
			}
		}
	})
	return func() {
		cancel()
		wg.Wait()
		closeAll()
	}
}

// sendSingles sends heartbeats in turn, one per request, for d.
func (ro *rotation) sendSingles(ctx context.Context, rate float64, d time.Duration, connections int) {
	tr := ro.vs.tr
	cs, closeAll := tr.callers(tr.ctx, connections)
	defer closeAll()
	tr.countUnsent(load.Plan{Rate: rate, Duration: d, Workers: connections, Grace: grace}.Run(ctx, func(w int, _ int64, due time.Time) {
		for _, k := range ro.take(nil, 1, 0) {
			if ro.vs.heartbeat(cs[w], k) == outcomeOK {
				tr.recordLatency(opHeartbeat, due, 1)
			}
		}
	}))
}

// sendDue sends the heartbeats that are due, as fast as they are answered, for at most d
// and at most count of them. It returns how many were answered.
func (ro *rotation) sendDue(ctx context.Context, size, count int64, d time.Duration, connections int) int64 {
	cs, closeAll := ro.vs.tr.callers(ro.vs.tr.ctx, connections)
	defer closeAll()
	var answered atomic.Int64
	lists := make([][]int64, connections)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	load.Plan{Duration: d, Count: max(count/size, 1), Workers: connections}.Run(ctx, func(w int, _ int64, _ time.Time) {
		lists[w] = ro.take(lists[w][:0], size, ro.interval)
		switch {
		case len(lists[w]) == 0:
			cancel() // none is due
		case size > 1:
			answered.Add(ro.vs.heartbeatBatch(cs[w], lists[w]))
		case ro.vs.heartbeat(cs[w], lists[w][0]) == outcomeOK:
			answered.Add(1)
		}
	})
	return answered.Load()
}

// countDue returns the number of viewers whose heartbeats are due.
func (ro *rotation) countDue() int64 {
	var n int64
	for k := range ro.end.Load() {
		if ro.vs.state[k].Load() == idle && ro.vs.sinceRenewal(k) >= ro.interval {
			n++
		}
	}
	return n
}
