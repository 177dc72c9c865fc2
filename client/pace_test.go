package client

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"

	"streamcount/api/apitype"
)

func TestBackoff_GrowsToTheLimit(t *testing.T) {
	for n := range 100 {
		d := backoff(n, 30*time.Second)
		assert.Positive(t, d)
		assert.LessOrEqual(t, d, 30*time.Second)
		if n > 7 {
			assert.GreaterOrEqual(t, d, 15*time.Second)
		}
	}
}

// Whatever a service says, a heartbeat is due before the lease lapses, and a
// failure brings the next one sooner than the pace, never later.
func TestPulse_Properties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1e9, 0)
		p := pulse{every: time.Duration(rapid.Int64Range(int64(minEvery), int64(time.Hour)).Draw(t, "every"))}
		p.renewed(now, apitype.Stream{
			TTLSeconds:       rapid.IntRange(1, math.MaxInt).Draw(t, "ttl"),
			HeartbeatSeconds: rapid.Int().Draw(t, "pace"),
		})
		assert.LessOrEqual(t, p.ttl, maxTTL)
		assert.Positive(t, p.pace)
		assert.Less(t, p.pace, p.ttl)
		assert.Equal(t, now.Add(p.ttl), p.lapses)
		lapses := p.lapses
		for range rapid.IntRange(1, 50).Draw(t, "failures") {
			p.failed(now, time.Duration(rapid.Int64Range(0, int64(maxRetryAfter)).Draw(t, "after")))
			assert.True(t, p.next.After(now))
			assert.LessOrEqual(t, p.next.Sub(now), p.pace)
			assert.Equal(t, lapses, p.lapses, "a failure does not lengthen a lease")
			now = p.next
		}
		p.degraded(now)
		assert.Equal(t, now.Add(p.ttl), p.lapses)
		assert.Less(t, p.patience(5*time.Second), p.ttl)
	})
}
