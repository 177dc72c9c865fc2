package bench

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"streamcount/internal/bench/load"
	"streamcount/internal/retry"
)

// spread makes n calls at a constant rate within Settings.Over.
func (tr *targetRun) spread(ctx context.Context, n int64, do func(c *caller, k int64, due time.Time)) {
	cs, closeAll := tr.callers(ctx, tr.settings.Connections)
	defer closeAll()
	p := load.Plan{Rate: float64(n) / tr.settings.Over.Seconds(), Count: n, Workers: len(cs), Grace: grace}
	tr.countUnsent(p.Run(ctx, func(w int, k int64, due time.Time) { do(cs[w], k, due) }))
}

// startStorm starts the viewers of one user in succession, so that their starts race
// for the user's slots.
func startStorm(ctx context.Context, tr *targetRun) error {
	vs := tr.viewers(tr.settings.Viewers, tr.settings.PerUser)
	stop := vs.keepAlive(ctx)
	defer stop()
	var refusals atomic.Int64
	tr.setPhase("starting all streams")
	end := tr.measure(tr.settings.Over, opStart)
	tr.spread(ctx, vs.count(), func(c *caller, k int64, due time.Time) {
		sent := time.Now()
		switch id, o := c.start(vs.user(k), nil); o {
		case outcomeOK:
			tr.recordLatency(opStart, due, 1)
			vs.setStarted(k, id, sent)
		case outcomeLimit:
			refusals.Add(1)
		}
	})
	end()
	if excess := refusals.Load() - vs.excess(); tr.faults.unknownOutcomes() == 0 {
		tr.countWrongRefusal(0, excess)
		if tr.enforcesLimit {
			tr.faults.add(faultWrongAdmission, -excess, "%d starts were refused, %d should have been", refusals.Load(), vs.excess())
		}
	}
	vs.verifyCounts(ctx, vs.users())
	return ctx.Err()
}

// excess returns the number of starts that must be refused because of the limit.
func (vs *viewers) excess() int64 {
	limit := int64(vs.tr.limit)
	over := vs.count() / vs.perUser * max(0, vs.perUser-limit)
	return over + max(0, vs.count()%vs.perUser-limit)
}

func stopStorm(ctx context.Context, tr *targetRun) error {
	if err := tr.checkPerUser(); err != nil {
		return err
	}
	vs := tr.viewers(tr.settings.Viewers, tr.settings.PerUser)
	vs.startAll(ctx, tr.settings.Connections)
	stop := vs.keepAlive(ctx)
	defer stop()
	tr.setPhase("stopping all streams")
	end := tr.measure(tr.settings.Over, opStop)
	tr.spread(ctx, vs.count(), func(c *caller, k int64, due time.Time) {
		if vs.acquire(ctx, k) && vs.stopOne(c, k) {
			tr.recordLatency(opStop, due, 1)
		}
	})
	end()
	vs.verifyCounts(ctx, vs.users())
	return ctx.Err()
}

// verifyCounts lists the streams of the first n users and compares their number with
// the answers that the viewers have received.
func (vs *viewers) verifyCounts(ctx context.Context, n int64) {
	tr := vs.tr
	cs, closeAll := tr.callers(ctx, tr.settings.Connections)
	defer closeAll()
	var missing, extra atomic.Int64
	load.Plan{Count: n, Workers: len(cs)}.Run(ctx, func(w int, user int64, _ time.Time) {
		if user%256 == 0 {
			tr.setPhase("listing users: %d of %d", user, n)
		}
		var expected int
		for k := user * vs.perUser; k < min((user+1)*vs.perUser, vs.count()); k++ {
			if vs.state[k].Load() != noStream {
				expected++
			}
		}
		streams, o := cs[w].countStreams(user)
		if o != outcomeOK {
			return
		}
		missing.Add(int64(max(0, expected-streams)))
		extra.Add(int64(max(0, streams-expected)))
	})
	if !tr.enforcesLimit || ctx.Err() != nil {
		return
	}
	tr.faults.add(faultLostStream, missing.Load(), "%d streams are no longer listed", missing.Load())
	if extra.Load() > tr.faults.unknownOutcomes() { // a stream of unknown outcome may exist
		tr.faults.add(faultNotEnded, extra.Load(), "%d streams are listed that were stopped or not started", extra.Load())
	}
}

// expiryMargin is the time from the expiry of the streams until viewers start again.
const expiryMargin = 2 * time.Second

func blackout(ctx context.Context, tr *targetRun) error {
	vs := tr.viewers(tr.settings.Viewers, int64(max(tr.limit, 1)))
	vs.startAll(ctx, tr.settings.Connections)
	tr.setPhase("sending the last heartbeats")
	vs.renewAll(ctx)

	var others sync.WaitGroup
	othersCtx, stopOthers := context.WithCancel(ctx)
	defer stopOthers()
	end := tr.measure(tr.ttl+expiryMargin+tr.settings.Over, opRestart, opOthersStart, opOthersStop)
	others.Go(func() { tr.runOtherUsers(othersCtx, vs.users(), 0) })
	tr.setPhase("sending no heartbeats for %v", tr.ttl+expiryMargin)
	_ = retry.Sleep(ctx, tr.ttl+expiryMargin)
	for k := range vs.count() {
		vs.state[k].Store(noStream)
	}
	stop := vs.keepAlive(ctx)
	defer stop()
	tr.setPhase("starting all streams again")
	tr.spread(ctx, vs.count(), func(c *caller, k int64, due time.Time) {
		sent := time.Now()
		switch id, o := c.start(vs.user(k), nil); o {
		case outcomeOK:
			tr.recordLatency(opRestart, due, 1)
			vs.setStarted(k, id, sent)
		case outcomeLimit:
			tr.countWrongRefusal(vs.user(k), 1)
		}
	})
	stopOthers()
	others.Wait()
	end()
	vs.verifyCounts(ctx, vs.users())
	return ctx.Err()
}
