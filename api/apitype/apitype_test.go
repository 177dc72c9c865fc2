package apitype

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestTime_Writes(t *testing.T) {
	berlin := time.FixedZone("", 2*60*60)
	for want, at := range map[string]time.Time{
		"2026-01-02T03:04:05.000Z": time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		"2026-01-02T03:04:05.678Z": time.Date(2026, 1, 2, 3, 4, 5, 678_999_999, time.UTC), // never later than it is
		"2026-06-30T22:00:00.120Z": time.Date(2026, 7, 1, 0, 0, 0, 120e6, berlin),
	} {
		b, err := json.Marshal(struct{ T *Time }{At(at)})
		require.NoError(t, err)
		assert.JSONEq(t, `{"T":"`+want+`"}`, string(b))
		b, err = Time{at}.MarshalText()
		require.NoError(t, err)
		assert.Equal(t, want, string(b))
	}
}

func TestTime_LeavesZeroOut(t *testing.T) {
	assert.Nil(t, At(time.Time{}))
	b, err := json.Marshal(Stream{ID: "a", StartedAt: At(time.Time{})})
	require.NoError(t, err)
	assert.NotContains(t, string(b), "startedAt")
}

func TestTime_Reads(t *testing.T) {
	want := time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)
	for _, text := range []string{"2026-01-02T03:04:05.678Z", "2026-01-02T05:04:05.678+02:00", "2026-01-02T03:04:05.678000Z"} {
		var got Time
		require.NoError(t, json.Unmarshal([]byte(`"`+text+`"`), &got), text)
		assert.True(t, got.Equal(want), text)
	}
	for _, bad := range []string{`7`, `"`, `""`, `{}`, `"yesterday"`, `"2026-01-02"`, `"2026-13-02T03:04:05Z"`, `true`} {
		var got Time
		assert.Error(t, json.Unmarshal([]byte(bad), &got), bad)
	}
}

// What is written is read back as the same millisecond.
func TestTime_RoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zone := time.FixedZone("", rapid.IntRange(-12*3600, 14*3600).Draw(t, "zone")/60*60)
		at := time.UnixMilli(rapid.Int64Range(0, 1<<42).Draw(t, "ms")).In(zone)
		b, err := json.Marshal(At(at))
		require.NoError(t, err)
		var got Time
		require.NoError(t, json.Unmarshal(b, &got))
		require.True(t, got.Equal(at), "%s became %s", at, got)
	})
}
