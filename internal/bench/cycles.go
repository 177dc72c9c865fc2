package bench

import (
	"bytes"
	"context"
	"time"
)

// cycle starts a stream of user and stops it. The latency of the stop is measured from
// the answer to the start.
func (tr *targetRun) cycle(c *caller, user int64, due time.Time, both, start, stop op) {
	id, o := c.start(user, nil)
	if o == outcomeLimit {
		tr.countWrongRefusal(user, 1)
	}
	if o != outcomeOK {
		return
	}
	tr.recordLatency(start, due, 1)
	started := time.Now()
	switch c.stop(user, bytes.Clone(id)) {
	case outcomeOK:
		tr.recordLatency(stop, started, 1)
		tr.recordLatency(both, due, 1)
	case outcomeGone:
		if tr.enforcesLimit && tr.ctx.Err() == nil {
			tr.faults.add(faultLostStream, 1, "a stream of %s was gone when it was stopped, immediately after its start", tr.appendUserID(nil, user))
		}
	}
}

func lifecycle(ctx context.Context, tr *targetRun) error {
	cs, closeAll := tr.callers(ctx, tr.settings.Connections)
	defer closeAll()
	return tr.runLoad(ctx, len(cs), func(w int, n int64, due time.Time) {
		tr.cycle(cs[w], n%tr.settings.Users, due, opCycle, opStart, opStop)
	}, opCycle, opStart, opStop)
}

func heartbeat(ctx context.Context, tr *targetRun) error {
	vs := tr.viewers(tr.settings.Viewers, 1)
	vs.startAll(ctx, tr.settings.Connections)
	cs, closeAll := tr.callers(ctx, tr.settings.Connections)
	defer closeAll()
	stop := vs.keepAlive(ctx) // at low rates the interval between a viewer's turns may exceed the TTL
	err := tr.runLoad(ctx, len(cs), vs.heartbeatsInTurn(cs), opHeartbeat)
	stop()
	tr.setPhase("checking that every stream exists")
	vs.renewAll(ctx)
	return err
}

// heartbeatsInTurn returns a function that sends the viewers' heartbeats in turn, in
// batches of the size in the settings.
func (vs *viewers) heartbeatsInTurn(cs []*caller) func(int, int64, time.Time) {
	tr, size := vs.tr, int64(vs.tr.settings.Batch)
	if size == 1 {
		return func(w int, n int64, due time.Time) {
			if vs.heartbeat(cs[w], n%vs.count()) == outcomeOK {
				tr.recordLatency(opHeartbeat, due, 1)
			}
		}
	}
	batches := (vs.count() + size - 1) / size
	return func(w int, n int64, due time.Time) {
		first := n % batches * size
		list := make([]int64, 0, size)
		for k := first; k < min(first+size, vs.count()); k++ {
			list = append(list, k)
		}
		if answered := vs.heartbeatBatch(cs[w], list); answered > 0 {
			tr.recordLatency(opHeartbeat, due, answered)
		}
	}
}

func refusals(ctx context.Context, tr *targetRun) error {
	vs := tr.viewers(tr.settings.Users*int64(max(tr.limit, 1)), int64(max(tr.limit, 1)))
	if tr.limit > 0 {
		vs.startAll(ctx, tr.settings.Connections)
	}
	stop := vs.keepAlive(ctx)
	defer stop()
	cs, closeAll := tr.callers(ctx, tr.settings.Connections)
	defer closeAll()
	return tr.runLoad(ctx, len(cs), func(w int, n int64, due time.Time) {
		user := n % tr.settings.Users
		switch _, o := cs[w].start(user, nil); o {
		case outcomeLimit:
			tr.recordLatency(opRefused, due, 1)
		case outcomeOK:
			tr.faults.add(faultWrongAdmission, 1, "%s was at the limit of %d", tr.appendUserID(nil, user), tr.limit)
		}
	}, opRefused)
}
