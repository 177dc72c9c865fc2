package bench

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"streamcount/internal/bench/load"
)

// maxListed is how many users are listed at the end of an evening.
const maxListed = 20_000

// audience is an evening of viewers who send heartbeats, and whatever else the
// settings say.
func audience(ctx context.Context, v *visit) error {
	if err := v.roomy(); err != nil {
		return err
	}
	vs := v.viewers(v.s.Viewers, v.s.PerUser)
	vs.fill(ctx, v.s.Connections)
	v.phase("the last heartbeats before the clock starts")
	vs.renew(ctx, checkers, v.s.Heartbeat/2)
	v.phase("measuring")
	vs.evening(ctx)
	if v.counts {
		v.steady()
	}
	v.phase("checking that every viewer is alive")
	vs.check(ctx)
	vs.verify(ctx, min(vs.users(), maxListed))
	if v.s.Restart && v.server != nil && ctx.Err() == nil {
		return vs.restart(ctx)
	}
	return ctx.Err()
}

// evening runs the flows of calls side by side. Heartbeats come in turn at a
// constant rate, so that each viewer is heard once in an interval.
func (vs *viewers) evening(ctx context.Context) {
	v, s := vs.v, vs.v.s
	list := []op{opHeartbeat}
	quarter := max(s.Connections/4, 1)
	var flows sync.WaitGroup
	if s.Others > 0 {
		list = append(list, opOthersStart, opOthersStop)
	}
	if s.Session > 0 {
		list = append(list, opStart, opStop, opZap)
	}
	end := v.measure(s.For, list...)
	flows.Go(func() {
		cs, hangUp := v.callers(ctx, max(s.Connections-2*quarter, 1))
		defer hangUp()
		rate := float64(vs.count()) / s.Heartbeat.Seconds() / float64(s.Batch)
		v.unsent(load.Plan{Rate: rate, For: s.For, Workers: len(cs), Grace: grace}.Run(ctx, vs.turns(cs)))
	})
	if s.Others > 0 {
		flows.Go(func() { v.others(ctx, vs.users(), s.For) })
	}
	if s.Session > 0 {
		flows.Go(func() { vs.comeAndGo(ctx, quarter) })
	}
	flows.Wait()
	v.result.streams = vs.alive()
	end()
}

// others has users from first on start and stop streams, for d or until ctx
// ends.
func (v *visit) others(ctx context.Context, first int64, d time.Duration) {
	if v.s.Others == 0 {
		return
	}
	cs, hangUp := v.callers(v.ctx, max(v.s.Connections/4, 1)) // a cycle under way is finished
	defer hangUp()
	users := max(int64(len(cs)), 100_000)
	v.unsent(load.Plan{Rate: v.s.Others, For: d, Workers: len(cs), Grace: grace}.Run(ctx,
		func(w int, n int64, due time.Time) {
			v.cycle(cs[w], first+n%users, due, opNone, opOthersStart, opOthersStop)
		}))
}

// comeAndGo ends sessions at random.
func (vs *viewers) comeAndGo(ctx context.Context, connections int) {
	v := vs.v
	cs, hangUp := v.callers(ctx, connections)
	defer hangUp()
	rate := float64(vs.count()) / v.s.Session.Seconds()
	v.unsent(load.Plan{Rate: rate, For: v.s.For, Workers: len(cs), Grace: grace}.Run(ctx,
		func(w int, _ int64, due time.Time) {
			if k := rand.Int64N(vs.count()); vs.wait(ctx, k) {
				vs.sessionEnds(cs[w], k, due)
			}
		}))
}

// sessionEnds has viewer k, who is held, watch something else, or leave to
// another.
func (vs *viewers) sessionEnds(c *caller, k int64, due time.Time) {
	v, user := vs.v, vs.user(k)
	next, replaces := opZap, vs.id(k)
	if rand.Float64() >= v.s.Zap {
		switch c.stop(user, vs.id(k)) {
		case done:
			v.record(opStop, due, 1)
		case gone:
			vs.ended(k, "its stop was answered 404 or 410")
		}
		next, replaces, due = opStart, nil, time.Now()
	}
	sent := time.Now()
	id, o := c.start(user, replaces)
	switch o {
	case done:
		v.record(next, due, 1)
		vs.begun(k, id, sent)
		return
	case full:
		v.wronglyRefused(user, 1)
	}
	vs.state[k].Store(absent)
}

// alive is how many viewers have a stream.
func (vs *viewers) alive() int64 {
	var n int64
	for k := range vs.count() {
		if vs.state[k].Load() != absent {
			n++
		}
	}
	return n
}

// restart ends the target's process, starts it on what it left, and checks
// that every viewer has lived through that.
func (vs *viewers) restart(ctx context.Context) error {
	v := vs.v
	v.phase("the node starts again")
	took, err := v.server.restart(ctx)
	if err != nil {
		return err
	}
	v.result.ready = took
	client, err := load.NewClient(v.server.url, answerTimeout) // it has another port now
	if err != nil {
		return err
	}
	v.client = client
	v.phase("checking that every viewer lived through that")
	vs.check(ctx)
	return ctx.Err()
}
