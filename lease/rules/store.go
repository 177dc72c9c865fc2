package rules

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"

	"streamcount/internal/retry"
	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/leasepool"
	"streamcount/lease/internal/replica"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/userid"
)

var (
	// ErrNoOverride means that the user has no override. The error is a [*NoOverrideError].
	ErrNoOverride = errors.New("lease: user has no override")
	// ErrChanged means that another caller has changed a rule. Nothing was applied.
	ErrChanged = errors.New("lease: the rules have changed")

	errBadPlanName  = fmt.Errorf("%w: a plan's name is 1 to 64 letters, digits and . _ -", policy.ErrBadRule)
	errReplicaStale = errors.New("this node is still reading the rules from etcd: try again in a moment, or use another node")
	errUnknown      = errors.New("etcd did not answer whether the rules were written, and they are not in force yet")
)

// A NoOverrideError contains the limit of a user without an override. It is an
// [ErrNoOverride].
type NoOverrideError struct{ Limit int }

func (e *NoOverrideError) Error() string {
	return fmt.Sprintf("%v: the limit is %d", ErrNoOverride, e.Limit)
}

// Unwrap makes a NoOverrideError an [ErrNoOverride].
func (e *NoOverrideError) Unwrap() error { return ErrNoOverride }

// A Store reads and changes the rules of one etcd cluster. It is safe for concurrent use.
//
// A changed rule applies to every start whose transaction comes after that of the change,
// on any node, because an admission compares the revisions of its rules. Every change also
// puts one key that is common to all rules, so a set of rules can detect any other change.
//
// Each call returns lease.ErrUnavailable if etcd does not answer, or if this version cannot
// read the rule. A rule that cannot be read may be replaced or removed.
type Store struct {
	cfg         Config
	cachedGuard atomic.Pointer[pb.Compare]
}

// Config configures a [Store].
type Config struct {
	KV           pb.KVClient
	Keys         schema.Keys
	Replica      *replica.Replica
	WithDeadline func(context.Context) (context.Context, context.CancelFunc) // bounds a call
	Limit        func(user string) int                                       // returns the limit of a user by the replica
	Defaults     policy.Defaults                                             // the limit of users without another
	Granter      *leasepool.Granter                                          // of the leases of overrides that end
	// Nodes lists the registered nodes; nil if there are none.
	Nodes func(context.Context) ([]Node, error)
}

// New returns a Store.
func New(cfg Config) *Store { return &Store{cfg: cfg} }

const (
	retryDelay = 20 * time.Millisecond
	// maxReplicaWait is how long a change waits for the replica to contain it.
	maxReplicaWait = 100 * time.Millisecond
)

// retryPause waits before the next attempt. It reports whether ctx ended.
func retryPause(ctx context.Context) (over bool) { return retry.Sleep(ctx, retryDelay) != nil }

// Unreadable returns the names of the plans, and of the users with an override, in this
// node's replica that this version cannot read. Starts of users with these rules are
// answered with lease.ErrUnavailable until the rules are replaced or removed.
func (s *Store) Unreadable() (plans, users []string) { return s.cfg.Replica.Rules().Unreadable() }

// Needs returns what a version must support to apply all rules in this node's replica that
// this version can read.
func (s *Store) Needs() []string { return s.cfg.Replica.Rules().Needs() }

// Plans returns all plans in this node's replica, except those in Unreadable.
func (s *Store) Plans(ctx context.Context) (map[string]policy.Plan, error) {
	ctx, cancel := s.cfg.WithDeadline(ctx)
	defer cancel()
	for !s.cfg.Replica.WaitOwnWrites(ctx) {
		if retryPause(ctx) {
			return nil, etcdop.Unavailable("list plans", errReplicaStale)
		}
	}
	return s.cfg.Replica.Rules().Plans(), nil
}

// Plan returns the plan with that name. It returns [policy.ErrNoPlan], and
// [policy.ErrBadRule] for an invalid name.
func (s *Store) Plan(ctx context.Context, name string) (policy.Plan, error) {
	if !policy.ValidPlan(name) {
		return policy.Plan{}, errBadPlanName
	}
	kv, err := s.readKey(ctx, s.cfg.Keys.Plan(name))
	if err != nil {
		return policy.Plan{}, err
	}
	if kv != nil {
		if p := schema.DecodePlan(kv.Value); p != nil {
			return *p, nil
		}
		return policy.Plan{}, etcdop.Unavailable("read a rule", &policy.UnreadableError{Plan: name})
	}
	return policy.Plan{}, policy.ErrNoPlan
}

// SetPlan creates or replaces a plan, and returns the previous one, or nil. It returns
// [policy.ErrBadRule].
func (s *Store) SetPlan(ctx context.Context, name string, p policy.Plan) (old *policy.Plan, err error) {
	c, err := s.Apply(ctx, Set{Plans: map[string]*policy.Plan{name: &p}}, Options{})
	if err != nil {
		return nil, err
	}
	if len(c.Plans) == 0 { // unchanged
		p = p.WithDefaults()
		return &p, nil
	}
	return c.Plans[0].Old, nil
}

// RemovePlan removes and returns a plan. Users with that plan then have the default
// plan. It returns [policy.ErrNoPlan] and [policy.ErrBadRule].
func (s *Store) RemovePlan(ctx context.Context, name string) (old policy.Plan, err error) {
	c, err := s.Apply(ctx, Set{Plans: map[string]*policy.Plan{name: nil}}, Options{})
	if err != nil {
		return policy.Plan{}, err
	}
	if len(c.Plans) == 0 {
		return policy.Plan{}, policy.ErrNoPlan
	}
	return *c.Plans[0].Old, nil
}

// Override returns the override of user. It returns a [*NoOverrideError], and
// lease.ErrBadUser.
func (s *Store) Override(ctx context.Context, user string) (policy.Override, error) {
	if !userid.Valid(user) {
		return policy.Override{}, schema.ErrBadUserID
	}
	kv, err := s.readKey(ctx, s.cfg.Keys.Override(user))
	if err != nil {
		return policy.Override{}, err
	}
	if kv != nil {
		if o := schema.DecodeOverride(kv.Value); o != nil {
			return *o, nil
		}
		return policy.Override{}, etcdop.Unavailable("read a rule", &policy.UnreadableError{User: user})
	}
	return policy.Override{}, &NoOverrideError{Limit: s.cfg.Limit(user)}
}

// SetOverride sets the override of user, and returns the previous one, or nil. It
// returns lease.ErrBadUser, [policy.ErrBadRule] and [policy.ErrNoPlan].
func (s *Store) SetOverride(ctx context.Context, user string, o policy.Override) (old *policy.Override, err error) {
	c, err := s.Apply(ctx, Set{Users: map[string]*policy.Override{user: &o}}, Options{})
	if err != nil {
		return nil, err
	}
	if len(c.Users) == 0 {
		return &o, nil
	}
	return c.Users[0].Old, nil
}

// RemoveOverride removes and returns the override of user. It returns a
// [*NoOverrideError], and lease.ErrBadUser.
func (s *Store) RemoveOverride(ctx context.Context, user string) (old policy.Override, err error) {
	c, err := s.Apply(ctx, Set{Users: map[string]*policy.Override{user: nil}}, Options{})
	if err != nil {
		return policy.Override{}, err
	}
	if len(c.Users) == 0 {
		return policy.Override{}, &NoOverrideError{Limit: s.cfg.Limit(user)}
	}
	return *c.Users[0].Old, nil
}

// Apply applies a set of rules in one transaction, and returns the changes. An override
// may name a plan of the same set. Apply may be repeated. It returns lease.ErrBadUser,
// [policy.ErrBadRule], [policy.ErrNoPlan], [ErrChanged], [ErrOlderNodes], lease.ErrRouting,
// and lease.ErrUnavailable, after which the set may or may not be in force.
func (s *Store) Apply(ctx context.Context, set Set, how Options) (Changes, error) {
	set, err := set.validate(time.Now())
	if err != nil {
		return Changes{}, err
	}
	ctx, cancel := s.cfg.WithDeadline(ctx)
	defer cancel()
	leases := endLeases{granter: s.cfg.Granter}
	defer leases.revokeUnused()
	for {
		now, err := s.read(ctx, set)
		if err != nil {
			return Changes{}, etcdop.Unavailable("read rules", err)
		}
		if now.routingRevision != how.RoutingRevision {
			return Changes{}, schema.ErrRouting
		}
		if how.Since != 0 && now.changed > how.Since {
			return Changes{}, ErrChanged
		}
		if err := set.checkPlansExist(now); err != nil {
			return Changes{}, err
		}
		c := set.changes(now)
		if err := s.checkNodes(ctx, c); err != nil {
			return Changes{}, err
		}
		if how.DryRun || len(c.Plans)+len(c.Users) == 0 {
			return c, nil
		}
		if err := leases.grant(ctx, c); err != nil {
			return Changes{}, err
		}
		resp, err := s.cfg.KV.Txn(ctx, s.txn(c, leases.byUser, now.changed, how.RoutingRevision))
		err = etcdop.Classify(err)
		unknown := err != nil && !errors.Is(err, etcdop.ErrNotApplied) && !errors.Is(err, etcdop.ErrLeaseGone)
		if unknown || err == nil && resp.Succeeded {
			leases.keep()
		}
		switch {
		case unknown && !retryPause(ctx):
			// If the change was applied, another attempt would take it for the change of
			// another caller, because of how.Since.
			return s.resolveUnknownOutcome(ctx, set, c, now)
		case errors.Is(err, etcdop.ErrLeaseGone):
			leases.revokeUnused() // the time of an override has come, or a lease was revoked
		case err != nil:
			return Changes{}, etcdop.Unavailable("write rules", err)
		case resp.Succeeded:
			s.finish(ctx, &c, now, resp.Header.Revision)
			return c, nil
		}
		if retryPause(ctx) { // otherwise another caller has changed a rule: read again
			return Changes{}, etcdop.Unavailable("write rules", context.Cause(ctx))
		}
	}
}

// finish completes a change that was applied, at the latest at a revision. before are the
// rules before it.
func (s *Store) finish(ctx context.Context, c *Changes, before snapshot, revision int64) {
	c.Revision = revision
	s.RevokeLeases(before.overrides(*c))
	s.waitForReplica(ctx, revision)
}

// resolveUnknownOutcome finds out whether a set is in force after a write that etcd did
// not answer. before are the rules before the write.
func (s *Store) resolveUnknownOutcome(ctx context.Context, set Set, wanted Changes, before snapshot) (Changes, error) {
	for {
		now, err := s.read(ctx, set)
		if err == nil {
			if left := set.changes(now); len(left.Plans)+len(left.Users) > 0 {
				return Changes{}, etcdop.Unavailable("write rules", errUnknown)
			}
			s.finish(ctx, &wanted, before, now.rev)
			return wanted, nil
		}
		if retryPause(ctx) {
			return Changes{}, etcdop.Unavailable("write rules", err)
		}
	}
}

// waitForReplica waits until the replica contains a change of this node, for at most
// maxReplicaWait.
func (s *Store) waitForReplica(ctx context.Context, rev int64) {
	s.cfg.Replica.RecordOwnWrite(rev)
	wait, cancel := context.WithTimeout(ctx, maxReplicaWait)
	defer cancel()
	s.cfg.Replica.WaitApplied(wait, rev)
}

// txn returns the transaction that writes c if no rule was changed after revision
// changed. leases are those of the overrides that end, by user.
func (s *Store) txn(c Changes, leases map[string]int64, changed, routed int64) *pb.TxnRequest {
	ops := []*pb.RequestOp{etcdop.Put(s.cfg.Keys.Rules(), nil, 0)}
	for _, p := range c.Plans {
		if p.New == nil {
			ops = append(ops, etcdop.Delete(etcdop.Key(s.cfg.Keys.Plan(p.Name))))
		} else {
			ops = append(ops, etcdop.Put(s.cfg.Keys.Plan(p.Name), schema.EncodePlan(*p.New), 0))
		}
	}
	for _, u := range c.Users {
		if u.New == nil {
			ops = append(ops, etcdop.Delete(etcdop.Key(s.cfg.Keys.Override(u.User))))
		} else {
			ops = append(ops, etcdop.Put(s.cfg.Keys.Override(u.User), schema.EncodeOverride(*u.New), leases[u.User]))
		}
	}
	return &pb.TxnRequest{
		Compare: []*pb.Compare{etcdop.ModRevisionIs(s.cfg.Keys.Rules(), changed), etcdop.ModRevisionIs(s.cfg.Keys.Routing(), routed)},
		Success: etcdop.Nest(ops),
	}
}

// A snapshot contains the rules that a set concerns, at one revision.
type snapshot struct {
	Stored
	rev             int64
	changed         int64 // revision of the last change of any rule
	routingRevision int64 // revision of the routing record
}

// read reads the rules that a set concerns.
func (s *Store) read(ctx context.Context, set Set) (snapshot, error) {
	ranges := []etcdop.Range{etcdop.Key(s.cfg.Keys.Rules()), etcdop.Key(s.cfg.Keys.Routing())}
	plans := maps.Clone(set.Plans)
	for user, o := range set.Users {
		ranges = append(ranges, etcdop.Key(s.cfg.Keys.Override(user)))
		if o != nil && o.Plan != "" {
			plans[o.Plan] = nil
		}
	}
	for name := range plans {
		ranges = append(ranges, etcdop.Key(s.cfg.Keys.Plan(name)))
	}
	resp, err := etcdop.ReadAll(ctx, s.cfg.KV, ranges...)
	if err != nil {
		return snapshot{}, err
	}
	now := snapshot{Stored: NewStored(s.cfg.Keys, resp.Responses), rev: resp.Header.Revision}
	if kv := now.kvs[s.cfg.Keys.Rules()]; kv != nil {
		now.changed = kv.ModRevision
	}
	if kv := now.kvs[s.cfg.Keys.Routing()]; kv != nil {
		now.routingRevision = s.cfg.Replica.NoteRouting(schema.DecodeRoutingRecord(kv)).Revision
	}
	return now, nil
}

// readKey reads one key; nil if it does not exist.
func (s *Store) readKey(ctx context.Context, key string) (*mvccpb.KeyValue, error) {
	ctx, cancel := s.cfg.WithDeadline(ctx)
	defer cancel()
	kv, err := etcdop.ReadKey(ctx, s.cfg.KV, key)
	if err != nil {
		return nil, etcdop.Unavailable("read a rule", err)
	}
	return kv, nil
}
