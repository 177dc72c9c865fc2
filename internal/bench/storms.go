package bench

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"streamcount/internal/bench/load"
)

// storm has n calls come at a constant rate within Settings.Over.
func (v *visit) storm(ctx context.Context, n int64, do func(c *caller, k int64, due time.Time)) {
	cs, hangUp := v.callers(ctx, v.s.Connections)
	defer hangUp()
	p := load.Plan{Rate: float64(n) / v.s.Over.Seconds(), Count: n, Workers: len(cs), Grace: grace}
	v.unsent(p.Run(ctx, func(w int, k int64, due time.Time) { do(cs[w], k, due) }))
}

// kickoff starts viewers of one user right after each other, so that they race
// for its slots.
func kickoff(ctx context.Context, v *visit) error {
	vs := v.viewers(v.s.Viewers, v.s.PerUser)
	stop := vs.keep(ctx)
	defer stop()
	var refusals atomic.Int64
	v.phase("everybody starts")
	end := v.measure(v.s.Over, opStart)
	v.storm(ctx, vs.count(), func(c *caller, k int64, due time.Time) {
		sent := time.Now()
		switch id, o := c.start(vs.user(k), nil); o {
		case done:
			v.record(opStart, due, 1)
			vs.begun(k, id, sent)
		case full:
			refusals.Add(1)
		}
	})
	end()
	if excess := refusals.Load() - vs.excess(); v.tally.unknown() == 0 {
		v.wronglyRefused(0, excess)
		if v.counts {
			v.tally.add(admitted, -excess, "%d starts were refused, %d should have been", refusals.Load(), vs.excess())
		}
	}
	vs.verify(ctx, vs.users())
	return ctx.Err()
}

// excess is how many starts the limit must refuse.
func (vs *viewers) excess() int64 {
	limit := int64(vs.v.limit)
	over := vs.count() / vs.perUser * max(0, vs.perUser-limit)
	return over + max(0, vs.count()%vs.perUser-limit)
}

func whistle(ctx context.Context, v *visit) error {
	if err := v.roomy(); err != nil {
		return err
	}
	vs := v.viewers(v.s.Viewers, v.s.PerUser)
	vs.fill(ctx, v.s.Connections)
	stop := vs.keep(ctx)
	defer stop()
	v.phase("everybody stops")
	end := v.measure(v.s.Over, opStop)
	v.storm(ctx, vs.count(), func(c *caller, k int64, due time.Time) {
		if !vs.wait(ctx, k) {
			return
		}
		switch c.stop(vs.user(k), vs.id(k)) {
		case done:
			v.record(opStop, due, 1)
			vs.state[k].Store(absent)
		case gone:
			vs.ended(k, "its stop was answered 404 or 410")
		default:
			vs.state[k].Store(absent) // not known: nothing is expected of it
		}
	})
	end()
	vs.verify(ctx, vs.users())
	return ctx.Err()
}

// verify lists the first n users and compares with what their viewers were
// answered.
func (vs *viewers) verify(ctx context.Context, n int64) {
	v := vs.v
	cs, hangUp := v.callers(ctx, v.s.Connections)
	defer hangUp()
	var missing, extra atomic.Int64
	load.Plan{Count: n, Workers: len(cs)}.Run(ctx, func(w int, user int64, _ time.Time) {
		if user%256 == 0 {
			v.phase("listing users: %d of %d", user, n)
		}
		var expected int
		for k := user * vs.perUser; k < min((user+1)*vs.perUser, vs.count()); k++ {
			if vs.state[k].Load() != absent {
				expected++
			}
		}
		streams, o := cs[w].count(user)
		if o != done {
			return
		}
		missing.Add(int64(max(0, expected-streams)))
		extra.Add(int64(max(0, streams-expected)))
	})
	if !v.counts || ctx.Err() != nil {
		return
	}
	v.tally.add(lost, missing.Load(), "%d streams are not listed any more", missing.Load())
	if extra.Load() > v.tally.unknown() { // what had no answer may be there or not
		v.tally.add(remains, extra.Load(), "%d streams are listed that nobody has", extra.Load())
	}
}

// lapse is how long after its TTL a silent stream's slot is asked for.
const lapse = 2 * time.Second

func blackout(ctx context.Context, v *visit) error {
	vs := v.viewers(v.s.Viewers, int64(max(v.limit, 1)))
	vs.fill(ctx, v.s.Connections)
	v.phase("the last heartbeats")
	vs.check(ctx)

	var others sync.WaitGroup
	quiet, over := context.WithCancel(ctx)
	defer over()
	end := v.measure(v.ttl+lapse+v.s.Over, opRestart, opOthersStart, opOthersStop)
	others.Go(func() { v.others(quiet, vs.users(), 0) })
	v.phase("the blackout: everybody is silent for %v", v.ttl+lapse)
	wait(ctx, v.ttl+lapse)
	for k := range vs.count() {
		vs.state[k].Store(absent)
	}
	stop := vs.keep(ctx)
	defer stop()
	v.phase("everybody comes back")
	v.storm(ctx, vs.count(), func(c *caller, k int64, due time.Time) {
		sent := time.Now()
		switch id, o := c.start(vs.user(k), nil); o {
		case done:
			v.record(opRestart, due, 1)
			vs.begun(k, id, sent)
		case full:
			v.wronglyRefused(vs.user(k), 1)
		}
	})
	over()
	others.Wait()
	end()
	vs.verify(ctx, vs.users())
	return ctx.Err()
}
