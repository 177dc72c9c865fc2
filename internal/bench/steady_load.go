package bench

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"streamcount/internal/bench/load"
)

// maxVerifiedUsers is how many users are listed after a load.
const maxVerifiedUsers = 20_000

// steadyLoad measures viewers who send heartbeats, with the other calls that the
// settings ask for.
func steadyLoad(ctx context.Context, tr *targetRun) error {
	if err := tr.checkPerUser(); err != nil {
		return err
	}
	vs := tr.viewers(tr.settings.Viewers, tr.settings.PerUser)
	vs.startAll(ctx, tr.settings.Connections)
	tr.setPhase("renewing all streams before measuring")
	vs.renewOlderThan(ctx, checkConnections, tr.settings.Heartbeat/2)
	tr.setPhase("measuring")
	vs.mixedLoad(ctx)
	if tr.enforcesLimit {
		tr.checkGrowth()
	}
	tr.setPhase("checking that every stream exists")
	vs.renewAll(ctx)
	vs.verifyCounts(ctx, min(vs.users(), maxVerifiedUsers))
	if tr.settings.Restart && tr.server != nil && ctx.Err() == nil {
		return vs.restart(ctx)
	}
	return ctx.Err()
}

// mixedLoad runs the kinds of calls concurrently. The viewers send heartbeats in turn
// at a constant rate, so that each viewer sends one per interval.
func (vs *viewers) mixedLoad(ctx context.Context) {
	tr, s := vs.tr, vs.tr.settings
	list := []op{opHeartbeat}
	quarter := max(s.Connections/4, 1)
	var flows sync.WaitGroup
	if s.OtherStarts > 0 {
		list = append(list, opOthersStart, opOthersStop)
	}
	if s.Session > 0 {
		list = append(list, opStart, opStop, opSwitch)
	}
	end := tr.measure(s.Duration, list...)
	flows.Go(func() {
		cs, closeAll := tr.callers(ctx, max(s.Connections-2*quarter, 1))
		defer closeAll()
		rate := float64(vs.count()) / s.Heartbeat.Seconds() / float64(s.Batch)
		tr.countUnsent(load.Plan{Rate: rate, Duration: s.Duration, Workers: len(cs), Grace: grace}.Run(ctx, vs.heartbeatsInTurn(cs)))
	})
	if s.OtherStarts > 0 {
		flows.Go(func() { tr.runOtherUsers(ctx, vs.users(), s.Duration) })
	}
	if s.Session > 0 {
		flows.Go(func() { vs.churn(ctx, quarter) })
	}
	flows.Wait()
	tr.result.streams = vs.aliveCount()
	end()
}

// runOtherUsers starts and stops streams of the users from first on, for d or until
// ctx ends.
func (tr *targetRun) runOtherUsers(ctx context.Context, first int64, d time.Duration) {
	if tr.settings.OtherStarts == 0 {
		return
	}
	cs, closeAll := tr.callers(tr.ctx, max(tr.settings.Connections/4, 1)) // the end of ctx does not interrupt a cycle
	defer closeAll()
	users := max(int64(len(cs)), 100_000)
	tr.countUnsent(load.Plan{Rate: tr.settings.OtherStarts, Duration: d, Workers: len(cs), Grace: grace}.Run(ctx,
		func(w int, n int64, due time.Time) {
			tr.cycle(cs[w], first+n%users, due, opNone, opOthersStart, opOthersStop)
		}))
}

// churn ends the sessions of random viewers.
func (vs *viewers) churn(ctx context.Context, connections int) {
	tr := vs.tr
	cs, closeAll := tr.callers(ctx, connections)
	defer closeAll()
	rate := float64(vs.count()) / tr.settings.Session.Seconds()
	tr.countUnsent(load.Plan{Rate: rate, Duration: tr.settings.Duration, Workers: len(cs), Grace: grace}.Run(ctx,
		func(w int, _ int64, due time.Time) {
			if k := rand.Int64N(vs.count()); vs.acquire(ctx, k) {
				vs.endSession(cs[w], k, due)
			}
		}))
}

// endSession has viewer k switch to another stream, or stop and make room for a new
// viewer. The caller has acquired k.
func (vs *viewers) endSession(c *caller, k int64, due time.Time) {
	tr, user := vs.tr, vs.user(k)
	next, replaces := opSwitch, vs.id(k)
	if rand.Float64() >= tr.settings.SwitchShare {
		switch c.stop(user, vs.id(k)) {
		case outcomeOK:
			tr.recordLatency(opStop, due, 1)
		case outcomeGone:
			vs.recordEnd(k, "the stop was answered 404 or 410")
		}
		next, replaces, due = opStart, nil, time.Now()
	}
	sent := time.Now()
	id, o := c.start(user, replaces)
	switch o {
	case outcomeOK:
		tr.recordLatency(next, due, 1)
		vs.setStarted(k, id, sent)
		return
	case outcomeLimit:
		tr.countWrongRefusal(user, 1)
	}
	vs.state[k].Store(noStream)
}

// aliveCount returns the number of viewers that have a stream.
func (vs *viewers) aliveCount() int64 {
	var n int64
	for k := range vs.count() {
		if vs.state[k].Load() != noStream {
			n++
		}
	}
	return n
}

// restart restarts the target on its data and checks that every stream still exists.
func (vs *viewers) restart(ctx context.Context) error {
	tr := vs.tr
	tr.setPhase("restarting the node")
	took, err := tr.server.Restart(ctx)
	if err != nil {
		return err
	}
	tr.result.restartTime = took
	client, err := load.NewClient(tr.server.URL, answerTimeout) // the port has changed
	if err != nil {
		return err
	}
	tr.client = client
	tr.setPhase("checking that every stream exists after the restart")
	vs.renewAll(ctx)
	return ctx.Err()
}
