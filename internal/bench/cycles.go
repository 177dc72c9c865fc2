package bench

import (
	"bytes"
	"context"
	"time"
)

// cycle starts a stream of user and stops it. The stop's clock starts when the
// start is answered.
func (v *visit) cycle(c *caller, user int64, due time.Time, both, start, stop op) {
	id, o := c.start(user, nil)
	if o == full {
		v.wronglyRefused(user, 1)
	}
	if o != done {
		return
	}
	v.record(start, due, 1)
	started := time.Now()
	switch c.stop(user, bytes.Clone(id)) {
	case done:
		v.record(stop, started, 1)
		v.record(both, due, 1)
	case gone:
		if v.counts && v.ctx.Err() == nil {
			v.tally.add(lost, 1, "%s was gone when it was stopped, right after its start", v.appendUser(nil, user))
		}
	}
}

func lifecycle(ctx context.Context, v *visit) error {
	cs, hangUp := v.callers(ctx, v.s.Connections)
	defer hangUp()
	return v.load(ctx, len(cs), func(w int, n int64, due time.Time) {
		v.cycle(cs[w], n%v.s.Users, due, opCycle, opStart, opStop)
	}, opCycle, opStart, opStop)
}

func heartbeat(ctx context.Context, v *visit) error {
	vs := v.viewers(v.s.Viewers, 1)
	vs.fill(ctx, v.s.Connections)
	cs, hangUp := v.callers(ctx, v.s.Connections)
	defer hangUp()
	stop := vs.keep(ctx) // at low rates a viewer's turn may come too late
	err := v.load(ctx, len(cs), vs.turns(cs), opHeartbeat)
	stop()
	v.phase("checking that every viewer is alive")
	vs.check(ctx)
	return err
}

// turns sends the viewers' heartbeats one after another, in batches if so set.
func (vs *viewers) turns(cs []*caller) func(int, int64, time.Time) {
	v, size := vs.v, int64(vs.v.s.Batch)
	if size == 1 {
		return func(w int, n int64, due time.Time) {
			if vs.beat(cs[w], n%vs.count()) == done {
				v.record(opHeartbeat, due, 1)
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
		if answered := vs.batch(cs[w], list); answered > 0 {
			v.record(opHeartbeat, due, answered)
		}
	}
}

func refusals(ctx context.Context, v *visit) error {
	vs := v.viewers(v.s.Users*int64(max(v.limit, 1)), int64(max(v.limit, 1)))
	if v.limit > 0 {
		vs.fill(ctx, v.s.Connections)
	}
	stop := vs.keep(ctx)
	defer stop()
	cs, hangUp := v.callers(ctx, v.s.Connections)
	defer hangUp()
	return v.load(ctx, len(cs), func(w int, n int64, due time.Time) {
		user := n % v.s.Users
		switch _, o := cs[w].start(user, nil); o {
		case full:
			v.record(opRefused, due, 1)
		case done:
			v.tally.add(admitted, 1, "%s was at the limit of %d", v.appendUser(nil, user), v.limit)
		}
	}, opRefused)
}
