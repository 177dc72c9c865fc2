package schema

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

func TestDecodeHead_AgreesWithJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Record{
			Started: rapid.Int64Min(0).Draw(t, "started"), TTLSeconds: rapid.Int64Min(0).Draw(t, "ttl"),
			Region: rapid.String().Draw(t, "region"), Session: rapid.String().Draw(t, "session"),
			Device: &Device{Name: rapid.String().Draw(t, "device")},
		}
		copy(r.Nonce[:], rapid.SliceOfN(rapid.Byte(), 12, 12).Draw(t, "nonce"))
		value, err := json.Marshal(r)
		require.NoError(t, err)
		var want Head
		require.NoError(t, json.Unmarshal(value, &want))
		require.Equal(t, want, DecodeHead(value))
		if got, ok := scanHead(value); ok {
			require.Equal(t, want, got)
		}
		cut := value[:rapid.IntRange(0, len(value)-1).Draw(t, "cut")]
		_, _ = scanHead(cut) // no panic
	})
	h, ok := scanHead([]byte(`{"n":"AQAAAAAAAAAAAAAA","t":1,"l":90,"r":"eu","s":"tab-1"}`))
	assert.True(t, ok, "without encoding/json")
	assert.Equal(t, Head{streamid.Nonce{1}, 90, "eu", "tab-1"}, h)
}

// FuzzScanHead compares the heads that are scanned with those of encoding/json.
func FuzzScanHead(f *testing.F) {
	f.Add("AQAAAAAAAAAAAAAA", "1", "90", "eu", "tab-1")
	f.Add("AQAAAAAA\nAAAAAAA", "1", "90", "eu", "tab-1")
	f.Add("AQAAAAAAAAAAAA\r\n", "1", "90", "eu", "tab-1")
	f.Add("AQAAAAAAAAAAAAAA", "01", "90", "eu", "tab-1")
	f.Add("AQAAAAAAAAAAAAAA", "1", "90}", "eu", "tab-1")
	f.Add("AQAAAAAAAAAAAAAA", "-0", "90", "eu", "tab-1")
	f.Add("AQAAAAAAAAAAAAAA", "1", "90", "e\tu", "tab-1")
	f.Add("AQAAAAAAAAAAAAAA", "1", "90", "\xff", "\u2028")
	f.Fuzz(func(t *testing.T, nonce, started, ttl, region, session string) {
		value := `{"n":"` + nonce + `","t":` + started + `,"l":` + ttl + `,"r":"` + region + `","s":"` + session + `"}`
		if strings.Count(value, `"`) != 16 {
			return // a member may be there twice
		}
		if got, ok := scanHead([]byte(value)); ok {
			var want Head
			require.NoError(t, json.Unmarshal([]byte(value), &want))
			require.Equal(t, want, got)
		}
	})
}

func TestRecord_IsStoredWithoutEscapes(t *testing.T) {
	rec := Record{
		Nonce: streamid.Nonce{1}, Started: 1, TTLSeconds: 90, Session: "<&>", Region: "eu",
		Content: &Content{Title: "<<<<&&&&>>>>"},
	}
	short := Encode(rec)
	assert.Contains(t, string(short), "<<<<&&&&>>>>")
	assert.NotContains(t, string(short), "\n")
	assert.Equal(t, rec, DecodeRecord(short))
	h, ok := scanHead(short)
	require.True(t, ok)
	assert.Equal(t, Head{Nonce: streamid.Nonce{1}, TTLSeconds: 90, Region: "eu", Session: "<&>"}, h)
	old := []byte(`{"n":"AQAAAAAAAAAAAAAA","t":1,"l":90,"r":"eu","s":"\u003c\u0026\u003e"}`)
	assert.Equal(t, "<&>", DecodeHead(old).Session)
}

// The claims of a start are found in its record, and in no other text.
func TestDecodeClaims(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Record{Started: 1, TTLSeconds: 90, Session: rapid.String().Draw(t, "session")}
		title := rapid.SampledFrom([]string{`,"p":"gold"`, `"p":"gold"`, `,"m":4`, `\",\"m\":4`, "plain"}).Draw(t, "title")
		r.Content = &Content{Title: title + rapid.String().Draw(t, "rest")}
		r.Plan = rapid.SampledFrom([]string{"", "gold"}).Draw(t, "plan")
		if rapid.Bool().Draw(t, "limited") {
			n := rapid.IntRange(0, 60).Draw(t, "limit")
			r.Limit = &n
		}
		plan, limit := DecodeClaims(r.Encode())
		require.Equal(t, r.Plan, plan)
		require.Equal(t, r.Limit, limit)
	})
}

// Attributes follow the members that earlier versions write, which decode the record
// without them.
func TestRecord_Attributes(t *testing.T) {
	seven := 7
	r := Record{
		Nonce: streamid.Nonce{1}, Started: 1, TTLSeconds: 90, Session: "tab", Plan: "gold",
		Attributes: &Attributes{
			Profile: "kids", Network: "n", ContentType: "live", ContentLabels: []string{"a", "b"}, Labels: map[string]string{"a": "x", "p": "silver"}, Priority: &seven,
		},
	}
	value := r.Encode()
	assert.Equal(t, `{"n":"AQAAAAAAAAAAAAAA","t":1,"l":90,"s":"tab","p":"gold","a":{"profile":"kids","network":"n","type":"live",`+
		`"content":["a","b"],"labels":{"a":"x","p":"silver"},"priority":7}}`, string(value))
	assert.Equal(t, r, DecodeRecord(value))
	plan, _ := DecodeClaims(value)
	assert.Equal(t, "gold", plan)
	r.Plan = ""
	value = r.Encode()
	plan, _ = DecodeClaims(value)
	assert.Empty(t, plan, "a label is not a claim")
	h, ok := scanHead(value)
	require.True(t, ok, "without encoding/json")
	assert.Equal(t, Head{streamid.Nonce{1}, 90, "", "tab"}, h)
	assert.Nil(t, DecodeRecord([]byte(`{"n":"AQAAAAAAAAAAAAAA","t":1,"l":90,"s":"tab"}`)).Attributes)
	as := r.PolicyAttributes()
	assert.Equal(t, &policy.Attributes{
		Profile: "kids", Network: "n", ContentType: "live", ContentLabels: []string{"a", "b"}, Labels: map[string]string{"a": "x", "p": "silver"}, Priority: 7,
	}, as)
	assert.Equal(t, &policy.Attributes{
		DeviceID: "d", DeviceType: "tv", ContentID: "c", Region: "eu", Priority: policy.DefaultPriority,
	}, (&Record{Region: "eu", Device: &Device{ID: "d", Type: "tv"}, Content: &Content{ID: "c"}}).PolicyAttributes())
}

// A record with a member of a later version is decoded as JSON, because more of its head
// may follow that member.
func TestDecodeHead_LaterVersion(t *testing.T) {
	h := DecodeHead([]byte(`{"n":"AQAAAAAAAAAAAAAA","t":1,"l":90,"new":"","s":"tab"}`))
	assert.Equal(t, Head{Nonce: streamid.Nonce{1}, TTLSeconds: 90, Session: "tab"}, h)
}
