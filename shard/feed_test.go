package shard

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/lease"
)

// told returns events until there are n that are no gaps.
func told(t *testing.T, fo *lease.Follower, n int) (out []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	for len(out) < n {
		e := fo.Next()
		switch {
		case e == nil:
			require.NoError(t, fo.Wait(ctx), "after %q", out)
		case e.Kind != lease.EventGap:
			out = append(out, fmt.Sprintf("%s %s %s", e.Kind, e.User, e.Shard()))
		}
	}
	return out
}

// usersOn are n users of each shard.
func usersOn(m *Map, n int) map[string][]string {
	out := map[string][]string{}
	for i := 0; len(out) < len(m.Shards) || slices.ContainsFunc(m.Shards, func(s Shard) bool { return len(out[s.Name]) < n }); i++ {
		user := fmt.Sprint("user-", i)
		home := m.Home(user)
		out[home] = append(out[home], user)
	}
	return out
}

// What happens on two shards is told as one, with one cursor; when one of them dies
// the other goes on, and the busiest users are found there.
func TestFeed_OfTwoShards(t *testing.T) {
	e := startShards(t, "a", "b")
	feed := lease.NewFeed()
	r := e.nodeTelling(t, feed, 0, "a", "b")
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
			assert.ElementsMatch(t, want, told(t, fo, 2))
			begin, want = fo.Cursor(), nil
		}
	}
	assert.Regexp(t, `^[ab]:\d+,[ab]:\d+~`, begin)
	assert.ElementsMatch(t, want, told(t, fo, 2))
	again, err := feed.Follow(t.Context(), begin, "")
	require.NoError(t, err)
	assert.ElementsMatch(t, want, told(t, again, 2))
	assert.Nil(t, again.Next())

	_, err = r.Start(t.Context(), users["a"][0], lease.Request{})
	require.NoError(t, err)
	told(t, fo, 1)
	top, more, err := r.Busiest(t.Context(), "user-", 2)
	require.NoError(t, err)
	assert.True(t, more)
	assert.Equal(t, lease.Busy{User: users["a"][0], Streams: 2, Limit: 3}, top[0])
	assert.Len(t, top, 2)

	e["b"].Stop()
	_, err = r.Start(t.Context(), users["a"][2], lease.Request{})
	require.NoError(t, err)
	assert.Equal(t, []string{"start " + users["a"][2] + " a"}, told(t, fo, 1))
	require.Eventually(t, func() bool {
		top, _, err = r.Busiest(t.Context(), "", 10)
		return err == nil && len(top) == 3
	}, soon, time.Millisecond, "those of the shard that is left")
}
