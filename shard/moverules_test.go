package shard

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/lease"
	"streamcount/lease/policy"
)

// later is a rule that only a later version can read.
const later = `{"limit":9,"needs":["teleport"]}`

func ignore(Progress) {}

// putLater writes a rule on shards, as a later version does.
func (e etcds) putLater(t *testing.T, key string, names ...string) {
	t.Helper()
	for _, name := range names {
		_, err := e[name].Client(t).Put(t.Context(), "/streamcount/"+key, later)
		require.NoError(t, err)
	}
}

func (e etcds) raw(t *testing.T, key, name string) string {
	t.Helper()
	resp, err := e[name].Client(t).Get(t.Context(), "/streamcount/"+key)
	require.NoError(t, err)
	if len(resp.Kvs) == 0 {
		return ""
	}
	return string(resp.Kvs[0].Value)
}

// movingUsers returns a user who moves from shard a or b to shard c, and one who stays on a.
func movingUsers(e etcds) (moves, stays string) {
	old, m := Map{Shards: e.shards("a", "b")}, Map{Shards: e.shards("a", "b", "c")}
	for i := 0; moves == "" || stays == ""; i++ {
		user := fmt.Sprint("user-", i)
		switch {
		case m.Shard(user) == "c":
			moves = user
		case old.Shard(user) == "a" && m.Shard(user) == "a":
			stays = user
		}
	}
	return moves, stays
}

// A move does not begin while this version cannot read a plan, or the override of a user who
// is to move. The streams continue, and the rules stay as they are.
func TestMove_StopsAtUnreadableRules(t *testing.T) {
	t.Parallel()
	ctx, e := t.Context(), startShards(t, "a", "b", "c")
	node := e.node(t, 0, "a", "b")
	moves, stays := movingUsers(e)
	old := Map{Shards: e.shards("a", "b")}
	ids := map[string]string{}
	for _, user := range []string{moves, stays} {
		st, err := node.Start(ctx, user, lease.Request{})
		require.NoError(t, err)
		ids[user] = st.Stream.ID
	}
	alive := func() {
		t.Helper()
		for user, id := range ids {
			s, err := node.Heartbeat(ctx, user, id)
			require.NoError(t, err)
			assert.False(t, s.Degraded)
		}
	}
	e.putLater(t, "plans/gold", "a", "b")
	e.putLater(t, "limits/"+moves, old.Shard(moves))
	e.putLater(t, "limits/"+stays, "a")
	mover := e.node(t, 0, "a", "b")
	stopped := func(want policy.UnreadableError) {
		t.Helper()
		require.Eventually(t, func() bool {
			err := mover.Move(ctx, e.shards("a", "b", "c"), ignore)
			require.ErrorIs(t, err, policy.ErrUnreadable)
			var got *policy.UnreadableError
			require.ErrorAs(t, err, &got)
			return *got == want
		}, soon, 10*time.Millisecond, "%v", want)
		assert.Empty(t, mover.Map().Previous, "the migration has not begun")
		assert.Empty(t, read(t, e["c"].Client(t), "/streamcount/users/"))
		assert.Equal(t, later, e.raw(t, "limits/"+stays, "a"))
		alive()
	}
	stopped(policy.UnreadableError{User: moves})
	_, err := node.RemoveOverride(ctx, moves)
	require.NoError(t, err)
	stopped(policy.UnreadableError{Plan: "gold"})
	assert.Equal(t, later, e.raw(t, "plans/gold", "b"))
	_, err = node.SetPlan(ctx, "gold", policy.Plan{Limit: 2})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		return mover.Move(ctx, e.shards("a", "b", "c"), ignore) == nil
	}, soon, 10*time.Millisecond, "the mover's replica has the new plan")
	alive()
	assert.Len(t, read(t, e["c"].Client(t), "/streamcount/users/"+moves), 1)
	assert.Equal(t, e.raw(t, "plans/gold", "a"), e.raw(t, "plans/gold", "c"))
	assert.Equal(t, later, e.raw(t, "limits/"+stays, "a"), "the rule of a user who does not move")
}

// begin does what a move to shards a, b and c does before it commits the map.
func begin(t *testing.T, e etcds, mover *Router) (now, next *Map) {
	t.Helper()
	now = mover.Map()
	require.Positive(t, now.Epoch)
	next = &Map{ID: now.ID, Epoch: now.Epoch + 1, Shards: e.shards("a", "b", "c"), Previous: now.Shards}
	require.NoError(t, mover.prepareShards(t.Context(), now, next))
	return now, next
}

// A plan that was set before the map of a migration is on all shards after it, also if the
// mover's replica is late.
func TestMove_CopiesNewPlans(t *testing.T) {
	t.Parallel()
	ctx, e := t.Context(), startShards(t, "a", "b", "c")
	node, mover := e.node(t, 0, "a", "b"), e.node(t, time.Second, "a", "b")
	now, next := begin(t, e, mover)
	_, err := node.SetPlan(ctx, "family", policy.Plan{Limit: 3, Limits: []policy.Limit{{Name: "tv", Limit: 1}}})
	require.NoError(t, err)
	require.NoError(t, mover.commitMap(ctx, now, next))
	require.NoError(t, mover.distributeMap(ctx, next, next.all()))
	require.NoError(t, mover.copyPlans(ctx, next))
	assert.Equal(t, e.raw(t, "plans/family", "a"), e.raw(t, "plans/family", "c"))
	assert.NotEmpty(t, e.raw(t, "plans/family", "c"))
}

// A migration was interrupted after it had begun, and before it copied the plans again. The
// call that resumes it copies them, and stops at a plan that this version cannot read.
func TestMove_ResumedCopiesPlans(t *testing.T) {
	t.Parallel()
	ctx, e := t.Context(), startShards(t, "a", "b", "c")
	node, interrupted := e.node(t, 0, "a", "b"), e.node(t, 0, "a", "b")
	now, next := begin(t, e, interrupted)
	_, err := node.SetPlan(ctx, "family", policy.Plan{Limit: 1})
	require.NoError(t, err)
	e.putLater(t, "plans/gold", "a", "b")
	require.NoError(t, interrupted.commitMap(ctx, now, next))

	mover := e.node(t, 0, "a", "b")
	require.Eventually(t, func() bool { return len(mover.Map().Previous) > 0 }, soon, time.Millisecond)
	err = mover.Move(ctx, next.Shards, ignore)
	require.ErrorIs(t, err, policy.ErrUnreadable)
	assert.Contains(t, err.Error(), `"gold"`)
	assert.NotEmpty(t, mover.Map().Previous)
	_, err = node.RemovePlan(ctx, "gold")
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		return mover.Move(ctx, next.Shards, ignore) == nil
	}, soon, 10*time.Millisecond)
	assert.NotEmpty(t, e.raw(t, "plans/family", "c"))
}
