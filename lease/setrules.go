package lease

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// Rules are in force for every start whose transaction comes after theirs, on
// any node: an admission asks that its rules were not changed since. Each write
// of a rule also writes one key of all rules, which tells whether any changed.

// Plans returns all plans as this node knows them. Returns [ErrUnavailable].
func (l *Limiter) Plans(ctx context.Context) (map[string]Plan, error) {
	ctx, cancel := l.bound(ctx)
	defer cancel()
	for !l.view.reach(ctx, l.view.own.Load()) {
		if pause(ctx) {
			return nil, unavailable("list plans", errViewBehind)
		}
	}
	return l.view.rules.all(), nil
}

// Plan returns the plan of that name. Returns [ErrNoPlan], [ErrBadRule] for what
// is no name, and [ErrUnavailable].
func (l *Limiter) Plan(ctx context.Context, name string) (Plan, error) {
	if !ValidPlan(name) {
		return Plan{}, errBadPlanName
	}
	kv, err := l.readRule(ctx, l.keys.plan(name))
	if err != nil {
		return Plan{}, err
	}
	if p := planIn(kv); p != nil {
		return *p, nil
	}
	return Plan{}, ErrNoPlan
}

var errBadPlanName = fmt.Errorf("%w: a plan's name is 1 to 64 letters, digits and . _ -", ErrBadRule)

// SetPlan makes p the plan of that name, and returns what it was before, nil if
// there was none. Returns [ErrBadRule] and [ErrUnavailable].
func (l *Limiter) SetPlan(ctx context.Context, name string, p Plan) (old *Plan, err error) {
	c, err := l.Apply(ctx, RuleSet{Plans: map[string]*Plan{name: &p}}, ApplyOptions{})
	if err != nil {
		return nil, err
	}
	if len(c.Plans) == 0 { // it was that already
		p = p.WithDefaults()
		return &p, nil
	}
	return c.Plans[0].Old, nil
}

// RemovePlan removes a plan, and returns what it was. Users who have it by name
// have the default plan from then on. Returns [ErrNoPlan], [ErrBadRule] and
// [ErrUnavailable].
func (l *Limiter) RemovePlan(ctx context.Context, name string) (old Plan, err error) {
	c, err := l.Apply(ctx, RuleSet{Plans: map[string]*Plan{name: nil}}, ApplyOptions{})
	if err != nil {
		return Plan{}, err
	}
	if len(c.Plans) == 0 {
		return Plan{}, ErrNoPlan
	}
	return *c.Plans[0].Old, nil
}

// Override returns what user has instead of the default. Returns a
// [*NoOverrideError], [ErrBadUser] and [ErrUnavailable].
func (l *Limiter) Override(ctx context.Context, user string) (Override, error) {
	if !ValidUser(user) {
		return Override{}, ErrBadUser
	}
	kv, err := l.readRule(ctx, l.keys.override(user))
	if err != nil {
		return Override{}, err
	}
	if o := overrideIn(kv); o != nil {
		return *o, nil
	}
	return Override{}, l.noOverride(user)
}

func (l *Limiter) noOverride(user string) error {
	s, _ := l.view.user(user)
	return &NoOverrideError{Limit: l.ruleOf(user, newest(s.held)).limit}
}

// SetOverride gives user a limit or plan of his own, and returns what he had, nil
// if nothing. Returns [ErrBadUser], [ErrBadRule], [ErrNoPlan] and
// [ErrUnavailable].
func (l *Limiter) SetOverride(ctx context.Context, user string, o Override) (old *Override, err error) {
	c, err := l.Apply(ctx, RuleSet{Users: map[string]*Override{user: &o}}, ApplyOptions{})
	if err != nil {
		return nil, err
	}
	if len(c.Users) == 0 {
		return &o, nil
	}
	return c.Users[0].Old, nil
}

// RemoveOverride takes away what user has of his own, and returns what it was.
// Returns a [*NoOverrideError], [ErrBadUser] and [ErrUnavailable].
func (l *Limiter) RemoveOverride(ctx context.Context, user string) (old Override, err error) {
	c, err := l.Apply(ctx, RuleSet{Users: map[string]*Override{user: nil}}, ApplyOptions{})
	if err != nil {
		return Override{}, err
	}
	if len(c.Users) == 0 {
		return Override{}, l.noOverride(user)
	}
	return *c.Users[0].Old, nil
}

// Apply makes a set of rules true in one transaction, and returns what that
// changed. An override may name a plan of the same set. It may be repeated.
// Returns [ErrBadUser], [ErrBadRule], [ErrNoPlan], [ErrRuleChanged],
// [ErrRouting], and [ErrUnavailable], after which the set may be in force or not.
func (l *Limiter) Apply(ctx context.Context, set RuleSet, how ApplyOptions) (Changes, error) {
	set, err := set.checked()
	if err != nil {
		return Changes{}, err
	}
	ctx, cancel := l.bound(ctx)
	defer cancel()
	for {
		now, err := l.readRules(ctx, set)
		if err != nil {
			return Changes{}, unavailable("read rules", err)
		}
		if now.routed != how.Routed {
			return Changes{}, ErrRouting
		}
		if how.Since != 0 && now.changed > how.Since {
			return Changes{}, ErrRuleChanged
		}
		if err := set.plansExist(now); err != nil {
			return Changes{}, err
		}
		c := set.changes(now)
		if how.DryRun || len(c.Plans)+len(c.Users) == 0 {
			return c, nil
		}
		resp, err := l.etcd.KV.Txn(ctx, l.rulesTxn(c, now.changed, how.Routed))
		switch {
		case err != nil && !errors.Is(classify(err), errNotApplied) && !pause(ctx):
			// The outcome is unknown. If it was applied, the next round sees it,
			// and another revision: how.Since must not take that for somebody else's.
			return l.settleRules(ctx, set, c)
		case err != nil:
			return Changes{}, unavailable("write rules", err)
		case resp.Succeeded:
			c.Revision = resp.Header.Revision
			l.wroteRules(ctx, c.Revision)
			return c, nil
		}
		if pause(ctx) { // somebody else was faster: look again
			return Changes{}, unavailable("write rules", context.Cause(ctx))
		}
	}
}

// settleRules finds out whether a set is in force whose write got no answer.
func (l *Limiter) settleRules(ctx context.Context, set RuleSet, wanted Changes) (Changes, error) {
	for {
		now, err := l.readRules(ctx, set)
		if err == nil {
			if left := set.changes(now); len(left.Plans)+len(left.Users) > 0 {
				return Changes{}, unavailable("write rules", errNotSettled)
			}
			wanted.Revision = now.rev
			l.wroteRules(ctx, now.rev)
			return wanted, nil
		}
		if pause(ctx) {
			return Changes{}, unavailable("write rules", err)
		}
	}
}

var errNotSettled = errors.New("etcd did not say whether the rules were written, and they are not in force yet")

// wroteRules waits a moment for this node's own view of what it wrote.
func (l *Limiter) wroteRules(ctx context.Context, rev int64) {
	l.view.wroteAt(rev)
	wait, cancel := context.WithTimeout(ctx, viewPatience)
	defer cancel()
	l.view.reach(wait, rev)
}

// checked is the set with defaults, or what is wrong with it.
func (s RuleSet) checked() (RuleSet, error) {
	if n := len(s.Plans) + len(s.Users); n > MaxRuleChanges {
		return s, fmt.Errorf("%w: %d rules at once are more than %d", ErrBadRule, n, MaxRuleChanges)
	}
	out := RuleSet{Plans: make(map[string]*Plan, len(s.Plans)), Users: s.Users}
	for name, p := range s.Plans {
		if !ValidPlan(name) {
			return s, errBadPlanName
		}
		if p != nil {
			if err := p.check(); err != nil {
				return s, fmt.Errorf("plan %s: %w", name, err)
			}
			full := p.WithDefaults()
			p = &full
		}
		out.Plans[name] = p
	}
	for user, o := range s.Users {
		if !ValidUser(user) {
			return s, ErrBadUser
		}
		if o == nil {
			continue
		}
		if err := o.check(); err != nil {
			return s, fmt.Errorf("user %s: %w", user, err)
		}
	}
	return out, nil
}

// plansExist wants every plan that the set gives to a user.
func (s RuleSet) plansExist(now rulesNow) error {
	for user, o := range s.Users {
		if o == nil || o.Plan == "" {
			continue
		}
		p, inSet := s.Plans[o.Plan]
		if !inSet {
			p, _ = now.plan(o.Plan)
		}
		if p == nil {
			return fmt.Errorf("user %s: %w: %q", user, ErrNoPlan, o.Plan)
		}
	}
	return nil
}

// changes are the differences between the set and what is in force, by name.
func (s RuleSet) changes(now rulesNow) Changes {
	c := Changes{Revision: now.rev}
	for _, name := range slices.Sorted(maps.Keys(s.Plans)) {
		if old, _ := now.plan(name); !same(old, s.Plans[name], func(a, b Plan) bool { return a == b }) {
			c.Plans = append(c.Plans, PlanChange{name, old, s.Plans[name]})
		}
	}
	for _, user := range slices.Sorted(maps.Keys(s.Users)) {
		if old, _ := now.override(user); !same(old, s.Users[user], Override.equal) {
			c.Users = append(c.Users, OverrideChange{user, old, s.Users[user]})
		}
	}
	return c
}

func same[T any](a, b *T, equal func(T, T) bool) bool {
	return a == nil && b == nil || a != nil && b != nil && equal(*a, *b)
}

func (o Override) equal(p Override) bool {
	return o.Plan == p.Plan && same(o.Limit, p.Limit, func(a, b int) bool { return a == b })
}

// rulesTxn writes c if no rule was changed since revision changed.
func (l *Limiter) rulesTxn(c Changes, changed, routed int64) *pb.TxnRequest {
	ops := []*pb.RequestOp{putOp(l.keys.rules(), nil, 0)}
	for _, p := range c.Plans {
		if p.New == nil {
			ops = append(ops, deleteOp(oneKey(l.keys.plan(p.Name))))
		} else {
			ops = append(ops, putOp(l.keys.plan(p.Name), p.New.value(), 0))
		}
	}
	for _, u := range c.Users {
		if u.New == nil {
			ops = append(ops, deleteOp(oneKey(l.keys.override(u.User))))
		} else {
			ops = append(ops, putOp(l.keys.override(u.User), u.New.value(), 0))
		}
	}
	return &pb.TxnRequest{
		Compare: []*pb.Compare{writtenAt(l.keys.rules(), changed), writtenAt(l.keys.shardsKey(), routed)},
		Success: nested(ops),
	}
}

// rulesNow are the rules that a set is about, at one revision.
type rulesNow struct {
	readRules
	rev     int64
	changed int64 // when any rule was, through the service
	routed  int64 // when users were spread
}

// readRules reads what a set is about.
func (l *Limiter) readRules(ctx context.Context, set RuleSet) (rulesNow, error) {
	ranges := []keyRange{oneKey(l.keys.rules()), oneKey(l.keys.shardsKey())}
	plans := maps.Clone(set.Plans)
	for user, o := range set.Users {
		ranges = append(ranges, oneKey(l.keys.override(user)))
		if o != nil && o.Plan != "" {
			plans[o.Plan] = nil
		}
	}
	for name := range plans {
		ranges = append(ranges, oneKey(l.keys.plan(name)))
	}
	resp, err := l.readAll(ctx, ranges...)
	if err != nil {
		return rulesNow{}, err
	}
	now := rulesNow{
		readRules: readRules{l.keys, map[string]*mvccpb.KeyValue{}}, rev: resp.Header.Revision,
	}
	now.take(resp.Responses)
	if kv := now.kvs[l.keys.rules()]; kv != nil {
		now.changed = kv.ModRevision
	}
	if kv := now.kvs[l.keys.shardsKey()]; kv != nil {
		now.routed = l.view.heardOfShards(shardsKeyOf(kv)).Mod
	}
	return now, nil
}

// take takes the keys of an answer in.
func (r readRules) take(responses []*pb.ResponseOp) {
	for _, resp := range responses {
		if inner := resp.GetResponseTxn(); inner != nil {
			r.take(inner.Responses)
		}
		for _, kv := range resp.GetResponseRange().GetKvs() {
			r.kvs[string(kv.Key)] = kv
		}
	}
}

// readRule reads the key of one rule; nil if there is none.
func (l *Limiter) readRule(ctx context.Context, key string) (*mvccpb.KeyValue, error) {
	ctx, cancel := l.bound(ctx)
	defer cancel()
	resp, err := l.etcd.KV.Range(ctx, oneKey(key).read())
	if err != nil {
		return nil, unavailable("read a rule", err)
	}
	if len(resp.Kvs) == 0 {
		return nil, nil
	}
	return resp.Kvs[0], nil
}

func planIn(kv *mvccpb.KeyValue) *Plan {
	if kv == nil {
		return nil
	}
	return planOf(kv.Value)
}

func overrideIn(kv *mvccpb.KeyValue) *Override {
	if kv == nil {
		return nil
	}
	return overrideOf(kv.Value)
}
