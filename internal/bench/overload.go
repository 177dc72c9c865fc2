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
	peakCallers   = 128  // connections that find out what the peak is
	beatCallers   = 1000 // connections of those who watch: each has its own in reality
)

// overloadScenario is what overload is, with what it has besides base.
func overloadScenario(base Settings) Scenario {
	return Scenario{
		Name: "overload", Short: "Three times as many starts and stops as the node can do", run: overload,
		Long: "The viewers are started first and send heartbeats until the end. For the warm-up users start and stop as fast\n" +
			"as the node answers: its peak. Then they come at three times that rate, over as many connections as are\n" +
			"set, and do not wait when they are told to, and for the warm-up's time again as at first. Under overload 80 %\n" +
			"of what is done before and after, in the mean, must still be done, afterwards at least half of what was done\n" +
			"before, and every viewer be alive.\n" +
			"A node that bench starts has one half of the processors, and the load generator the other.",
		apart: true,
		Uses:  []string{"duration", "warmup", "viewers", "heartbeat"},
		Defaults: with(base, func(s *Settings) {
			s.Connections, s.Viewers, s.Heartbeat, s.TTL = 4_000, 10_000, 5*time.Second, 20*time.Second
			s.Warmup, s.For = 10*time.Second, 40*time.Second
		}),
	}
}

// overload finds out what the target can do, then asks for three times as much, and
// finds out again, while viewers send their heartbeats all the time.
func overload(ctx context.Context, v *visit) error {
	vs := v.viewers(v.s.Viewers, 1)
	vs.fill(ctx, peakCallers)
	beating, quiet := context.WithCancel(ctx)
	defer quiet()
	end := v.measure(2*v.s.Warmup+v.s.For, opHeartbeat, opPeak, opOverload, opAfter, opShed)
	var beats sync.WaitGroup
	beats.Go(func() { vs.beatOn(beating) })

	g := &v.result.goodput
	most := load.Plan{For: v.s.Warmup, Workers: peakCallers}
	v.phase("finding out what it can do")
	g.before = v.flood(ctx, most, vs.users(), opPeak)
	v.phase("asking for %d times %.0f a second", overloadTimes, g.before)
	rate := max(overloadTimes*g.before, 1)
	g.under = v.flood(ctx, load.Plan{Rate: rate, For: v.s.For, Workers: v.s.Connections}, vs.users(), opOverload)
	v.phase("finding out what it can do again")
	g.after = v.flood(ctx, most, vs.users(), opAfter)

	quiet()
	beats.Wait()
	v.result.streams = vs.alive()
	end()
	if v.result.ops[opShed].Count == 0 {
		v.result.ops[opShed] = nil
	}
	if g.collapsed() && v.s.For >= leastOverload && ctx.Err() == nil {
		v.tally.add(collapsed, 1, "%.0f a second were done under overload, %.0f before and %.0f after",
			g.under, g.before, g.after)
	}
	v.phase("checking that every viewer is alive")
	vs.check(ctx)
	vs.verify(ctx, min(vs.users(), maxListed))
	return ctx.Err()
}

// flood has users from first on start and stop streams, and returns how many starts
// and stops were done a second, in the mean. What is due and finds no connection
// free is dropped. Each counts when it is answered: pairs would count only from when
// the first start has its stop, which under overload is seconds later.
func (v *visit) flood(ctx context.Context, p load.Plan, first int64, o op) float64 {
	cs, hangUp := v.callers(v.ctx, p.Workers)
	defer hangUp()
	var halves tallied
	begin := time.Now()
	count := func() {
		if time.Since(begin) < p.For {
			halves.add()
		}
	}
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
		count()
		// A client that was told to wait before it stops tries again: its slot is taken.
		for id = bytes.Clone(id); ; {
			if out = cs[w].stop(user, id); out != swamped || !wait(ctx, 250*time.Millisecond) {
				break
			}
		}
		if out == done {
			count()
			v.record(o, sent, 1)
		}
	})
	return halves.per(p.For) / 2
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
