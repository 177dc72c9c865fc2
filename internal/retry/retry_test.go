package retry

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestSleep_WaitsForTheDuration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		assert.NoError(t, Sleep(t.Context(), time.Hour))
		assert.Equal(t, time.Hour, time.Since(began))
	})
}

func TestSleep_ReturnsTheCauseOfAnEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("the node stops")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(cause) })
		began := time.Now()
		assert.ErrorIs(t, Sleep(ctx, time.Hour), cause)
		assert.Equal(t, time.Minute, time.Since(began))
	})
}

func TestJitter_StaysWithinHalf(t *testing.T) {
	assert.Zero(t, Jitter(0))
	for range 1000 {
		d := Jitter(time.Second)
		assert.True(t, d >= time.Second/2 && d < 3*time.Second/2, "%v", d)
	}
}

func TestBackoff_DoublesUpToMax(t *testing.T) {
	b := Backoff{Min: 100 * time.Millisecond, Max: time.Second}
	for range 2 {
		for _, want := range []time.Duration{100, 200, 400, 800, 1000, 1000} {
			want *= time.Millisecond
			d := b.Next()
			assert.True(t, d >= want/2 && d < 3*want/2, "%v instead of about %v", d, want)
		}
		b.Reset()
	}
}

func TestSpread_StaysWithinATenth(t *testing.T) {
	assert.Zero(t, Spread(0))
	for range 1000 {
		d := Spread(time.Second)
		assert.True(t, d >= 900*time.Millisecond && d <= 1100*time.Millisecond, "%v", d)
	}
}
