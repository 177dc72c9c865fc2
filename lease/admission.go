package lease

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"streamcount/lease/internal/commit"
	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/leasepool"
	"streamcount/lease/internal/leasestatus"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// A start is admitted in two steps: decide applies [policy.Decide] to a snapshot of the
// user's streams, and txn is the transaction that applies the decision if the snapshot
// and the rule are still valid.

// errLeaseStatusUnknown means that the user is at the limit unless a lease has expired,
// which is not known.
var errLeaseStatusUnknown = fmt.Errorf("%w: etcd's leader did not report which of the user's leases have expired",
	ErrUnavailable)

// decide sets a.rule and a.decision for a.snapshot, or returns a [*LimitError]. It does
// not reject a start by the replica, or by rules that are older than the streams:
// instead it replaces a.snapshot by a linearizable read. Nor does it reject a start
// because of a stream whose lease has expired: etcd revokes at most 1,000 expired leases
// a second, so decide queries the leader, and such a stream ends.
func (a *attempt) decide(ctx context.Context) error {
	start := a.start
	start.Evict = false // expired streams end before live ones
	ok, err := a.resolveAndDecide(start)
	if (err != nil || !ok) && (a.snapshot.fromCache || a.snapshot.rulesMayBeStale) {
		if a.snapshot, err = a.readSnapshot(ctx); err != nil {
			return err
		}
		ok, err = a.resolveAndDecide(start)
	}
	if err != nil || ok {
		return err
	}
	start, denial, err := a.withoutForbiddenEviction(ctx)
	if err != nil {
		return err
	}
	statuses := a.l.leaseStatus.OfUser(ctx, a.user, a.snapshot.term, a.snapshot.leases())
	expired, maybeExpired := make(map[int64]bool), make(map[int64]bool)
	for _, e := range a.snapshot.entries {
		s, known := statuses[e.Lease]
		expired[e.Lease] = s.Expired
		maybeExpired[e.Lease] = s.Expired || !known && e.Lease != 0
	}
	if a.decision, ok = decideOn(a.rule, a.snapshot.entries, expired, start); ok {
		return nil
	}
	if _, ok := decideOn(a.rule, a.snapshot.entries, maybeExpired, start); ok {
		return errLeaseStatusUnknown
	}
	rejection := a.l.limitError(a.user, a.rule, a.snapshot.entries, statuses)
	rejection.NoEviction, rejection.EvictAfter = denial.reason, denial.retryAfter
	rejection.explain(a.rule, a.snapshot.entries, expired, start)
	return rejection
}

// resolveAndDecide sets a.rule and a.decision without regard to expired leases. It
// reports whether the start is admitted.
func (a *attempt) resolveAndDecide(start policy.Start) (ok bool, err error) {
	if err := a.resolve(a.snapshot.rules); err != nil {
		return false, err
	}
	start.Attributes = a.start.Attributes
	a.decision, ok = decideOn(a.rule, a.snapshot.entries, nil, start)
	return ok, nil
}

// resolve sets a.rule, and the attributes of a.start if the rule needs them. It returns a
// [*policy.MissingAttributesError] if the rule requires attributes that the start does not state.
func (a *attempt) resolve(from policy.Source) (err error) {
	if a.rule, err = policy.Resolve(from, a.user, a.claims, a.l.defaults); err != nil || !a.rule.NeedsAttributes() {
		return err
	}
	if a.start.Attributes == nil {
		record := schema.Record{Region: a.l.cfg.Region}
		a.req.describe(&record)
		a.start.Attributes = record.PolicyAttributes()
	}
	return a.rule.CheckRequired(a.start.Attributes)
}

// decideOn applies the rule to entries. expired are the leases that have expired. In
// the decision, the index of a stream is that of its entry.
func decideOn(r policy.Rule, entries []schema.Entry, expired map[int64]bool, s policy.Start) (policy.Decision, bool) {
	var buf [8]policy.Stream
	return policy.Decide(r, appendStreams(buf[:0], r, entries, expired), s)
}

// appendStreams appends entries in the form that the rule takes.
func appendStreams(to []policy.Stream, r policy.Rule, entries []schema.Entry, expired map[int64]bool) []policy.Stream {
	for i := range entries {
		st := entries[i].PolicyStream(&r)
		st.Index, st.Expired = i, expired[entries[i].Lease]
		to = append(to, st)
	}
	return to
}

// countEntries returns what entries count for under the rule.
func countEntries(r policy.Rule, entries []schema.Entry) int {
	if r.Counting.PerStream() {
		return len(entries)
	}
	var buf [8]policy.Stream
	return r.Count(appendStreams(buf[:0], r, entries, nil))
}

// An evictionDenial is why a start may not evict a stream, and for how long.
type evictionDenial struct {
	reason     NoEvictionReason
	retryAfter time.Duration
}

// withoutForbiddenEviction returns a.start without Evict if the rule or a cooldown
// forbids evictions.
func (a *attempt) withoutForbiddenEviction(ctx context.Context) (policy.Start, evictionDenial, error) {
	start := a.start
	switch {
	case !start.Evict:
		return start, evictionDenial{}, nil
	case !a.rule.MayEvict():
		start.Evict = false
		return start, evictionDenial{reason: NoEvictionPlan}, nil
	}
	left, err := a.cooldownLeft(ctx)
	if err != nil || left == 0 {
		return start, evictionDenial{}, err
	}
	start.Evict = false
	return start, evictionDenial{NoEvictionCooldown, left}, nil
}

// limitError returns the rejection of a start of a user at the limit.
func (l *Limiter) limitError(
	user string, r policy.Rule, entries []schema.Entry, statuses map[int64]leasestatus.Status,
) *LimitError {
	err := &LimitError{Limit: r.Limit, Counted: countEntries(r, entries), RetryAfter: l.cfg.TTL}
	for _, e := range entries {
		s := l.stream(user, e)
		s.ExpiresAt = statuses[e.Lease].NotExpiredBefore()
		if !s.ExpiresAt.IsZero() {
			err.RetryAfter = min(err.RetryAfter, time.Until(s.ExpiresAt))
		}
		err.Active = append(err.Active, s)
	}
	err.RetryAfter = max(err.RetryAfter, time.Second)
	return err
}

// explain sets what a rule with several limits reports: the limits that reject the start.
func (e *LimitError) explain(r policy.Rule, entries []schema.Entry, expired map[int64]bool, s policy.Start) {
	if !r.NeedsAttributes() {
		return
	}
	refusal, refused := policy.Refuse(r, appendStreams(nil, r, entries, expired), s)
	if !refused {
		return
	}
	e.Limits, e.Blocking = refusal.Limits, refusal.Streams
	e.Limit, e.Counted = refusal.Limits[0].Limit, refusal.Limits[0].Counted
	if s.Evict && e.NoEviction == "" {
		e.NoEviction = NoEvictionPlan
	}
}

// txn returns the transaction that applies the decision. It succeeds if all of these
// hold: no key of the user was put after the snapshot, every stream to be ended is still
// the same put, the rule is unchanged, and the routing record is still the put by which
// the user was routed here. Deletions do not matter, because they only free slots. If
// the transaction fails, it reads the user's keys.
func (a *attempt) txn() *pb.TxnRequest {
	all := etcdop.Prefix(a.l.keys.UserPrefix(a.user))
	key := a.l.keys.Slot(a.user, a.decision.Slot)
	t := &pb.TxnRequest{
		Compare: []*pb.Compare{etcdop.NoPutAfter(all, a.snapshot.rev)},
		Success: []*pb.RequestOp{etcdop.Put(key, a.value, a.lease.ID)},
		Failure: []*pb.RequestOp{etcdop.Read(all)},
	}
	t.Compare = append(t.Compare, a.l.rules.Guards(a.user, a.rule)...)
	t.Compare = append(t.Compare, etcdop.ModRevisionIs(a.l.keys.Routing(), a.req.RoutingRevision))
	for e := range a.endings() {
		t.Compare = append(t.Compare, etcdop.ModRevisionIs(e.Key, e.ModRevision))
		if e.Key != key {
			t.Success = append(t.Success, etcdop.Delete(etcdop.Key(e.Key)))
		}
	}
	t.Success = append(t.Success, a.cooldownOps()...)
	if len(a.snapshot.entries) > 0 { // otherwise the count is 1
		t.Success = append(t.Success, usageOp(a.rule, all))
	}
	return t
}

// admittedUsage returns the user's usage at the revision of the successful transaction.
func (a *attempt) admittedUsage(resp *pb.TxnResponse) Usage {
	if len(a.snapshot.entries) == 0 {
		return Usage{User: a.user, Count: 1, Limit: a.rule.Limit, Counted: 1}
	}
	return a.l.usage(a.user, a.rule, resp.Responses[len(resp.Responses)-1].GetResponseRange())
}

// refresh sets a.snapshot to what the failed transaction read. If neither the user's
// keys nor the streams to be ended have changed, the rule has changed, so refresh reads
// the rules too.
func (a *attempt) refresh(ctx context.Context, resp *pb.TxnResponse, at commit.Point) (err error) {
	now := newSnapshot(a.user, a.l.keys, at.Revision, at.Term, resp.Responses[0].GetResponseRange().Kvs)
	if a.conflicts(now) {
		now.rules, now.rulesMayBeStale = a.snapshot.rules, true
		a.snapshot = now
		return nil
	}
	a.snapshot, err = a.readSnapshot(ctx)
	return err
}

// conflicts reports whether the user's streams are the reason that the transaction
// failed.
func (a *attempt) conflicts(now snapshot) bool {
	for _, e := range now.entries {
		if e.ModRevision > a.snapshot.rev {
			return true
		}
	}
	for ended := range a.endings() {
		if !slices.ContainsFunc(now.entries, func(e schema.Entry) bool {
			return e.Key == ended.Key && e.ModRevision == ended.ModRevision
		}) {
			return true
		}
	}
	return false
}

// endings iterates over the streams that the decision ends.
func (a *attempt) endings() iter.Seq2[schema.Entry, policy.Reason] {
	return func(yield func(schema.Entry, policy.Reason) bool) {
		for _, e := range a.decision.Endings {
			if !yield(a.snapshot.entries[e.Stream.Index], e.Reason) {
				return
			}
		}
	}
}

// needsTombstone reports whether the reason of an ended stream is to be recorded.
// An expired stream has no client, nor has a key that streamcount did not write.
func needsTombstone(e schema.Entry, reason policy.Reason) bool {
	return reason != policy.ReasonExpired && e.Nonce != (streamid.Nonce{})
}

// tombstones returns the tombstones of the streams that the decision ends.
func (a *attempt) tombstones() []schema.Tombstone {
	var out []schema.Tombstone
	for _, end := range a.decision.Endings {
		if e := a.snapshot.entries[end.Stream.Index]; needsTombstone(e, end.Reason) {
			t := schema.NewTombstone(a.user, e, end.Reason)
			t.Limits = end.Limits
			t.By = &schema.Replacement{Device: schema.Device(a.req.Device), Started: a.record.Started}
			if e.Session == a.req.Session {
				t.Bar = schema.BarKey{} // the session continues
			}
			out = append(out, t)
		}
	}
	return out
}

// endedStreams returns the streams that the start has ended, except expired ones.
func (a *attempt) endedStreams() []Ended {
	var out []Ended
	for e, reason := range a.endings() {
		if needsTombstone(e, reason) {
			out = append(out, Ended{a.l.stream(a.user, e), reason})
		}
	}
	return out
}

// leasesOfEnded returns the leases of the streams that the decision ends, except those
// of expired streams, which etcd is about to revoke.
func (a *attempt) leasesOfEnded() []leasepool.Lease {
	var out []leasepool.Lease
	for e, reason := range a.endings() {
		if g := a.l.leaseOf(a.user, e); g.ID != 0 && reason != policy.ReasonExpired {
			out = append(out, g)
		}
	}
	return out
}
