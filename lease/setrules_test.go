package lease

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/etcdtest"
)

func limitOf(n int) Override { return Override{Limit: &n} }

func TestRules_OfPlansAndUsers(t *testing.T) {
	ctx := t.Context()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 3})

	_, err := l.Plan(ctx, "family")
	require.ErrorIs(t, err, ErrNoPlan)
	_, err = l.RemovePlan(ctx, "family")
	require.ErrorIs(t, err, ErrNoPlan)
	old, err := l.SetPlan(ctx, "family", Plan{Limit: 5, OnLimit: ReplaceOldest})
	require.NoError(t, err)
	assert.Nil(t, old)
	family := Plan{5, ReplaceOldest, CountStreams}
	for range 2 { // it may be repeated
		old, err = l.SetPlan(ctx, "family", family)
		require.NoError(t, err)
		assert.Equal(t, &family, old)
	}
	got, err := l.Plan(ctx, "family")
	require.NoError(t, err)
	assert.Equal(t, family, got)
	all, err := l.Plans(ctx)
	require.NoError(t, err)
	assert.Equal(t, map[string]Plan{"family": family}, all)

	_, err = l.Override(ctx, "maya")
	var none *NoOverrideError
	require.ErrorAs(t, err, &none)
	require.ErrorIs(t, err, ErrNoOverride)
	assert.Equal(t, 3, none.Limit)
	_, err = l.SetOverride(ctx, "maya", Override{Plan: "gold"})
	require.ErrorIs(t, err, ErrNoPlan)
	had, err := l.SetOverride(ctx, "maya", Override{Plan: "family"})
	require.NoError(t, err)
	assert.Nil(t, had)
	had, err = l.SetOverride(ctx, "maya", limitOf(1))
	require.NoError(t, err)
	assert.Equal(t, &Override{Plan: "family"}, had)
	o, err := l.Override(ctx, "maya")
	require.NoError(t, err)
	assert.Equal(t, limitOf(1), o)
	o, err = l.RemoveOverride(ctx, "maya")
	require.NoError(t, err)
	assert.Equal(t, limitOf(1), o)
	_, err = l.RemoveOverride(ctx, "maya")
	require.ErrorIs(t, err, ErrNoOverride)

	gone, err := l.RemovePlan(ctx, "family")
	require.NoError(t, err)
	assert.Equal(t, family, gone)
	_, err = l.SetPlan(ctx, DefaultPlan, Plan{Limit: 1})
	require.NoError(t, err)
	_, err = l.Override(ctx, "maya")
	require.ErrorAs(t, err, &none)
	assert.Equal(t, 1, none.Limit, "the default plan beats the node's limit")
}

func TestRules_BadOnes(t *testing.T) {
	ctx := t.Context()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 3})
	for _, name := range []string{"", "a/b", "ä", string(make([]byte, 65))} {
		_, err := l.SetPlan(ctx, name, Plan{})
		require.ErrorIs(t, err, ErrBadRule, "%q", name)
		_, err = l.Plan(ctx, name)
		require.ErrorIs(t, err, ErrBadRule, "%q", name)
	}
	for _, p := range []Plan{{Limit: -1}, {Limit: 61}, {OnLimit: "explode"}, {Count: "sheep"}} {
		_, err := l.SetPlan(ctx, "family", p)
		require.ErrorIs(t, err, ErrBadRule, "%+v", p)
	}
	one := 1
	for _, o := range []Override{{}, {Limit: &one, Plan: "family"}, limitOf(61), limitOf(-1), {Plan: "a/b"}} {
		_, err := l.SetOverride(ctx, "maya", o)
		require.ErrorIs(t, err, ErrBadRule, "%+v", o)
	}
	_, err := l.SetOverride(ctx, "a/b", limitOf(1))
	require.ErrorIs(t, err, ErrBadUser)
	_, err = l.Override(ctx, "a/b")
	require.ErrorIs(t, err, ErrBadUser)
	_, err = l.Apply(ctx, RuleSet{Users: make2000()}, ApplyOptions{})
	require.ErrorIs(t, err, ErrBadRule)
	_, err = l.Start(ctx, "maya", Request{Plan: "a/b"})
	require.ErrorIs(t, err, ErrNoPlan)
	_, err = l.Start(ctx, "maya", Request{Plan: "gold"})
	require.ErrorIs(t, err, ErrNoPlan)
	_, err = l.List(ctx, "maya", Linearizable)
	require.ErrorIs(t, err, ErrNoStreams)
}

func make2000() map[string]*Override {
	out := map[string]*Override{}
	for i := range 2000 {
		o := limitOf(i % 60)
		out[fmt.Sprint("user-", i)] = &o
	}
	return out
}

// A set as large as may be is applied whole, and not at all once anything else
// was changed since it was looked at.
func TestRules_Apply(t *testing.T) {
	ctx := t.Context()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	l := newLimiter(t, c, Config{Prefix: prefix, Limit: 3})
	set := RuleSet{Plans: map[string]*Plan{"gold": {Limit: 9}, "gone": nil}, Users: map[string]*Override{"tom": {Plan: "gold"}}}
	for i := range MaxRuleChanges - 3 {
		o := limitOf(i % 60)
		set.Users[fmt.Sprint("user-", i)] = &o
	}
	dry, err := l.Apply(ctx, set, ApplyOptions{DryRun: true})
	require.NoError(t, err)
	assert.Equal(t, []PlanChange{{"gold", nil, &Plan{9, Deny, CountStreams}}}, dry.Plans)
	assert.Len(t, dry.Users, MaxRuleChanges-2)
	_, err = l.Plan(ctx, "gold")
	require.ErrorIs(t, err, ErrNoPlan, "a dry run writes nothing")

	_, err = l.SetPlan(ctx, "other", Plan{Limit: 1})
	require.NoError(t, err)
	_, err = l.Apply(ctx, set, ApplyOptions{Since: dry.Revision})
	require.ErrorIs(t, err, ErrRuleChanged)

	dry, err = l.Apply(ctx, set, ApplyOptions{DryRun: true})
	require.NoError(t, err)
	done, err := l.Apply(ctx, set, ApplyOptions{Since: dry.Revision})
	require.NoError(t, err)
	assert.Equal(t, dry.Users, done.Users)
	resp, err := c.Get(ctx, prefix+"/limits/user-7")
	require.NoError(t, err)
	assert.Equal(t, done.Revision, resp.Kvs[0].ModRevision, "one transaction")
	o, err := l.Override(ctx, "user-59")
	require.NoError(t, err)
	assert.Equal(t, limitOf(59), o)
	again, err := l.Apply(ctx, set, ApplyOptions{})
	require.NoError(t, err)
	assert.Empty(t, again.Plans)
	assert.Empty(t, again.Users)
}

// Each message of a write is lost once, before and after etcd acts on it.
func TestRules_SurviveALostMessage(t *testing.T) {
	r := newRig(t, Config{Limit: 3})
	for name, cut := range map[string]func(string, int){"request": r.faults.CutRequest, "reply": r.faults.CutReply} {
		cut(etcdtest.Txn, 1)
		_, err := r.SetPlan(t.Context(), name, Plan{Limit: 4})
		require.NoError(t, err, name)
		p, err := r.Plan(t.Context(), name)
		require.NoError(t, err)
		assert.Equal(t, 4, p.Limit)
	}
}

// A rule is in force on every node by the next start: the transaction sees to it,
// however far behind the node's view is.
func TestRules_AreInForceAtOnceOnEveryNode(t *testing.T) {
	ctx, c, prefix := t.Context(), etcdtest.Client(t), etcdtest.Prefix(t)
	here := newLimiter(t, c, Config{Prefix: prefix, Limit: 3})
	there := newLimiter(t, c, Config{Prefix: prefix, Limit: 3})
	for i := range 50 {
		user, plan := fmt.Sprint("user-", i), fmt.Sprint("plan-", i)
		_, err := here.SetOverride(ctx, user, limitOf(0))
		require.NoError(t, err)
		_, err = there.Start(ctx, user, Request{})
		var full *LimitError
		require.ErrorAs(t, err, &full)
		require.Zero(t, full.Limit)
		_, err = here.SetPlan(ctx, plan, Plan{Limit: 1})
		require.NoError(t, err)
		_, err = here.SetOverride(ctx, user, Override{Plan: plan})
		require.NoError(t, err)
		require.Equal(t, 1, mustStart(t, there, user, Request{}).Limit)
		_, err = there.Start(ctx, user, Request{Plan: plan})
		require.ErrorIs(t, err, ErrLimit)
		u, err := here.List(ctx, user, Linearizable)
		require.NoError(t, err)
		require.Equal(t, 1, u.Limit)
	}
	require.Eventually(t, func() bool { return len(there.view.rules.all()) == 50 }, time.Minute, time.Millisecond)
	_, err := there.RemovePlan(ctx, "plan-7")
	require.NoError(t, err)
	assert.Equal(t, 3, mustStart(t, here, "user-7", Request{}).Limit, "a plan that is gone is the default")
}

// What a start was told of its user is shown with his streams, on any node.
func TestRules_WhatAStartWasTold(t *testing.T) {
	ctx, c, prefix := t.Context(), etcdtest.Client(t), etcdtest.Prefix(t)
	l := newLimiter(t, c, Config{Prefix: prefix, Limit: 1})
	other := newLimiter(t, c, Config{Prefix: prefix, Limit: 1})
	_, err := l.SetPlan(ctx, "family", Plan{Limit: 5})
	require.NoError(t, err)
	two := 2
	tests := map[string]struct {
		said  Request
		limit int
	}{
		"maya": {Request{Plan: "family"}, 5}, "tom": {Request{Grant: "family"}, 5},
		"ida": {Request{Limit: &two}, 2}, "ben": {Request{}, 1}, "eva": {Request{Grant: "gold"}, 1},
	}
	for user, tt := range tests {
		st := mustStart(t, l, user, tt.said)
		assert.Equal(t, tt.limit, st.Limit, user)
		u, err := other.List(ctx, user, Linearizable)
		require.NoError(t, err)
		assert.Equal(t, tt.limit, u.Limit, user)
	}
	got, err := l.Totals(ctx)
	require.NoError(t, err)
	assert.Equal(t, 2, got.UsersAtLimit, "ben and eva")
	_, err = l.SetOverride(ctx, "maya", limitOf(1))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		got, err := l.Totals(ctx)
		return err == nil && got.UsersAtLimit == 3
	}, 2*censusSpan, 10*time.Millisecond)
	u, err := l.StopQuietest(ctx, "tom")
	require.NoError(t, err)
	assert.Equal(t, 5, u.Limit)
}

// The view follows rules through changes that it sees, and through those that it
// has to list.
func TestRules_AreFollowedThroughACompaction(t *testing.T) {
	m := etcdtest.Start(t, etcdtest.Config{})
	c := m.Client(t)
	l := newLimiter(t, c, Config{Prefix: "/t", Limit: 3})
	want := map[string]Plan{}
	for i := range 30 {
		name := fmt.Sprint("plan-", i%7)
		if i%3 == 2 {
			_, err := c.Delete(t.Context(), "/t/plans/"+name)
			require.NoError(t, err)
			delete(want, name)
		} else {
			_, err := c.Put(t.Context(), "/t/plans/"+name, fmt.Sprintf(`{"limit":%d}`, i))
			require.NoError(t, err)
			want[name] = Plan{i, Deny, CountStreams}
		}
		if i == 15 { // whoever is not there must list
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
	require.Eventually(t, func() bool { return assert.ObjectsAreEqual(want, l.view.rules.all()) }, time.Minute, 10*time.Millisecond)
}

// Two who apply different sets at once: one set is in force in the end, whole.
func TestRules_ApplyIsAtomic(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	nodes := []*Limiter{
		newLimiter(t, c, Config{Prefix: prefix, Timeout: time.Minute}),
		newLimiter(t, c, Config{Prefix: prefix, Timeout: time.Minute}),
	}
	var wg sync.WaitGroup
	for n, l := range nodes {
		for range 20 {
			wg.Go(func() {
				set := RuleSet{Users: map[string]*Override{}}
				for i := range 10 {
					o := limitOf(n)
					set.Users[fmt.Sprint("user-", i)] = &o
				}
				_, err := l.Apply(context.Background(), set, ApplyOptions{})
				assert.NoError(t, err)
			})
		}
	}
	wg.Wait()
	first, err := nodes[0].Override(t.Context(), "user-0")
	require.NoError(t, err)
	for i := range 10 {
		o, err := nodes[1].Override(t.Context(), fmt.Sprint("user-", i))
		require.NoError(t, err)
		assert.Equal(t, first, o)
	}
}
