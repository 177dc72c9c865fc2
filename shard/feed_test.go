package shard

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/events"
	"streamcount/lease"
)

// collect returns events until there are n that are not gaps.
func collect(t *testing.T, fo *events.Follower, n int) (out []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	for len(out) < n {
		e := fo.Next()
		switch {
		case e == nil:
			require.NoError(t, fo.Wait(ctx), "after %q", out)
		case e.Kind != events.Gap:
			out = append(out, fmt.Sprintf("%s %s %s", e.Kind, e.User, e.Shard()))
		}
	}
	return out
}

// usersOn returns n users of each shard.
func usersOn(m *Map, n int) map[string][]string {
	out := map[string][]string{}
	for i := 0; len(out) < len(m.Shards) || slices.ContainsFunc(m.Shards, func(s Shard) bool { return len(out[s.Name]) < n }); i++ {
		user := fmt.Sprint("user-", i)
		home := m.Shard(user)
		out[home] = append(out[home], user)
	}
	return out
}

// Events of two shards form one stream with one cursor. If one shard fails, events and top
// users of the other are still available.
func TestFeed_OfTwoShards(t *testing.T) {
	t.Parallel()
	e := startShards(t, "a", "b")
	feed := events.NewFeed()
	r := e.nodeWithFeed(t, feed, 0, "a", "b")
	users := usersOn(r.Map(), 3)
	fo, err := feed.Follow(t.Context(), "", "")
	require.NoError(t, err)
	var want []string
	begin := ""
	for i := range 2 {
		for _, name := range []string{"a", "b"} {
			user := users[name][i]
			_, err := r.Start(t.Context(), user, lease.Request{})
			require.NoError(t, err)
			want = append(want, fmt.Sprintf("start %s %s", user, name))
		}
		if i == 0 {
			assert.ElementsMatch(t, want, collect(t, fo, 2))
			begin, want = fo.Cursor(), nil
		}
	}
	assert.Regexp(t, `^[ab]:\d+,[ab]:\d+~`, begin)
	assert.ElementsMatch(t, want, collect(t, fo, 2))
	again, err := feed.Follow(t.Context(), begin, "")
	require.NoError(t, err)
	assert.ElementsMatch(t, want, collect(t, again, 2))
	assert.Nil(t, again.Next())

	_, err = r.Start(t.Context(), users["a"][0], lease.Request{})
	require.NoError(t, err)
	collect(t, fo, 1)
	top, more, err := r.TopUsers(t.Context(), "user-", 2)
	require.NoError(t, err)
	assert.True(t, more)
	assert.Equal(t, lease.TopUser{User: users["a"][0], Streams: 2, Limit: 3}, top[0])
	assert.Len(t, top, 2)

	e["b"].Stop()
	_, err = r.Start(t.Context(), users["a"][2], lease.Request{})
	require.NoError(t, err)
	assert.Equal(t, []string{"start " + users["a"][2] + " a"}, collect(t, fo, 1))
	require.Eventually(t, func() bool {
		top, _, err = r.TopUsers(t.Context(), "", 10)
		return err == nil && len(top) == 3
	}, soon, time.Millisecond, "those of the shard that is left")
}
