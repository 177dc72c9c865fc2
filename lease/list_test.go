package lease

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"streamcount/internal/testing/etcdtest"
)

// The list of a user whose streams this node renews sends no request to etcd, because the
// leader may be in another region.
func TestList_IsLocal(t *testing.T) {
	t.Parallel()
	r := newFaultyLimiter(t, Config{Limit: 3, TTL: testTTL})
	before := time.Now()
	s := mustStart(t, r.Limiter, "maya", Request{}).Stream
	asked := func() int {
		return r.faults.Calls(etcdtest.Range) + r.faults.Calls("/etcdserverpb.Lease/LeaseTimeToLive")
	}
	calls := asked()
	for range 3 {
		u, err := r.List(t.Context(), "maya", Bounded)
		require.NoError(t, err)
		require.Len(t, u.Active, 1)
		assert.Equal(t, s.ID, u.Active[0].ID)
		// A lease that was granted before the start is renewed in parallel with it.
		assert.WithinRange(t, u.Active[0].ExpiresAt, before.Add(testTTL/2), time.Now().Add(testTTL))
	}
	assert.Equal(t, calls, asked(), "requests to etcd")

	u, err := r.List(t.Context(), "maya", Linearizable)
	require.NoError(t, err)
	assert.NotZero(t, u.Active[0].ExpiresAt)
	assert.Greater(t, asked(), calls)

	// Another node has not renewed the streams, and queries etcd.
	other := newLimiter(t, r.direct, Config{Limit: 3, TTL: testTTL})
	require.Eventually(t, func() bool {
		u, err := other.List(t.Context(), "maya", Bounded)
		return err == nil && len(u.Active) == 1 && !u.Active[0].ExpiresAt.IsZero()
	}, time.Minute, 10*time.Millisecond)
}

func TestSelectTopUsers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []TopUser
		for i := range rapid.IntRange(0, 20).Draw(t, "users") {
			all = append(all, TopUser{
				User:    fmt.Sprint(rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name"), i),
				Streams: rapid.IntRange(1, 3).Draw(t, "streams"),
			})
		}
		each := func(f func(user string, streams int)) {
			for _, u := range all {
				f(u.User, u.Streams)
			}
		}
		prefix := rapid.SampledFrom([]string{"", "a", "b1", "c"}).Draw(t, "prefix")
		limit := rapid.IntRange(0, 12).Draw(t, "limit")
		got, more := selectTopUsers(each, prefix, limit)
		want := slices.DeleteFunc(slices.Clone(all), func(u TopUser) bool { return !strings.HasPrefix(u.User, prefix) })
		slices.SortFunc(want, CompareTopUsers)
		require.Equal(t, len(want) > limit, more)
		require.Equal(t, append([]TopUser{}, want[:min(limit, len(want))]...), append([]TopUser{}, got...))
	})
}
