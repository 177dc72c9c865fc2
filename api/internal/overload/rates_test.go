package overload

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRateLimiter(t *testing.T) {
	l, now := newRateLimiter(2), time.Now()
	for range 20 {
		require.Zero(t, l.take("maya", now))
	}
	for range 100 {
		require.Equal(t, 500*time.Millisecond, l.take("maya", now), "a rejection takes no token")
	}
	require.Zero(t, l.take("ben", now))
	now = now.Add(500 * time.Millisecond)
	require.Zero(t, l.take("maya", now), "after the wait")
	require.Positive(t, l.take("maya", now))
	now = now.Add(time.Hour)
	for range 20 {
		require.Zero(t, l.take("maya", now))
	}
	require.Positive(t, l.take("maya", now))
	assert.Zero(t, (*rateLimiter)(nil).take("maya", now))
}

// The number of keys is limited. A key in use keeps its bucket while other keys are dropped.
func TestRateLimiter_ManyKeys(t *testing.T) {
	l, now := newRateLimiter(1), time.Now()
	for l.take("fast", now) == 0 {
	}
	for i := range 2 * maxBuckets {
		l.take(fmt.Sprint(i), now)
		if i%(maxBuckets/2) == 0 {
			require.Positive(t, l.take("fast", now))
		}
	}
	assert.Equal(t, maxBuckets, l.buckets.Len())
}

// Concurrent calls of one key take exactly the tokens of its bucket.
func TestRateLimiter_Concurrent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newRateLimiter(5)
		var accepted atomic.Int64
		var all sync.WaitGroup
		for range 200 {
			all.Go(func() {
				if l.take("maya", time.Now()) == 0 {
					accepted.Add(1)
				}
			})
		}
		all.Wait()
		assert.Equal(t, int64(50), accepted.Load())
	})
}
