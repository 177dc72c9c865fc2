package cluster

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestBackoffWait_DoublesUpToItsBound(t *testing.T) {
	var b backoffWait
	full := firstWait
	for range 20 {
		got := b.take()
		assert.GreaterOrEqual(t, got, full/2)
		assert.LessOrEqual(t, got, full)
		full = min(2*full, longWait)
	}
	assert.Equal(t, longWait, full)
}

func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		assert.True(t, sleep(t.Context(), time.Hour))
		assert.Equal(t, time.Hour, time.Since(began))

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		began = time.Now()
		assert.False(t, sleep(ctx, time.Hour))
		assert.Equal(t, time.Minute, time.Since(began))
		assert.False(t, sleep(ctx, 0), "ended already")
	})
}
