package lease

import (
	"cmp"
	"context"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/rules"
)

// A snapshot contains a user's keys at one etcd revision.
type snapshot struct {
	rev     int64
	term    uint64         // raft term of the member that answered; 0 for the replica
	entries []schema.Entry // oldest first
	// fromCache means that the snapshot is from the replica, which may be stale.
	fromCache bool
	rules     policy.Source
	// rulesMayBeStale means that the rules are older than the entries. They are good
	// enough to attempt a write, whose transaction checks them, but not to reject a start.
	rulesMayBeStale bool
}

// leases returns the leases of the keys.
func (s snapshot) leases() []int64 {
	ids := make([]int64, 0, len(s.entries))
	for _, e := range s.entries {
		if e.Lease != 0 {
			ids = append(ids, e.Lease)
		}
	}
	return ids
}

func newSnapshot(user string, k schema.Keys, rev int64, term uint64, kvs []*mvccpb.KeyValue) snapshot {
	return snapshot{rev: rev, term: term, entries: schema.NewEntries(k, user, kvs)}
}

// readUser returns the user's streams by a linearizable read, which needs no disk write.
func (l *Limiter) readUser(ctx context.Context, user string) (snapshot, error) {
	resp, err := l.etcd.KV.Range(ctx, etcdop.Prefix(l.keys.UserPrefix(user)).Request())
	if err != nil {
		return snapshot{}, etcdop.Unavailable("read "+user, err)
	}
	return newSnapshot(user, l.keys, resp.Header.Revision, resp.Header.RaftTerm, resp.Kvs), nil
}

// readSnapshot returns the streams of the user and their rules at one revision, by a
// linearizable read.
func (a *attempt) readSnapshot(ctx context.Context) (snapshot, error) {
	l := a.l
	plans := []string{policy.DefaultPlan, cmp.Or(a.claims.Plan, a.claims.GrantedPlan, policy.DefaultPlan)}
	if o, _ := l.replica.Rules().Override(a.user); o != nil && o.Plan != "" {
		plans = append(plans, o.Plan)
	}
	for {
		ranges := []etcdop.Range{etcdop.Prefix(l.keys.UserPrefix(a.user)), etcdop.Key(l.keys.Override(a.user))}
		for _, name := range plans {
			ranges = append(ranges, etcdop.Key(l.keys.Plan(name)))
		}
		ranges = append(ranges, etcdop.Key(l.keys.Routing()))
		resp, err := etcdop.ReadAll(ctx, l.etcd.KV, ranges...)
		if err != nil {
			return snapshot{}, etcdop.Unavailable("read "+a.user, err)
		}
		last := len(ranges) - 1
		if err := l.replica.CheckRouting(resp.Responses[last].GetResponseRange().Kvs, a.req.RoutingRevision); err != nil {
			return snapshot{}, err
		}
		stored := rules.NewStored(l.keys, resp.Responses[1:last])
		if o, _ := stored.Override(a.user); o != nil && o.Plan != "" && !slices.Contains(plans, o.Plan) {
			plans = append(plans, o.Plan) // the replica does not contain it yet
			continue
		}
		s := newSnapshot(a.user, l.keys, resp.Header.Revision, resp.Header.RaftTerm, resp.Responses[0].GetResponseRange().Kvs)
		s.rules = stored
		return s, nil
	}
}

// snapshotOf returns the user's streams at a revision that is not older than the last
// write of this node to the user. It uses the replica if possible.
func (l *Limiter) snapshotOf(ctx context.Context, user string) (snapshot, error) {
	if s, ok := l.cachedSnapshot(ctx, user); ok {
		return s, nil
	}
	return l.readUser(ctx, user)
}

// loadSnapshot is like snapshotOf. The snapshot has the rules for the user. A start with Via
// always reads etcd; see checkBar.
func (a *attempt) loadSnapshot(ctx context.Context) (snapshot, error) {
	if a.req.Via != "" {
		return a.readSnapshot(ctx)
	}
	if s, ok := a.l.cachedSnapshot(ctx, a.user); ok {
		return s, nil
	}
	return a.readSnapshot(ctx)
}

// cachedSnapshot is like snapshotOf. It reports false if the replica is too old.
func (l *Limiter) cachedSnapshot(ctx context.Context, user string) (snapshot, bool) {
	if !l.waitForOwnWrite(ctx, user) {
		return snapshot{}, false
	}
	entries, rev, ok := l.replica.UserEntries(user)
	return snapshot{rev: rev, entries: entries, rules: l.replica.Rules(), fromCache: true}, ok
}

// waitForOwnWrite waits until the replica contains the last write of this node to the
// user, for at most ownWriteWait. It reports whether it does.
func (l *Limiter) waitForOwnWrite(ctx context.Context, user string) bool {
	rev, ok := l.ownWrites.Get(user)
	if !ok {
		return true
	}
	wait, cancel := context.WithTimeout(ctx, ownWriteWait)
	defer cancel()
	return l.replica.WaitApplied(wait, rev)
}

// ruleOf returns the rule of user by this node's replica, for display. value is the
// record of one of the user's streams, which contains the claims of its start; nil if
// there is none.
func (l *Limiter) ruleOf(user string, value []byte) policy.Rule {
	plan, limit := schema.DecodeClaims(value)
	// Resolve fails only if this version cannot read a rule. The limit 0 is then true: no
	// start is admitted.
	r, _ := policy.Resolve(l.replica.Rules(), user, policy.Claims{GrantedPlan: plan, Limit: limit}, l.defaults)
	return r
}

// newestRecord returns the record of the stream that started last; nil if there is none.
func newestRecord(entries []schema.Entry) []byte {
	if len(entries) == 0 {
		return nil
	}
	return entries[len(entries)-1].Value
}

// displayLimit returns the limit of user by this node's replica.
func (l *Limiter) displayLimit(user string) int {
	entries, _, _ := l.replica.UserEntries(user)
	return l.ruleOf(user, newestRecord(entries)).Limit
}

// usageOp returns the operation that reads what usage needs.
func usageOp(r policy.Rule, all etcdop.Range) *pb.RequestOp {
	if r.Counting.PerStream() {
		return etcdop.Count(all)
	}
	return etcdop.Read(all)
}

// usage returns the usage that the answer to a usageOp contains.
func (l *Limiter) usage(user string, r policy.Rule, resp *pb.RangeResponse) Usage {
	u := Usage{User: user, Count: int(resp.Count), Limit: r.Limit, Counted: int(resp.Count)}
	if !r.Counting.PerStream() {
		u.Counted = countEntries(r, schema.NewEntries(l.keys, user, resp.Kvs))
	}
	return u
}

// usageAt returns the usage of user at revision rev, or that of s if etcd does not
// return it.
func (l *Limiter) usageAt(ctx context.Context, user string, r policy.Rule, rev int64, s snapshot) Usage {
	req := etcdop.Prefix(l.keys.UserPrefix(user)).Request()
	req.Revision = rev
	resp, err := l.etcd.KV.Range(ctx, req)
	if err != nil {
		return Usage{User: user, Count: len(s.entries), Limit: r.Limit, Counted: countEntries(r, s.entries)}
	}
	return l.usage(user, r, resp)
}
