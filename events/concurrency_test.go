package events

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease"
)

// The counts agree with those of a map of all users.
func TestDailyConcurrency_AgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p dailyConcurrency
		p.reset(time.Unix(0, 0))
		highest := map[string]int{}
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			user := fmt.Sprint("u", rapid.IntRange(0, 8).Draw(t, "user"))
			n := rapid.IntRange(1, 6).Draw(t, "n")
			p.observe(user, n)
			highest[user] = max(highest[user], n)
		}
		var want []int
		for n := 1; n <= 6; n++ {
			users := 0
			for _, top := range highest {
				if top >= n {
					users++
				}
			}
			if users > 0 {
				want = append(want, users)
			}
		}
		require.Equal(t, want, p.snapshot().UsersReaching)
		require.False(t, p.snapshot().Partial)
	})
}

func TestDailyConcurrency_IsBounded(t *testing.T) {
	var p dailyConcurrency
	p.reset(time.Now())
	p.observe("maya", 2)
	for i := range uint64(maxTrackedUsers) {
		p.users[i] = 1
	}
	p.observe("one more", 1)
	p.observe("maya", 3)
	assert.Equal(t, []int{1, 1, 1}, p.snapshot().UsersReaching)
	assert.True(t, p.snapshot().Partial)
	p.reset(time.Now())
	assert.False(t, p.snapshot().Partial)
}

func TestDailyConcurrency_Refusals(t *testing.T) {
	var p dailyConcurrency
	p.reset(time.Now())
	for _, user := range []string{"maya", "maya", "ben", "maya"} {
		p.observeRefusal(user, 3)
	}
	p.observeRefusal("maya", 1)
	assert.Equal(t, []RefusalsAtLimit{{1, 1, 1}, {3, 2, 4}}, p.snapshot().Refused)
}

// A new day starts with the present streams.
func TestFeed_RollDay(t *testing.T) {
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	before := newLimiter(t, c, lease.Config{Prefix: prefix, Limit: 2})
	mustStart(t, before, "early", lease.Request{}) // the next limiter lists it
	f, l := feedOf(t, c, prefix)
	mustStart(t, l, "maya", lease.Request{})
	stopped := mustStart(t, l, "maya", lease.Request{}).Stream
	_, err := l.Start(t.Context(), "maya", lease.Request{})
	require.ErrorIs(t, err, lease.ErrLimit)
	_, err = l.Stop(t.Context(), "maya", stopped.ID)
	require.NoError(t, err)
	require.Eventually(t, func() bool { return f.Activity().Stops == 1 }, soon, time.Millisecond)
	today := f.Concurrency()
	assert.Equal(t, []int{2, 1}, today.UsersReaching)
	assert.Equal(t, []RefusalsAtLimit{{2, 1, 1}}, today.Refused)
	f.RollDay(today.Since.Add(time.Minute).UTC().Truncate(24 * time.Hour)) // the same day
	assert.Equal(t, today, f.Concurrency())

	tomorrow := time.Now().UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)
	f.RollDay(tomorrow.Add(9 * time.Second))
	assert.Equal(t, Concurrency{Since: tomorrow, UsersReaching: []int{2}}, f.Concurrency())
}
