package shard

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/lease"
	"streamcount/lease/policy"
	"streamcount/lease/userdata"
)

// keysOf returns the keys of user on all shards, by a scan.
func (e etcds) keysOf(t *testing.T, user string) []string {
	t.Helper()
	var found []string
	for name, member := range e {
		for _, key := range read(t, member.Client(t), "/") {
			if strings.Contains(key+"/", "/"+user+"/") {
				found = append(found, name+":"+key)
			}
		}
	}
	return found
}

// userOn returns a user whose shard is one under a map, and other under a second map.
func userOn(t *testing.T, first, second *Map, one, other string) string {
	t.Helper()
	for i := range 10_000 {
		if user := fmt.Sprint("user-", i); first.Shard(user) == one && second.Shard(user) == other {
			return user
		}
	}
	require.Fail(t, "no such user")
	return ""
}

// Users are erased on their shards, before, during and after a move.
func TestEraseUserData_DuringAMove(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	e := startShards(t, "a", "b")
	r, other := e.node(t, 0, "a"), e.node(t, 0, "a")
	first, second := &Map{Shards: e.shards("a")}, &Map{Shards: e.shards("a", "b")}
	stays, moves, late := userOn(t, first, second, "a", "a"), userOn(t, first, second, "a", "b"), "late"
	for i := 0; first.Shard(late) != "a" || second.Shard(late) != "b"; i++ {
		late = fmt.Sprint("late-", i)
	}
	five := 5
	fill := func(user string) {
		for range 2 {
			_, err := r.Start(ctx, user, lease.Request{})
			require.NoError(t, err)
		}
		_, err := r.SetOverride(ctx, user, policy.Override{Limit: &five})
		require.NoError(t, err)
		_, err = e["a"].Client(t).Put(ctx, "/streamcount/cooldowns/"+user+"/s-hash", "") // it stays on this shard
		require.NoError(t, err)
	}
	erase := func(node *Router, user string) userdata.Erased {
		t.Helper()
		d, err := other.UserData(ctx, user)
		require.NoError(t, err)
		assert.Equal(t, user, d.User)
		erased, err := node.EraseUserData(ctx, user)
		require.NoError(t, err)
		assert.Equal(t, []int{len(d.Streams), len(d.Cooldowns)}, []int{erased.Streams, erased.Cooldowns})
		assert.Equal(t, d.Override != nil, erased.Override)
		return erased
	}
	fill(stays)
	assert.Equal(t, userdata.Erased{Streams: 2, Override: true, Cooldowns: 1}, erase(r, stays))
	assert.Empty(t, e.keysOf(t, stays))
	for _, user := range []string{stays, moves, late} {
		fill(user)
	}

	// A move that is interrupted before it has moved a user.
	m, err := r.startMigration(ctx, e.shards("a", "b"))
	require.NoError(t, err)
	require.NotNil(t, m)
	assert.Equal(t, userdata.Erased{Streams: 2, Override: true, Cooldowns: 1}, erase(r, stays))
	assert.Empty(t, e.keysOf(t, stays))
	assert.Equal(t, userdata.Erased{Streams: 2, Override: true, Cooldowns: 1, MarkKept: true}, erase(r, moves))
	assert.Equal(t, []string{"b:/streamcount/arrived/" + moves}, e.keysOf(t, moves))
	again, err := other.EraseUserData(ctx, moves)
	require.NoError(t, err)
	assert.Equal(t, userdata.Erased{MarkKept: true}, again)
	_, err = r.Start(ctx, moves, lease.Request{})
	require.NoError(t, err)

	require.NoError(t, r.Move(ctx, e.shards("a", "b"), func(Progress) {}))
	assert.Equal(t, userdata.Erased{Streams: 1}, erase(other, moves))
	assert.Equal(t, userdata.Erased{Streams: 2, Override: true, Cooldowns: 1}, erase(r, late))
	for _, user := range []string{stays, moves, late} {
		assert.Empty(t, e.keysOf(t, user))
		_, err := other.EraseUserData(ctx, user)
		require.ErrorIs(t, err, userdata.ErrNoData)
		_, err = r.UserData(ctx, user)
		require.ErrorIs(t, err, userdata.ErrNoData)
	}
	_, err = r.UserData(ctx, "a\nb")
	require.True(t, errors.Is(err, lease.ErrBadUser), "%v", err)
}
