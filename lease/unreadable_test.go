package lease

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/policy"
	"streamcount/lease/rules"
)

// A start under a rule that this version cannot read is neither admitted nor rejected, and
// the rule can be replaced and removed.
func TestRules_Unreadable(t *testing.T) {
	t.Parallel()
	ctx, c, prefix := t.Context(), etcdtest.Client(t), etcdtest.Prefix(t)
	l := newLimiter(t, c, Config{Prefix: prefix, Limit: 3})
	put := func(key, value string) {
		_, err := c.Put(ctx, prefix+key, value)
		require.NoError(t, err)
	}
	put("/plans/gold", `{"limit":9,"needs":["teleport"]}`)
	put("/plans/silver", `{"limit":"many"}`)
	put("/limits/tom", `{"limit":9,"needs":["teleport"]}`)
	unreadable := func(user string, req Request, want policy.UnreadableError) {
		t.Helper()
		_, err := l.Start(ctx, user, req)
		require.ErrorIs(t, err, ErrUnavailable)
		var got *policy.UnreadableError
		require.ErrorAs(t, err, &got)
		assert.Equal(t, want, *got)
		assert.Zero(t, keysOf(t, l, user))
	}
	began := time.Now()
	unreadable("maya", Request{Plan: "gold"}, policy.UnreadableError{Plan: "gold"})
	unreadable("maya", Request{Grant: "silver"}, policy.UnreadableError{Plan: "silver"})
	unreadable("tom", Request{}, policy.UnreadableError{User: "tom"})
	assert.Less(t, time.Since(began), time.Minute, "it is not repeated until the deadline of a call")
	mustStart(t, l, "ida", Request{})
	require.Eventually(t, func() bool {
		plans, users := l.Rules().Unreadable()
		return assert.ObjectsAreEqual([]string{"gold", "silver"}, plans) && assert.ObjectsAreEqual([]string{"tom"}, users)
	}, time.Minute, time.Millisecond)
	_, err := l.Rules().Plan(ctx, "gold")
	require.ErrorIs(t, err, ErrUnavailable)
	_, err = l.Rules().Override(ctx, "tom")
	require.ErrorIs(t, err, policy.ErrUnreadable)
	plans, err := l.Rules().Plans(ctx)
	require.NoError(t, err)
	assert.Empty(t, plans)

	_, err = l.Rules().SetOverride(ctx, "tom", policy.Override{Plan: "gold"})
	require.NoError(t, err, "the plan exists")
	set := rules.Set{Plans: map[string]*policy.Plan{"gold": {Limit: 2}, "silver": nil}}
	dry, err := l.Rules().Apply(ctx, set, rules.Options{DryRun: true})
	require.NoError(t, err)
	none := policy.Plan{}.WithDefaults()
	gold := policy.Plan{Limit: 2}.WithDefaults()
	assert.Equal(t, []rules.PlanChange{
		{Name: "gold", Old: &none, New: &gold, Unreadable: true}, {Name: "silver", Old: &none, Unreadable: true},
	}, dry.Plans)
	_, err = l.Rules().Apply(ctx, set, rules.Options{})
	require.NoError(t, err)
	assert.Equal(t, 2, mustStart(t, l, "tom", Request{}).Limit)
	mustStart(t, l, "maya", Request{Grant: "silver"})

	put("/plans/default", `{"limit":9,"needs":["teleport"]}`)
	unreadable("eva", Request{}, policy.UnreadableError{Plan: "default"})
	_, err = l.Rules().RemovePlan(ctx, "default")
	require.NoError(t, err)
	mustStart(t, l, "eva", Request{})
	put("/limits/ben", `{}`)
	unreadable("ben", Request{}, policy.UnreadableError{User: "ben"})
	_, err = l.Rules().RemoveOverride(ctx, "ben")
	require.NoError(t, err)
	mustStart(t, l, "ben", Request{})
}
