package events

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease"
	"streamcount/lease/policy"
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
		p.observeRejection(user, &lease.LimitError{Limit: 3})
	}
	p.observeRejection("maya", &lease.LimitError{Limit: 1})
	p.observeRejection("maya", &lease.LimitError{Limit: 1, Limits: []policy.RefusingLimit{{Name: "tv", Limit: 1}, {Name: "total", Limit: 3}}})
	p.observeRejection("ben", &lease.LimitError{Limit: 1, Limits: []policy.RefusingLimit{{Name: "tv", Limit: 1}}})
	var got []string
	for _, r := range p.snapshot().Refused {
		got = append(got, fmt.Sprintf("%s %d: %d users, %d starts", r.Name, r.Limit, r.Users, r.Starts))
	}
	assert.Equal(t, []string{" 1: 1 users, 1 starts", " 3: 2 users, 4 starts", "total 3: 1 users, 1 starts", "tv 1: 2 users, 2 starts"}, got)

	for i := range 2 * maxNamedLimits {
		p.observeRejection("maya", &lease.LimitError{Limits: []policy.RefusingLimit{{Name: fmt.Sprint("limit-", i), Limit: 1}}})
	}
	all := p.snapshot().Refused
	assert.Len(t, all, maxNamedLimits+1)
	other := slices.IndexFunc(all, func(r RefusalsAtLimit) bool { return r.Name == otherLimits })
	require.GreaterOrEqual(t, other, 0)
	assert.EqualValues(t, []int64{1, maxNamedLimits + 4}, []int64{int64(all[other].Users), all[other].Starts})
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
	assert.Equal(t, []RefusalsAtLimit{{Limit: 2, Users: 1, Starts: 1}}, today.Refused)
	f.RollDay(today.Since.Add(time.Minute).UTC().Truncate(24 * time.Hour)) // the same day
	assert.Equal(t, today, f.Concurrency())

	tomorrow := time.Now().UTC().Truncate(24 * time.Hour).Add(24 * time.Hour)
	f.RollDay(tomorrow.Add(9 * time.Second))
	assert.Equal(t, Concurrency{Since: tomorrow, UsersReaching: []int{2}}, f.Concurrency())
}
