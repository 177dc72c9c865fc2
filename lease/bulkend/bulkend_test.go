package bulkend

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"

	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// A record that fulfils the conditions contains the parts that they need, whatever characters
// the values have.
func TestNecessaryParts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.SampledFrom([]string{"", "a", "film-77", `"`, `\`, "<&>", "ä", "\u2028", "eu/1"}), rapid.StringN(0, 5, -1))
		value := text.Draw(t, "value")
		r := schema.Record{Nonce: streamid.Nonce{1}, TTLSeconds: 90, Started: 1, Region: text.Draw(t, "region")}
		attribute := rapid.SampledFrom([]policy.Attribute{
			policy.AttrContentID, policy.AttrDeviceID, policy.AttrDeviceType, policy.AttrRegion, policy.AttrProfile, policy.AttrContentLabels, "labels.tier",
		}).Draw(t, "attribute")
		switch attribute {
		case policy.AttrContentID:
			r.Content = &schema.Content{ID: value, Title: text.Draw(t, "title")}
		case policy.AttrDeviceID:
			r.Device = &schema.Device{ID: value}
		case policy.AttrDeviceType:
			r.Device = &schema.Device{Type: value}
		case policy.AttrRegion:
			r.Region = value
		case policy.AttrProfile:
			r.Attributes = &schema.Attributes{Profile: value}
		case policy.AttrContentLabels:
			r.Attributes = &schema.Attributes{ContentLabels: []string{text.Draw(t, "label"), value}}
		default:
			r.Attributes = &schema.Attributes{Labels: map[string]string{"tier": value}}
		}
		stored := r.Encode()
		where := []policy.Condition{
			{Attribute: attribute, In: append(rapid.SliceOfN(text, 0, 2).Draw(t, "others"), value)},
			{Attribute: policy.AttrNetwork, Not: []string{"n"}},
		}
		decoded := schema.DecodeRecord(stored)
		if policy.Selects(where, decoded.PolicyAttributes()) && !necessaryParts(where).in(stored) {
			t.Fatalf("%s fulfils %v", stored, where)
		}
	})
	film := []policy.Condition{{Attribute: policy.AttrContentID, In: []string{"film-77"}}}
	other := schema.Record{Content: &schema.Content{ID: "film-78"}}
	assert.False(t, necessaryParts(film).in(other.Encode()), "such a record is not decoded")
}

func TestEndAll(t *testing.T) {
	matches := make([]Match, 1000)
	for i := range matches {
		matches[i].User = string(rune('a' + i%3))
	}
	var calls, now, most atomic.Int64
	end := func(_ context.Context, m Match) error {
		calls.Add(1)
		for n := now.Add(1); n > most.Load(); {
			most.Store(n)
		}
		defer now.Add(-1)
		return map[string]error{"b": schema.ErrEnded, "c": errors.New("the outcome is unknown")}[m.User]
	}
	ended, left := EndAll(t.Context(), time.Now().Add(time.Hour), matches, end)
	assert.Equal(t, []int{334, 333, 1000}, []int{ended, left, int(calls.Load())})
	assert.LessOrEqual(t, most.Load(), int64(maxInFlight))

	calls.Store(0)
	ended, left = EndAll(t.Context(), time.Now(), matches, end)
	assert.Equal(t, []int{0, 1000, 0}, []int{ended, left, int(calls.Load())}, "the time is over")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ended, left = EndAll(ctx, time.Now().Add(time.Hour), matches, end)
	assert.Equal(t, []int{0, 1000, 0}, []int{ended, left, int(calls.Load())}, "the caller has gone")
}

func TestDeadlines(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
	defer cancel()
	limited, until, stop := Deadlines(ctx)
	defer stop()
	at, ok := limited.Deadline()
	assert.True(t, ok)
	assert.WithinDuration(t, time.Now().Add(45*time.Minute), until, time.Minute)
	assert.WithinDuration(t, time.Now().Add(54*time.Minute), at, time.Minute)
	_, until, stop = Deadlines(t.Context())
	defer stop()
	assert.True(t, until.After(time.Now()))
}
