package schema

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// Only a stream that was started in place of its player has a bar.
func TestNewTombstone_Bar(t *testing.T) {
	barred := func(r Record, session string, reason policy.Reason) bool {
		r.Session = session
		return NewTombstone("maya", Entry{Nonce: streamid.Nonce{1}, Session: session, Value: r.Encode()}, reason).Bar != BarKey{}
	}
	labels := &Attributes{Labels: map[string]string{"a": "b", "v": "edge"}}
	assert.True(t, barred(Record{Via: "edge:vod"}, "tab", policy.ReasonStopped))
	assert.True(t, barred(Record{Via: "edge:vod", Attributes: labels}, "tab", policy.ReasonEvicted))
	assert.True(t, barred(Record{Via: "edge:ü"}, "tab", policy.ReasonRemoved))
	assert.False(t, barred(Record{Via: "edge:vod"}, "tab", policy.ReasonExpired))
	assert.False(t, barred(Record{Via: "edge:vod"}, "", policy.ReasonStopped))
	assert.False(t, barred(Record{}, "tab", policy.ReasonStopped))
	assert.False(t, barred(Record{Attributes: labels}, "tab", policy.ReasonStopped), "the key of a label is no member of the record")
}

func TestTombstone_StoresTheBar(t *testing.T) {
	want := []Tombstone{{Nonce: streamid.Nonce{1}, Reason: policy.ReasonStopped, Bar: BarKeyOf("maya", "tab")}}
	assert.Equal(t, want, DecodeTombstones(EncodeTombstones(want)))
	assert.NotEqual(t, BarKeyOf("maya", "tab"), BarKeyOf("mayat", "ab"))
	var k BarKey
	assert.Error(t, k.UnmarshalText([]byte("AAAA")))
	assert.Error(t, k.UnmarshalText([]byte("!")))
}
