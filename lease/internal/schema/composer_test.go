package schema

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// FuzzCompose compares the values that are composed with those of encoding/json.
func FuzzCompose(f *testing.F) {
	f.Add([]byte("nonce"), int64(1), int64(90), "eu", "tab", "tv-1", "TV", "", "film", "Film & <Co>", "gold", byte(255))
	f.Add([]byte{}, int64(-1), int64(0), "", "", "", "", "", "", "", "", byte(0))
	f.Add([]byte{1}, int64(1), int64(90), "e\"u", "t\\b", "\n", "\u2028", "\xff", "\x7f", "ü", "gold", byte(255))
	f.Fuzz(func(t *testing.T, nonce []byte, started, ttl int64, region, session, device, name, kind, content, title, plan string, has byte) {
		r := Record{Started: started, TTLSeconds: ttl, Region: region, Session: session, Plan: plan}
		copy(r.Nonce[:], nonce)
		var texts []string
		if has&1 != 0 {
			r.Device = &Device{device, name, kind}
			texts = append(texts, device, name, kind)
		}
		if has&2 != 0 {
			r.Content = &Content{content, title}
			texts = append(texts, content, title)
		}
		if limit := int(ttl); has&4 != 0 {
			r.Limit = &limit
		}
		assert.Equal(t, string(Encode(r)), string(r.Encode()))
		value, ok := r.compose()
		assert.Equal(t, isPlain(append(texts, region, session, plan)...), ok)
		if ok {
			assert.JSONEq(t, string(Encode(r)), string(value))
		}
		ts := []Tombstone{{Nonce: r.Nonce, Reason: policy.Reason(session)}, {Nonce: r.Nonce, Reason: policy.ReasonReplaced}}
		if has&8 != 0 {
			ts[1].By = &Replacement{Device{device, name, kind}, started}
		}
		if has&16 != 0 {
			ts[0].Limits, ts[1].Limits = []string{session}, []string{"tv", plan}
		}
		for n := range len(ts) + 1 {
			assert.Equal(t, string(Encode(ts[:n])), string(EncodeTombstones(ts[:n])))
		}
		assert.Equal(t, "null", string(EncodeTombstones(nil)))
	})
}

func isPlain(texts ...string) bool {
	for _, text := range texts {
		for i := range len(text) {
			if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
				return false
			}
		}
	}
	return true
}

// FuzzScanStops compares the tombstones that are scanned with those of encoding/json.
func FuzzScanStops(f *testing.F) {
	stop := Tombstone{Nonce: streamid.Nonce{1}, Reason: policy.ReasonStopped}
	for n := range 4 {
		value := make([]Tombstone, n)
		for i := range value {
			value[i] = stop
			value[i].Nonce[1] = byte(i)
		}
		f.Add(Encode(value))
		got, ok := scanStops(Encode(value))
		require.Equal(f, n > 0, ok)
		require.Len(f, got, n)
	}
	f.Add([]byte("[{\"n\":\"AQAAAAAA\nAAAAAAA\",\"r\":\"stopped\"}]"))
	f.Add([]byte(`[{"n":"AQAAAAAAAAAAAAA!","r":"stopped"}]`))
	f.Add([]byte(`[{"n":"AQAAAAAAAAAAAAAA","r":"evicted"}]`))
	f.Add([]byte(`[{"n":"AQAAAAAAAAAAAAAA","r":"stopped"}]]`))
	f.Add([]byte(`[{"n":"AQAAAAAAAAAAAAAA","r":"stopped"}]{"n":"AQAAAAAAAAAAAAAA","r":"stopped"}]`))
	f.Fuzz(func(t *testing.T, value []byte) {
		if got, ok := scanStops(value); ok {
			var want []Tombstone
			require.NoError(t, json.Unmarshal(value, &want))
			require.Equal(t, want, got)
		}
	})
}
