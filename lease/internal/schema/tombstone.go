package schema

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// A Tombstone says why a stream ended, for its next heartbeat. All tombstones of a
// transaction are stored in one key, so that a batch of stops needs one more put
// instead of one for each stop.
type Tombstone struct {
	Nonce  streamid.Nonce `json:"n"`
	Reason policy.Reason  `json:"r"`
	By     *Replacement   `json:"by,omitempty"`
	Limits []string       `json:"l,omitempty"` // the names of the limits for which it was evicted

	// Bar is not zero if the stream was started implicitly and its session is not to start
	// another one so.
	Bar BarKey `json:"b,omitzero"`

	// Intended means that this node is to end the stream, and does not know whether it
	// has: the reason applies once the stream is gone. It is not stored.
	Intended bool `json:"-"`
}

// NewTombstone returns the tombstone of a stream of user. The stream has a bar if it was
// started implicitly.
func NewTombstone(user string, e Entry, reason policy.Reason) Tombstone {
	t := Tombstone{Nonce: e.Nonce, Reason: reason}
	if reason != policy.ReasonExpired && e.Session != "" && DecodeVia(e.Value) != "" {
		t.Bar = BarKeyOf(user, e.Session)
	}
	return t
}

// TombstonesOf returns those of ts whose streams are in kvs.
func TombstonesOf(kvs []*mvccpb.KeyValue, ts []Tombstone) []Tombstone {
	in := make(map[streamid.Nonce]bool, len(kvs))
	for _, kv := range kvs {
		in[DecodeHead(kv.Value).Nonce] = true
	}
	var out []Tombstone
	for _, t := range ts {
		if in[t.Nonce] {
			out = append(out, t)
		}
	}
	return out
}

// A BarKey identifies a session of a user.
type BarKey [12]byte

// BarKeyOf returns the key of a session of a user.
func BarKeyOf(user, session string) (k BarKey) {
	sum := sha256.Sum256([]byte(user + "\x00" + session)) // a user id contains no control characters
	copy(k[:], sum[:])
	return k
}

// MarshalText implements encoding.TextMarshaler.
func (k BarKey) MarshalText() ([]byte, error) {
	return base64.RawURLEncoding.AppendEncode(nil, k[:]), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *BarKey) UnmarshalText(text []byte) error { return streamid.DecodeBase64(k[:], text) }

// DecodeVia returns the Via of a record, or "". It is fast for a record without: only the key of
// a label may have the same name.
func DecodeVia(value []byte) string {
	if !bytes.Contains(value, []byte(`,"v":"`)) {
		return ""
	}
	return DecodeRecord(value).Via
}

// Replacement describes the stream that took the place of an ended one.
type Replacement struct {
	Device  Device `json:"d,omitzero"`
	Started int64  `json:"t"` // Unix milliseconds
}

// EncodeTombstones returns the value of a key of tombstones.
func EncodeTombstones(ts []Tombstone) []byte {
	if value, ok := composeTombstones(ts); ok {
		return value
	}
	return Encode(ts)
}

// composeTombstones returns the stored form of ts without encoding/json, because there is
// a tombstone for each stop. It reports false if JSON escapes a text.
func composeTombstones(ts []Tombstone) (value []byte, ok bool) {
	c := composer{b: make([]byte, 0, 48*len(ts)+2), escapes: ts == nil}
	c.raw(`[`)
	for i, t := range ts {
		if i > 0 {
			c.raw(`,`)
		}
		c.raw(`{"n":"`)
		c.nonce(t.Nonce)
		c.raw(`","r":"`)
		c.quoted(string(t.Reason))
		if t.Bar != (BarKey{}) {
			return nil, false
		}
		if t.By != nil {
			c.raw(`,"by":{`)
			if t.By.Device != (Device{}) {
				c.raw(`"d":`)
				c.device(t.By.Device)
				c.raw(`,`)
			}
			c.raw(`"t":`)
			c.number(t.By.Started)
			c.raw(`}`)
		}
		c.texts(`,"l":[`, t.Limits)
		c.raw(`}`)
	}
	c.raw(`]`)
	return c.b, !c.escapes
}

// DecodeTombstones decodes the value of a key of tombstones. It returns nil if
// streamcount did not write the value.
func DecodeTombstones(value []byte) []Tombstone {
	if ts, ok := scanStops(value); ok {
		return ts
	}
	var ts []Tombstone
	if json.Unmarshal(value, &ts) != nil {
		return nil
	}
	return ts
}

// scanStops decodes tombstones of stops without encoding/json, because every node decodes
// those of all nodes. It reports false for all other values.
func scanStops(value []byte) (ts []Tombstone, ok bool) {
	const before, after = `{"n":"`, `","r":"stopped"}`
	size := base64.RawURLEncoding.EncodedLen(len(streamid.Nonce{}))
	each := len(before) + size + len(after) + 1 // and a comma, or the last bracket
	if len(value) <= each || len(value)%each != 1 || value[0] != '[' || value[len(value)-1] != ']' {
		return nil, false
	}
	ts = make([]Tombstone, len(value)/each)
	for i := range ts {
		b := value[1+i*each:][:each]
		last := i == len(ts)-1
		t := &ts[i]
		if string(b[:len(before)]) != before || string(b[len(before)+size:each-1]) != after || !last && b[each-1] != ',' ||
			t.Nonce.UnmarshalText(b[len(before):len(before)+size]) != nil {
			return nil, false
		}
		t.Reason = policy.ReasonStopped
	}
	return ts, true
}
