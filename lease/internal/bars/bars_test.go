package bars

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

func TestCheck(t *testing.T) {
	key := schema.BarKeyOf("maya", "tab")
	type request struct {
		after  time.Duration // since the bar was set
		entry  bool
		barred bool
	}
	const s, m = time.Second, time.Minute
	for name, tt := range map[string]struct {
		reason   policy.Reason
		requests []request
	}{
		"a player that repeats its requests stays out": {policy.ReasonStopped, []request{
			{1 * s, false, true}, {15 * s, false, true}, {29 * s, false, true}, {43 * s, false, true}, {58 * s, false, false},
		}},
		"a first request does not show whether the session was quiet": {policy.ReasonStopped, []request{
			{5 * m, false, true}, {5*m + 14*s, false, true}, {5*m + 29*s, false, false},
		}},
		"a viewer begins to play":            {policy.ReasonRemoved, []request{{2 * s, true, true}, {6 * s, true, true}, {11 * s, true, false}}},
		"a viewer begins to play elsewhere":  {policy.ReasonReplaced, []request{{4 * s, true, true}, {9 * s, true, false}}},
		"at once on a node without requests": {policy.ReasonReplaced, []request{{5 * s, true, false}}},
		"not before the cool-down after an eviction": {policy.ReasonEvicted, []request{
			{1 * s, false, true}, {30 * s, true, true}, {59 * s, false, true}, {64 * s, true, false},
		}},
		"an eviction long ago": {policy.ReasonEvicted, []request{{1 * s, false, true}, {61 * s, false, false}}},
		"the maximum age":      {policy.ReasonStopped, []request{{9 * m, false, true}, {10 * m, false, false}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := New(time.Minute)
			begin := time.Now()
			b.now = func() time.Time { return begin }
			assert.False(t, b.Any())
			b.Set(schema.Tombstone{Nonce: streamid.Nonce{1}, Reason: tt.reason, Bar: key})
			assert.True(t, b.Any())
			for _, r := range tt.requests {
				b.now = func() time.Time { return begin.Add(r.after) }
				b.Set(schema.Tombstone{Nonce: streamid.Nonce{1}, Reason: tt.reason, Bar: key}) // received again
				looked, wait, looksBarred := b.Look(key, r.entry)
				again, _, _ := b.Look(key, r.entry)
				assert.Equal(t, looked, again, "a look has no effect")
				got, retryAfter, barred := b.Check(key, r.entry)
				require.Equal(t, r.barred, barred, "%v", r.after)
				assert.Equal(t, barred, looksBarred)
				assert.Equal(t, got, looked)
				assert.Equal(t, retryAfter, wait)
				if barred {
					assert.Equal(t, tt.reason, got.Reason)
					assert.GreaterOrEqual(t, retryAfter, EntryQuiet)
				}
				if !barred {
					break
				}
			}
		})
	}
}

func TestSet_OnlyOfImplicitStreams(t *testing.T) {
	b := New(0)
	b.Set(schema.Tombstone{Nonce: streamid.Nonce{1}, Reason: policy.ReasonStopped})
	assert.False(t, b.Any())
	key := schema.BarKeyOf("maya", "tab")
	b.Set(schema.Tombstone{Nonce: streamid.Nonce{1}, Reason: policy.ReasonStopped, Bar: key})
	_, _, barred := b.Check(schema.BarKeyOf("maya", "tab2"), false)
	assert.False(t, barred)
	_, _, barred = b.Check(key, false)
	assert.True(t, barred)
	b.Lift(key)
	_, _, barred = b.Check(key, false)
	assert.False(t, barred)
}
