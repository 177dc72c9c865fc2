package bench

import (
	"bytes"
	"context"
	"sync"
	"time"

	"streamcount/internal/bench/load"
	"streamcount/internal/retry"
)

const (
	minOverloadTime = 5 * time.Second // a shorter overload is not judged

	overloadFactor       = 3    // multiple of the peak rate
	peakConnections      = 128  // connections that measure the peak rate
	heartbeatConnections = 1000 // connections of the viewers; real viewers have one each
)

// overloadScenario returns the scenario overload with defaults derived from base.
func overloadScenario(base Settings) Scenario {
	return Scenario{
		Name: "overload", Short: "Three times as many starts and stops as the node can serve", run: overload,
		Long: "The streams of all viewers are started first, and the viewers send heartbeats until the end. During the\n" +
			"warm-up other users start and stop streams as fast as the node answers, which is its peak rate. Then they do so\n" +
			"at three times that rate over --connections, without regard to Retry-After, and afterwards as in the warm-up.\n" +
			"The rate under overload must be 80 % of the mean of the rates before and after, the rate after at least half\n" +
			"of that before, and every viewer's stream must exist.\n" +
			"A node that is started has half of the processors, and the load generator the other half.",
		separateCPUs: true,
		Uses:         []string{"duration", "warmup", "viewers", "heartbeat"},
		Defaults: modified(base, func(s *Settings) {
			s.Connections, s.Viewers, s.Heartbeat, s.TTL = 4_000, 10_000, 5*time.Second, 20*time.Second
			s.Warmup, s.Duration = 10*time.Second, 40*time.Second
		}),
	}
}

// overload measures the target's peak rate, then sends requests at three times that
// rate, then measures the peak rate again. Viewers send heartbeats throughout.
func overload(ctx context.Context, tr *targetRun) error {
	vs := tr.viewers(tr.settings.Viewers, 1)
	vs.startAll(ctx, peakConnections)
	heartbeatCtx, stopHeartbeats := context.WithCancel(ctx)
	defer stopHeartbeats()
	end := tr.measure(2*tr.settings.Warmup+tr.settings.Duration, opHeartbeat, opBeforeOverload, opOverload, opAfterOverload, opRejected)
	var heartbeats sync.WaitGroup
	heartbeats.Go(func() { vs.sendHeartbeats(heartbeatCtx) })

	g := &tr.result.goodput
	peakPlan := load.Plan{Duration: tr.settings.Warmup, Workers: peakConnections}
	tr.setPhase("measuring the peak rate")
	g.before = tr.startAndStop(ctx, peakPlan, vs.users(), opBeforeOverload)
	tr.setPhase("sending %d times %.0f requests per second", overloadFactor, g.before)
	rate := max(overloadFactor*g.before, 1)
	g.under = tr.startAndStop(ctx, load.Plan{Rate: rate, Duration: tr.settings.Duration, Workers: tr.settings.Connections}, vs.users(), opOverload)
	tr.setPhase("measuring the peak rate again")
	g.after = tr.startAndStop(ctx, peakPlan, vs.users(), opAfterOverload)

	stopHeartbeats()
	heartbeats.Wait()
	tr.result.streams = vs.aliveCount()
	end()
	if tr.result.ops[opRejected].Count == 0 {
		tr.result.ops[opRejected] = nil
	}
	if g.collapsed() && tr.settings.Duration >= minOverloadTime && ctx.Err() == nil {
		tr.faults.add(faultCollapse, 1, "goodput was %.0f per second under overload, %.0f before and %.0f after",
			g.under, g.before, g.after)
	}
	tr.setPhase("checking that every stream exists")
	vs.renewAll(ctx)
	vs.verifyCounts(ctx, min(vs.users(), maxVerifiedUsers))
	return ctx.Err()
}

// startAndStop starts and stops streams of the users from first on. It returns the
// mean of the starts per second and the stops per second. A request that is due while
// all connections are busy is dropped. Starts and stops are counted separately,
// because a pair takes seconds under overload.
func (tr *targetRun) startAndStop(ctx context.Context, p load.Plan, first int64, o op) float64 {
	cs, closeAll := tr.callers(tr.ctx, p.Workers)
	defer closeAll()
	var answered answerCounter
	begin := time.Now()
	count := func() {
		if time.Since(begin) < p.Duration {
			answered.add()
		}
	}
	p.Run(ctx, func(w int, n int64, _ time.Time) {
		user, sent := first+n%overloadUsers, time.Now()
		id, out := cs[w].start(user, nil)
		switch {
		case out == outcomeOverload:
			tr.recordLatency(opRejected, sent, 1)
			return
		case out == outcomeLimit:
			tr.countWrongRefusal(user, 1)
			return
		case id == nil:
			return
		}
		count()
		// A stop that is rejected because of overload is retried: the stream holds a slot.
		for id = bytes.Clone(id); ; {
			if out = cs[w].stop(user, id); out != outcomeOverload || retry.Sleep(ctx, 250*time.Millisecond) != nil {
				break
			}
		}
		if out == outcomeOK {
			count()
			tr.recordLatency(o, sent, 1)
		}
	})
	return answered.perSecond(p.Duration) / 2
}

// overloadUsers is so large that no user has two concurrent starts.
const overloadUsers = 1_000_000

// answerCounter counts answers. It is safe for concurrent use.
type answerCounter struct {
	mu sync.Mutex
	n  int64
}

func (t *answerCounter) add() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.n++
}

func (t *answerCounter) perSecond(d time.Duration) float64 {
	return float64(t.n) / max(d.Seconds(), 1e-9)
}

// sendHeartbeats sends one heartbeat per viewer and interval until ctx ends.
func (vs *viewers) sendHeartbeats(ctx context.Context) {
	cs, closeAll := vs.tr.callers(vs.tr.ctx, heartbeatConnections)
	defer closeAll()
	rate := float64(vs.count()) / vs.tr.settings.Heartbeat.Seconds()
	load.Plan{Rate: rate, Workers: len(cs)}.Run(ctx, vs.heartbeatsInTurn(cs))
}

// goodput is the mean of a target's starts per second and stops per second.
type goodput struct {
	before, after float64 // without overload, as fast as the target answers
	under         float64 // under overload
}

// share returns the goodput under overload as a share of the peak, which is the mean
// of before and after.
func (g goodput) share() float64 {
	if peak := (g.before + g.after) / 2; peak > 0 {
		return g.under / peak
	}
	return 0
}

const (
	minShare    = 0.8 // minimum of share
	minRecovery = 0.5 // minimum of after / before; rates vary by a third
)

func (g goodput) collapsed() bool { return g.share() < minShare || g.after < minRecovery*g.before }

// Goodput is the mean of the starts per second and the stops per second. Share is
// Under divided by the mean of Before and After.
type Goodput struct {
	Before Stat `json:"before"`
	Under  Stat `json:"underOverload"`
	After  Stat `json:"after"`
	Share  Stat `json:"share"`
}

// newGoodput returns nil if the runs did not measure goodput.
func newGoodput(runs []result) *Goodput {
	stat := func(f func(goodput) float64) Stat {
		if s := statOver(runs, func(res result) float64 { return f(res.goodput) }); s != nil {
			return *s
		}
		return Stat{}
	}
	g := Goodput{
		Before: stat(func(g goodput) float64 { return g.before }),
		Under:  stat(func(g goodput) float64 { return g.under }),
		After:  stat(func(g goodput) float64 { return g.after }),
		Share:  stat(goodput.share),
	}
	if g == (Goodput{}) {
		return nil
	}
	return &g
}

// GoodputTable returns a table of the targets' goodput, or nil if it was not measured.
func (r *Report) GoodputTable() [][]string {
	rows := [][]string{{"TARGET", "STARTS AND STOPS/S: BEFORE", "UNDER OVERLOAD", "AFTER", "SHARE OF PEAK", "(MIN-MAX)"}}
	for _, t := range r.Targets {
		if g := t.Goodput; g != nil {
			rows = append(rows, []string{
				t.Name, wholeNumber(g.Before.Median), wholeNumber(g.Under.Median), wholeNumber(g.After.Median),
				percentText(g.Share.Median), percentText(g.Share.Min) + "-" + percentText(g.Share.Max),
			})
		}
	}
	if len(rows) == 1 {
		return nil
	}
	return rows
}

func percentText(x float64) string { return wholeNumber(100*x) + "%" }
