package bench

import (
	"bytes"
	"context"
	"sync"
	"time"

	"streamcount/internal/bench/load"
)

const (
	leastOverload = 5 * time.Second // less says nothing

	overloadTimes = 3    // so much more comes than the target can do
	goodputShare  = 0.8  // of the peak must still be done then
	peakCallers   = 128  // connections that find out what the peak is
	beatCallers   = 1000 // connections of those who watch: each has its own in reality
)

// overload finds out what the target can do, and then asks for three times as much,
// while viewers send their heartbeats all the time.
func overload(ctx context.Context, v *visit) error {
	vs := v.viewers(v.s.Viewers, 1)
	vs.fill(ctx, peakCallers)
	beating, quiet := context.WithCancel(ctx)
	defer quiet()
	end := v.measure(v.s.Warmup+v.s.For, opHeartbeat, opPeak, opOverload, opShed)
	var beats sync.WaitGroup
	beats.Go(func() { vs.beatOn(beating) })

	v.phase("finding out what it can do")
	peak := v.flood(ctx, load.Plan{For: v.s.Warmup, Workers: peakCallers}, vs.users(), opPeak)
	v.phase("asking for %d times %.0f a second", overloadTimes, peak)
	rate := max(overloadTimes*peak, 1)
	good := v.flood(ctx, load.Plan{Rate: rate, For: v.s.For, Workers: v.s.Connections}, vs.users(), opOverload)

	quiet()
	beats.Wait()
	v.result.streams = vs.alive()
	end()
	if v.result.ops[opShed].Count == 0 {
		v.result.ops[opShed] = nil
	}
	if good < goodputShare*peak && v.s.For >= leastOverload && ctx.Err() == nil {
		v.tally.add(collapsed, 1, "%.0f a second were done under overload, %.0f at the peak", good, peak)
	}
	v.phase("checking that every viewer is alive")
	vs.check(ctx)
	vs.verify(ctx, min(vs.users(), maxListed))
	return ctx.Err()
}

// flood has users from first on start and stop streams, and returns how many did a
// second. What is due and finds no connection free is dropped.
func (v *visit) flood(ctx context.Context, p load.Plan, first int64, o op) float64 {
	cs, hangUp := v.callers(v.ctx, p.Workers)
	defer hangUp()
	var done tallied
	begin := time.Now()
	p.Run(ctx, func(w int, n int64, _ time.Time) {
		user, sent := first+n%floodUsers, time.Now()
		id, out := cs[w].start(user, nil)
		switch {
		case out == swamped:
			v.record(opShed, sent, 1)
			return
		case out == full:
			v.wronglyRefused(user, 1)
			return
		case id == nil:
			return
		}
		// A client that was told to wait before it stops tries again: its slot is taken.
		for id = bytes.Clone(id); ; {
			if out = cs[w].stop(user, id); out != swamped || !wait(ctx, 250*time.Millisecond) {
				break
			}
		}
		if now := time.Now(); now.Sub(begin) < p.For {
			done.add()
		}
		v.record(o, sent, 1)
	})
	return done.per(p.For)
}

// floodUsers are enough for nobody to have two turns at once.
const floodUsers = 1_000_000

// tallied counts what is done.
type tallied struct {
	mu sync.Mutex
	n  int64
}

func (t *tallied) add() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n++
}

func (t *tallied) per(d time.Duration) float64 { return float64(t.n) / max(d.Seconds(), 1e-9) }

// beatOn sends every viewer's heartbeat once in an interval, until ctx ends.
func (vs *viewers) beatOn(ctx context.Context) {
	cs, hangUp := vs.v.callers(vs.v.ctx, beatCallers)
	defer hangUp()
	rate := float64(vs.count()) / vs.v.s.Heartbeat.Seconds()
	load.Plan{Rate: rate, Workers: len(cs)}.Run(ctx, vs.turns(cs))
}
