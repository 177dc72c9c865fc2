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

// For any answer, the next heartbeat is due before the lease expires, and a failure never
// delays it beyond the regular interval.
func TestSchedule_Properties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1e9, 0)
		p := schedule{every: time.Duration(rapid.Int64Range(int64(minEvery), int64(time.Hour)).Draw(t, "every"))}
		p.renewed(now, apitype.Stream{
			TTLSeconds:       rapid.IntRange(1, math.MaxInt).Draw(t, "ttl"),
			HeartbeatSeconds: rapid.Int().Draw(t, "interval"),
		})
		assert.LessOrEqual(t, p.ttl, maxTTL)
		assert.Positive(t, p.interval)
		assert.Less(t, p.interval, p.ttl)
		assert.Equal(t, now.Add(p.ttl), p.expires)
		lapses := p.expires
		for range rapid.IntRange(1, 50).Draw(t, "failures") {
			p.failed(now, time.Duration(rapid.Int64Range(0, int64(maxRetryAfter)).Draw(t, "after")))
			assert.True(t, p.next.After(now))
			assert.LessOrEqual(t, p.next.Sub(now), p.interval)
			assert.Equal(t, lapses, p.expires, "a failure does not lengthen a lease")
			now = p.next
		}
		p.degraded(now)
		assert.Equal(t, now.Add(p.ttl), p.expires)
		assert.Less(t, p.timeout(5*time.Second), p.ttl)
	})
}

// A start may leave less than a TTL, as the times of its answer say.
func TestSchedule_Started(t *testing.T) {
	now, began := time.Now(), apitype.Time{Time: time.Unix(1_000_000_000, 0)}
	for left, want := range map[time.Duration]time.Duration{
		70 * time.Second: 70 * time.Second, 90 * time.Second: 90 * time.Second, 91 * time.Second: 90 * time.Second,
		-time.Hour: 90 * time.Second, time.Second: 90 * time.Second, // the times of the answer are inconsistent
	} {
		var p schedule
		p.started(now, apitype.Stream{TTLSeconds: 90, HeartbeatSeconds: 30, StartedAt: &began, ExpiresAt: &apitype.Time{Time: began.Add(left)}})
		assert.Equal(t, now.Add(want), p.expires, "%v left", left)
	}
	var p schedule
	p.started(now, apitype.Stream{TTLSeconds: 90, HeartbeatSeconds: 30})
	assert.Equal(t, now.Add(90*time.Second), p.expires)
}
