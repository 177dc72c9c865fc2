package topusers

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/lease"
)

func TestCache_ReusesLists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, queries, failed := New(), 0, errors.New("failed")
		get := func(prefix string, err error) (string, error) {
			users, more, err := c.Get(t.Context(), prefix, 5, func(_ context.Context, prefix string, n int) ([]lease.TopUser, bool, error) {
				queries++
				return []lease.TopUser{{User: fmt.Sprint(prefix, n, " ", queries)}}, true, err
			})
			if err != nil {
				return "", err
			}
			assert.True(t, more)
			return users[0].User, nil
		}
		_, err := get("a", failed)
		require.ErrorIs(t, err, failed)
		for _, want := range []struct {
			after  time.Duration
			prefix string
			user   string
		}{
			{0, "a", "a5 2"},
			{time.Second, "a", "a5 2"},
			{0, "b", "b5 3"},
			{time.Second, "a", "a5 4"},
		} {
			time.Sleep(want.after)
			user, err := get(want.prefix, nil)
			require.NoError(t, err, "an error is not cached")
			assert.Equal(t, want.user, user)
		}
		for i := range 100 {
			_, err = get(fmt.Sprint(i), nil)
			require.NoError(t, err)
			require.LessOrEqual(t, len(c.lists), maxLists)
		}
	})
}

func TestCache_MakesOneQueryAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := New()
		var running, queries atomic.Int32
		query := func(ctx context.Context, _ string, _ int) ([]lease.TopUser, bool, error) {
			assert.EqualValues(t, 1, running.Add(1))
			queries.Add(1)
			time.Sleep(time.Millisecond)
			running.Add(-1)
			return []lease.TopUser{{}}, false, ctx.Err()
		}
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() {
				_, _, err := c.Get(t.Context(), fmt.Sprint(i/2), 5, query)
				assert.NoError(t, err)
			})
		}
		all.Wait()
		assert.EqualValues(t, 10, queries.Load(), "equal queries share a result")
	})
}

func TestCache_GivesUpWithTheRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, end := New(), make(chan struct{})
		var all sync.WaitGroup
		all.Go(func() {
			_, _, err := c.Get(t.Context(), "slow", 5, func(context.Context, string, int) ([]lease.TopUser, bool, error) {
				<-end
				return nil, false, nil
			})
			assert.NoError(t, err)
		})
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, _, err := c.Get(ctx, "other", 5, nil)
		require.ErrorIs(t, err, lease.ErrUnavailable)
		close(end)
		all.Wait()
	})
}
