package stalecache

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Cache[int64]{MaxAge: 3 * time.Second, MaxWait: time.Second}
		var calls atomic.Int64
		get := func(took time.Duration, err error) (int64, error) {
			return c.Get(t.Context(), func(context.Context) (int64, error) {
				n := calls.Add(1)
				time.Sleep(took)
				return n, err
			})
		}
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				n, err := get(10*time.Millisecond, nil)
				assert.NoError(t, err)
				assert.EqualValues(t, 1, n, "concurrent calls share a fetch")
			})
		}
		wg.Wait()
		time.Sleep(2 * time.Second)
		n, err := get(0, nil)
		require.NoError(t, err)
		require.EqualValues(t, 1, n, "a fresh result is reused")

		time.Sleep(time.Second)
		n, err = get(time.Minute, nil)
		require.NoError(t, err)
		require.EqualValues(t, 1, n, "the old result is returned while a fetch is slow")
		require.EqualValues(t, 2, calls.Load())
		time.Sleep(time.Minute)
		failed := errors.New("failed")
		_, err = get(0, failed)
		require.ErrorIs(t, err, failed, "an error is a result")
		_, err = get(0, nil)
		require.ErrorIs(t, err, failed, "an error is reused")
		require.EqualValues(t, 3, calls.Load())
	})
}

func TestCache_FirstFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := Cache[int]{MaxAge: time.Second, MaxWait: time.Second}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, ctx := range []context.Context{t.Context(), ctx} {
			_, err := c.Get(ctx, func(ctx context.Context) (int, error) {
				time.Sleep(time.Minute)
				return 1, ctx.Err()
			})
			require.ErrorIs(t, err, ErrNotFetched)
		}
		time.Sleep(time.Minute)
		n, err := c.Get(ctx, func(ctx context.Context) (int, error) { return 2, ctx.Err() })
		require.NoError(t, err)
		require.Equal(t, 1, min(n, 1))
	})
}
