package overload

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The time of a byte that has not arrived counts as a delay.
func TestSchedulerDelay_InProgress(t *testing.T) {
	l := newSchedulerDelay()
	assert.Zero(t, l.current(time.Now()))
	l.probeSent()
	now := time.Now()
	assert.GreaterOrEqual(t, l.current(now.Add(2*time.Second)), 2*time.Second)
	l.probeReceived()
	waited := l.current(now.Add(2 * time.Second))
	assert.Greater(t, waited, time.Duration(0))
	assert.LessOrEqual(t, waited, time.Since(now)+time.Second)
}

func TestSchedulerDelay_Run(t *testing.T) {
	l := newSchedulerDelay()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- l.run(ctx) }()
	require.Eventually(t, func() bool { return l.current(time.Now()) > 0 && l.sent.Load() == 0 }, time.Minute, time.Millisecond)
	cancel()
	require.NoError(t, <-ended)
	assert.Zero(t, l.current(time.Now()))
}
