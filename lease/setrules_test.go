package lease

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/policy"
	"streamcount/lease/rules"
)

func limitOf(n int) policy.Override { return policy.Override{Limit: &n} }

func TestRules_PlansAndOverrides(t *testing.T) {
	ctx := t.Context()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 3})

	_, err := l.Rules().Plan(ctx, "family")
	require.ErrorIs(t, err, policy.ErrNoPlan)
	_, err = l.Rules().RemovePlan(ctx, "family")
	require.ErrorIs(t, err, policy.ErrNoPlan)
	old, err := l.Rules().SetPlan(ctx, "family", policy.Plan{Limit: 5, OnLimit: policy.ReplaceOldest})
	require.NoError(t, err)
	assert.Nil(t, old)
	family := policy.Plan{Limit: 5, OnLimit: policy.ReplaceOldest, Count: policy.CountStreams}
	for range 2 { // a repetition succeeds
		old, err = l.Rules().SetPlan(ctx, "family", family)
		require.NoError(t, err)
		assert.Equal(t, &family, old)
	}
	got, err := l.Rules().Plan(ctx, "family")
	require.NoError(t, err)
	assert.Equal(t, family, got)
	all, err := l.Rules().Plans(ctx)
	require.NoError(t, err)
	assert.Equal(t, map[string]policy.Plan{"family": family}, all)

	_, err = l.Rules().Override(ctx, "maya")
	var none *rules.NoOverrideError
	require.ErrorAs(t, err, &none)
	require.ErrorIs(t, err, rules.ErrNoOverride)
	assert.Equal(t, 3, none.Limit)
	_, err = l.Rules().SetOverride(ctx, "maya", policy.Override{Plan: "gold"})
	require.ErrorIs(t, err, policy.ErrNoPlan)
	had, err := l.Rules().SetOverride(ctx, "maya", policy.Override{Plan: "family"})
	require.NoError(t, err)
	assert.Nil(t, had)
	had, err = l.Rules().SetOverride(ctx, "maya", limitOf(1))
	require.NoError(t, err)
	assert.Equal(t, &policy.Override{Plan: "family"}, had)
	o, err := l.Rules().Override(ctx, "maya")
	require.NoError(t, err)
	assert.Equal(t, limitOf(1), o)
	o, err = l.Rules().RemoveOverride(ctx, "maya")
	require.NoError(t, err)
	assert.Equal(t, limitOf(1), o)
	_, err = l.Rules().RemoveOverride(ctx, "maya")
	require.ErrorIs(t, err, rules.ErrNoOverride)

	gone, err := l.Rules().RemovePlan(ctx, "family")
	require.NoError(t, err)
	assert.Equal(t, family, gone)
	_, err = l.Rules().SetPlan(ctx, policy.DefaultPlan, policy.Plan{Limit: 1})
	require.NoError(t, err)
	_, err = l.Rules().Override(ctx, "maya")
	require.ErrorAs(t, err, &none)
	assert.Equal(t, 1, none.Limit, "the default plan overrides the limit of the node")
}

func TestRules_Invalid(t *testing.T) {
	ctx := t.Context()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 3})
	for _, name := range []string{"", "a/b", "ä", string(make([]byte, 65))} {
		_, err := l.Rules().SetPlan(ctx, name, policy.Plan{})
		require.ErrorIs(t, err, policy.ErrBadRule, "%q", name)
		_, err = l.Rules().Plan(ctx, name)
		require.ErrorIs(t, err, policy.ErrBadRule, "%q", name)
	}
	for _, p := range []policy.Plan{{Limit: -1}, {Limit: 61}, {OnLimit: "explode"}, {Count: "sheep"}} {
		_, err := l.Rules().SetPlan(ctx, "family", p)
		require.ErrorIs(t, err, policy.ErrBadRule, "%+v", p)
	}
	one := 1
	for _, o := range []policy.Override{{}, {Limit: &one, Plan: "family"}, limitOf(61), limitOf(-1), {Plan: "a/b"}} {
		_, err := l.Rules().SetOverride(ctx, "maya", o)
		require.ErrorIs(t, err, policy.ErrBadRule, "%+v", o)
	}
	_, err := l.Rules().SetOverride(ctx, "a\tb", limitOf(1))
	require.ErrorIs(t, err, ErrBadUser)
	_, err = l.Rules().Override(ctx, "a\tb")
	require.ErrorIs(t, err, ErrBadUser)
	_, err = l.Rules().Apply(ctx, rules.Set{Users: make2000()}, rules.Options{})
	require.ErrorIs(t, err, policy.ErrBadRule)
	_, err = l.Start(ctx, "maya", Request{Plan: "a/b"})
	require.ErrorIs(t, err, policy.ErrNoPlan)
	_, err = l.Start(ctx, "maya", Request{Plan: "gold"})
	require.ErrorIs(t, err, policy.ErrNoPlan)
	_, err = l.List(ctx, "maya", Linearizable)
	require.ErrorIs(t, err, ErrNoStreams)
}

func make2000() map[string]*policy.Override {
	out := map[string]*policy.Override{}
	for i := range 2000 {
		o := limitOf(i % 60)
		out[fmt.Sprint("user-", i)] = &o
	}
	return out
}

// A set of the maximum size is applied in one transaction. It is rejected if any rule has
// changed since the revision that the request names.
func TestRules_Apply(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	l := newLimiter(t, c, Config{Prefix: prefix, Limit: 3})
	set := rules.Set{Plans: map[string]*policy.Plan{"gold": {Limit: 9}, "gone": nil}, Users: map[string]*policy.Override{"tom": {Plan: "gold"}}}
	for i := range rules.MaxChanges - 3 {
		o := limitOf(i % 60)
		set.Users[fmt.Sprint("user-", i)] = &o
	}
	dry, err := l.Rules().Apply(ctx, set, rules.Options{DryRun: true})
	require.NoError(t, err)
	assert.Equal(t, []rules.PlanChange{{Name: "gold", New: &policy.Plan{Limit: 9, OnLimit: policy.Deny, Count: policy.CountStreams}}}, dry.Plans)
	assert.Len(t, dry.Users, rules.MaxChanges-2)
	_, err = l.Rules().Plan(ctx, "gold")
	require.ErrorIs(t, err, policy.ErrNoPlan, "a dry run writes nothing")

	_, err = l.Rules().SetPlan(ctx, "other", policy.Plan{Limit: 1})
	require.NoError(t, err)
	_, err = l.Rules().Apply(ctx, set, rules.Options{Since: dry.Revision})
	require.ErrorIs(t, err, rules.ErrChanged)

	dry, err = l.Rules().Apply(ctx, set, rules.Options{DryRun: true})
	require.NoError(t, err)
	done, err := l.Rules().Apply(ctx, set, rules.Options{Since: dry.Revision})
	require.NoError(t, err)
	assert.Equal(t, dry.Users, done.Users)
	resp, err := c.Get(ctx, prefix+"/limits/user-7")
	require.NoError(t, err)
	assert.Equal(t, done.Revision, resp.Kvs[0].ModRevision, "one transaction")
	o, err := l.Rules().Override(ctx, "user-59")
	require.NoError(t, err)
	assert.Equal(t, limitOf(59), o)
	again, err := l.Rules().Apply(ctx, set, rules.Options{})
	require.NoError(t, err)
	assert.Empty(t, again.Plans)
	assert.Empty(t, again.Users)
}

// Each request and each reply of a write is lost once.
func TestRules_SurviveALostMessage(t *testing.T) {
	t.Parallel()
	r := newFaultyLimiter(t, Config{Limit: 3})
	for name, cut := range map[string]func(string, int){"request": r.faults.CutRequest, "reply": r.faults.CutReply} {
		cut(etcdtest.Txn, 1)
		_, err := r.Rules().SetPlan(t.Context(), name, policy.Plan{Limit: 4})
		require.NoError(t, err, name)
		p, err := r.Rules().Plan(t.Context(), name)
		require.NoError(t, err)
		assert.Equal(t, 4, p.Limit)
	}
}

// A rule is in force for the next start on every node. The start's transaction checks it,
// even if the replica of the node is stale.
func TestRules_AreInForceAtOnceOnEveryNode(t *testing.T) {
	t.Parallel()
	ctx, c, prefix := t.Context(), etcdtest.Client(t), etcdtest.Prefix(t)
	here := newLimiter(t, c, Config{Prefix: prefix, Limit: 3})
	there := newLimiter(t, c, Config{Prefix: prefix, Limit: 3})
	for i := range 50 {
		user, plan := fmt.Sprint("user-", i), fmt.Sprint("plan-", i)
		_, err := here.Rules().SetOverride(ctx, user, limitOf(0))
		require.NoError(t, err)
		_, err = there.Start(ctx, user, Request{})
		var full *LimitError
		require.ErrorAs(t, err, &full)
		require.Zero(t, full.Limit)
		_, err = here.Rules().SetPlan(ctx, plan, policy.Plan{Limit: 1})
		require.NoError(t, err)
		_, err = here.Rules().SetOverride(ctx, user, policy.Override{Plan: plan})
		require.NoError(t, err)
		require.Equal(t, 1, mustStart(t, there, user, Request{}).Limit)
		_, err = there.Start(ctx, user, Request{Plan: plan})
		require.ErrorIs(t, err, ErrLimit)
		u, err := here.List(ctx, user, Linearizable)
		require.NoError(t, err)
		require.Equal(t, 1, u.Limit)
	}
	require.Eventually(t, func() bool { return len(there.replica.Rules().Plans()) == 50 }, time.Minute, time.Millisecond)
	_, err := there.Rules().RemovePlan(ctx, "plan-7")
	require.NoError(t, err)
	assert.Equal(t, 3, mustStart(t, here, "user-7", Request{}).Limit, "a removed plan counts as the default plan")
}

// The limit or plan that a start requests is listed with the user's streams on any node.
func TestRules_RequestRulesAreListed(t *testing.T) {
	t.Parallel()
	ctx, c, prefix := t.Context(), etcdtest.Client(t), etcdtest.Prefix(t)
	l := newLimiter(t, c, Config{Prefix: prefix, Limit: 1})
	other := newLimiter(t, c, Config{Prefix: prefix, Limit: 1})
	_, err := l.Rules().SetPlan(ctx, "family", policy.Plan{Limit: 5})
	require.NoError(t, err)
	two := 2
	tests := map[string]struct {
		request Request
		limit   int
	}{
		"maya": {Request{Plan: "family"}, 5}, "tom": {Request{Grant: "family"}, 5},
		"ida": {Request{Limit: &two}, 2}, "ben": {Request{}, 1}, "eva": {Request{Grant: "gold"}, 1},
	}
	for user, tt := range tests {
		st := mustStart(t, l, user, tt.request)
		assert.Equal(t, tt.limit, st.Limit, user)
		u, err := other.List(ctx, user, Linearizable)
		require.NoError(t, err)
		assert.Equal(t, tt.limit, u.Limit, user)
	}
	got, err := l.Totals(ctx)
	require.NoError(t, err)
	assert.Equal(t, 2, got.UsersAtLimit, "ben and eva")
	_, err = l.Rules().SetOverride(ctx, "maya", limitOf(1))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		got, err := l.Totals(ctx)
		return err == nil && got.UsersAtLimit == 3
	}, soon, 10*time.Millisecond)
	u, err := l.StopOldestHeartbeat(ctx, "tom")
	require.NoError(t, err)
	assert.Equal(t, 5, u.Limit)
}

// The replica follows rules that it watches, and lists them after a compaction.
func TestRules_AreFollowedThroughACompaction(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t, etcdtest.Config{})
	c := m.Client(t)
	l := newLimiter(t, c, Config{Prefix: "/t", Limit: 3})
	want := map[string]policy.Plan{}
	for i := range 30 {
		name := fmt.Sprint("plan-", i%7)
		if i%3 == 2 {
			_, err := c.Delete(t.Context(), "/t/plans/"+name)
			require.NoError(t, err)
			delete(want, name)
		} else {
			_, err := c.Put(t.Context(), "/t/plans/"+name, fmt.Sprintf(`{"limit":%d}`, i))
			require.NoError(t, err)
			want[name] = policy.Plan{Limit: i, OnLimit: policy.Deny, Count: policy.CountStreams}
		}
		if i == 15 { // a disconnected replica has to list
			m.Stop()
			m.Restart(t)
			require.Eventually(t, func() bool {
				r, err := c.Get(t.Context(), "x")
				if err != nil {
					return false
				}
				_, err = c.Compact(t.Context(), r.Header.Revision)
				return err == nil
			}, time.Minute, 10*time.Millisecond)
		}
	}
	require.Eventually(t, func() bool { return assert.ObjectsAreEqual(want, l.replica.Rules().Plans()) }, time.Minute, 10*time.Millisecond)
}

// Two nodes apply different sets concurrently. In the end one whole set is in force.
func TestRules_ApplyIsAtomic(t *testing.T) {
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	nodes := []*Limiter{
		newLimiter(t, c, Config{Prefix: prefix, Timeout: time.Minute}),
		newLimiter(t, c, Config{Prefix: prefix, Timeout: time.Minute}),
	}
	var wg sync.WaitGroup
	for n, l := range nodes {
		for range 20 {
			wg.Go(func() {
				set := rules.Set{Users: map[string]*policy.Override{}}
				for i := range 10 {
					o := limitOf(n)
					set.Users[fmt.Sprint("user-", i)] = &o
				}
				_, err := l.Rules().Apply(context.Background(), set, rules.Options{})
				assert.NoError(t, err)
			})
		}
	}
	wg.Wait()
	first, err := nodes[0].Rules().Override(t.Context(), "user-0")
	require.NoError(t, err)
	for i := range 10 {
		o, err := nodes[1].Rules().Override(t.Context(), fmt.Sprint("user-", i))
		require.NoError(t, err)
		assert.Equal(t, first, o)
	}
}
