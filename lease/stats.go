package lease

import (
	"context"
	"errors"
	"time"

	"streamcount/lease/policy"
	"streamcount/lease/stats"
	"streamcount/lease/streamid"
)

// Stats returns what l has counted, and its state.
func (l *Limiter) Stats() *stats.Snapshot {
	out := l.counters.Snapshot()
	out.WritesWaiting, out.EtcdFull = l.batch.Waiting(), l.batch.EtcdFull()
	out.BreakerOpen, out.BreakerOpenings = l.breaker.IsOpen(), l.breaker.Openings()
	out.Provisional, out.Cleaning = l.provisional.Len(), l.cleaner.Queued()
	out.LeasesReady, out.LeasesToRevoke = l.pool.Sizes()
	m := l.pool.Moves()
	out.Leases = map[string]int64{
		"granted": m.Granted, "returned": m.Returned, "taken": m.Taken, "reused": m.Reused,
		"revoked": m.Revoked, "abandoned": m.Abandoned,
	}
	out.UnreadablePlans, out.UnreadableOverrides = l.replica.Rules().CountUnreadable()
	l.addReplicaStats(out)
	return out
}

// atLimitMaxAge is the maximum age of the number of users at their limit in [Limiter.Stats],
// if there are other limits than the default: counting them requires an iteration over all
// users.
const atLimitMaxAge = 30 * time.Second

// addReplicaStats sets the fields that describe the replica.
func (l *Limiter) addReplicaStats(out *stats.Snapshot) {
	usual := l.ruleOf("", nil)
	t, claims := l.countStreams(usual.Limit)
	if claims || !usual.Counting.PerStream() || l.replica.Rules().HasOverrides() {
		t.UsersAtLimit = l.atLimitCount.Within(atLimitMaxAge, l.countUsersAtLimit)
	}
	out.Streams, out.UsersAtLimit, out.Revision = t.Streams, t.UsersAtLimit, t.Revision
	out.Users, out.Regions = l.replica.Distribution(policy.MaxLimit + 1)
	out.Regions[l.cfg.Region] += 0
	out.Via = map[string]int{"player": t.Streams, "edge": 0}
	for via, n := range t.ByVia {
		out.Via[via] = n
		out.Via["player"] -= n
	}
	l.counters.AddUnusedNumbers(out.Users, usual.Limit)
	out.Expired = l.counters.Expired(l.replica.Expiries())
	since := l.counters.Since()
	if last := l.replica.ProgressTime(); !last.IsZero() {
		since = last
	}
	out.ReplicaAge, out.ReplicaCurrent = time.Since(since), l.replica.Current()
}

// countStart counts the outcome of a start. It does not count a start that was sent to the
// wrong shard, which is repeated on another one.
func (l *Limiter) countStart(ctx context.Context, st *Started, err error) {
	o := stats.StartAbandoned
	switch {
	case err == nil && st.Joined: // it is counted as a heartbeat
		return
	case err == nil:
		o = admissionOutcome(st)
		l.counters.WouldRefuse(st.Observed)
	case errors.Is(ctx.Err(), context.Canceled):
	case errors.Is(err, ErrRouting), errors.Is(err, ErrEnded):
		return
	case isLimit(err):
		o = stats.StartRefused
		full, _ := errors.AsType[*LimitError](err)
		l.counters.Refused(full.LimitNames())
	case errors.Is(err, ErrUnavailable):
		o = stats.StartUnavailable
	case errors.Is(err, ErrBadUser), errors.Is(err, streamid.ErrMalformed), errors.Is(err, streamid.ErrForeign), errors.Is(err, policy.ErrNoPlan),
		errors.Is(err, policy.ErrBadAttributes), errors.Is(err, policy.ErrMissingAttributes):
		o = stats.StartInvalid
	}
	l.counters.Start(o)
}

// admissionOutcome returns the outcome of an admitted start.
func admissionOutcome(st *Started) stats.StartOutcome {
	if st.Stream.Degraded {
		return stats.StartProvisional
	}
	o := stats.StartAdmitted
	for _, e := range st.Ended {
		if e.Reason == policy.ReasonEvicted {
			return stats.StartEvicted
		}
		o = stats.StartTookOver
	}
	return o
}

// countHeartbeat counts the outcome of a heartbeat that was not coalesced.
func (l *Limiter) countHeartbeat(r HeartbeatResult) {
	o := stats.HeartbeatAlive
	switch {
	case errors.Is(r.Err, ErrEnded):
		o = stats.HeartbeatEnded
	case r.Err != nil:
		o = stats.HeartbeatInvalid
	case r.Degraded:
		o = stats.HeartbeatDegraded
	}
	l.counters.Heartbeat(o)
}

// countStop counts the outcome of a stop or a removal.
func (l *Limiter) countStop(err error) {
	o := stats.StopInvalid
	switch {
	case err == nil:
		o = stats.StopDone
	case errors.Is(err, ErrEnded), errors.Is(err, ErrNoStreams):
		o = stats.StopGone
	case errors.Is(err, ErrUnavailable):
		o = stats.StopUnavailable
	case errors.Is(err, ErrRouting):
		return
	}
	l.counters.Stop(o)
}
