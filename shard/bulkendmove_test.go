package shard

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/lease"
	"streamcount/lease/bulkend"
	"streamcount/lease/policy"
)

// Streams are ended wherever a move has brought their users, and once.
func TestEndStreams_DuringAMove(t *testing.T) {
	t.Parallel()
	ctx, e := t.Context(), startShards(t, "a", "b")
	r, other := e.node(t, 0, "a"), e.node(t, 100*time.Millisecond, "a")
	first, second := &Map{Shards: e.shards("a")}, &Map{Shards: e.shards("a", "b")}
	stays, moves, left := userOn(t, first, second, "a", "a"), userOn(t, first, second, "a", "b"), "left"
	for i := 0; second.Shard(left) != "b"; i++ {
		left = fmt.Sprint("left-", i)
	}
	users := []string{stays, moves, left}
	q := bulkend.Query{Where: []policy.Condition{in(policy.AttrContentID, "x")}}
	streams := map[string][]lease.Stream{}
	fill := func() {
		for _, user := range users {
			streams[user] = []lease.Stream{startOn(t, r, user, film("x")), startOn(t, r, user, film("y"))}
		}
	}
	check := func() {
		t.Helper()
		for _, user := range users {
			requireReason(t, r, streams[user][0], policy.ReasonRemoved)
			assert.Empty(t, reasonOf(t, r, streams[user][1]), user)
			_, err := r.Remove(ctx, user)
			require.NoError(t, err)
		}
	}
	want := bulkend.Result{Matched: 3, Users: 3, Ended: 3, Complete: true}
	fill()
	m, err := r.startMigration(ctx, e.shards("a", "b"))
	require.NoError(t, err)
	from, err := r.targetFor(ctx, m, "a")
	require.NoError(t, err)
	_, err = from.Export(ctx, left, from.revision) // and the process that moves the user stops
	require.NoError(t, err)
	dry := endStreams(t, other, bulkend.Query{Where: q.Where, DryRun: true})
	assert.Equal(t, bulkend.Result{Matched: 3, Users: 3, Complete: true, Sample: dry.Sample}, dry)
	assert.Equal(t, want, endStreams(t, other, q))
	check()

	// A user moves between the search and the end.
	fill()
	limited, until, cancel := bulkend.Deadlines(ctx)
	defer cancel()
	found, err := other.findStreams(limited, until, q)
	require.NoError(t, err)
	require.NoError(t, r.Move(ctx, e.shards("a", "b"), func(Progress) {}))
	for _, s := range found.shards {
		for _, match := range s.Matches {
			assert.NoError(t, other.endStream(limited, s.target, match), match.User)
		}
	}
	check()
	fill()
	assert.Equal(t, want, endStreams(t, r, q))
	check()
}

// A series of calls ends all streams once while users move back and forth.
func TestEndStreams_WhileUsersMove(t *testing.T) {
	t.Parallel()
	ctx, e := t.Context(), startShards(t, "a", "b", "c")
	r, mover := e.node(t, 0, "a", "b"), e.node(t, 0, "a", "b")
	q := bulkend.Query{Where: []policy.Condition{in(policy.AttrContentID, "x")}}
	const users = 200
	for _, to := range [][]string{{"a", "b", "c"}, {"c"}, {"a", "b"}} {
		var streams []lease.Stream
		for i := range users {
			streams = append(streams, startOn(t, r, fmt.Sprint("user-", i), film("x")))
		}
		moved := make(chan error, 1)
		go func() { moved <- mover.Move(ctx, e.shards(to...), func(Progress) {}) }()
		ended := 0
		for deadline := time.Now().Add(soon); time.Now().Before(deadline); {
			res := endStreams(t, r, q)
			ended += res.Ended
			if res.Complete {
				break
			}
		}
		require.NoError(t, <-moved)
		assert.LessOrEqual(t, ended, users, "to %v: an end whose outcome is unknown is not counted", to)
		for i, reason := range reasonsOf(t, r, streams, 0) {
			// The reason of a stream that ended before its user moved is on the previous shard.
			assert.Contains(t, []policy.Reason{policy.ReasonRemoved, policy.ReasonEnded}, reason, streams[i].User)
		}
	}
}

// If a shard cannot be read, the streams of the others end, and the result is not complete.
func TestEndStreams_ShardUnavailable(t *testing.T) {
	t.Parallel()
	e := startShards(t, "a", "b")
	r := e.node(t, 0, "a", "b")
	on := &Map{Shards: e.shards("a", "b")}
	here, there := userOn(t, on, on, "a", "a"), userOn(t, on, on, "b", "b")
	startOn(t, r, here, film("x"))
	startOn(t, r, there, film("x"))
	e["b"].Stop()
	q := bulkend.Query{Where: []policy.Condition{in(policy.AttrContentID, "x")}}
	assert.Equal(t, bulkend.Result{Matched: 1, Users: 1, Ended: 1}, endStreams(t, r, q))
	e["a"].Stop()
	_, err := r.EndStreams(t.Context(), q)
	require.ErrorIs(t, err, lease.ErrUnavailable)
}
