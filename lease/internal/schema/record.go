package schema

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"streamcount/lease/streamid"
)

// A Record is the value of a slot's key. The lease of the stream is that of the key.
type Record struct {
	Nonce      streamid.Nonce `json:"n"`
	Started    int64          `json:"t"` // Unix milliseconds
	TTLSeconds int64          `json:"l"` // seconds
	Region     string         `json:"r,omitempty"`
	Session    string         `json:"s,omitempty"`
	Device     *Device        `json:"d,omitempty"`
	Content    *Content       `json:"c,omitempty"`
	// Plan and Limit are the claims of the start about its user.
	Plan  string `json:"p,omitempty"`
	Limit *int   `json:"m,omitempty"`
	// Via is what started the stream in place of its player, such as "edge:vod"; "" for
	// most streams.
	Via string `json:"v,omitempty"`
	// Attributes are last, and nil for most streams.
	Attributes *Attributes `json:"a,omitempty"`
}

// Attributes are the stored form of [policy.StartAttributes]. The names of the members differ from those of claims, for which
// DecodeClaims searches.
type Attributes struct {
	Profile       string            `json:"profile,omitempty"`
	Network       string            `json:"network,omitempty"`
	ContentType   string            `json:"type,omitempty"`
	ContentLabels []string          `json:"content,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
	Priority      *int              `json:"priority,omitempty"`
}

// A Device is a device as a client describes it. All fields are optional.
type Device struct {
	ID   string `json:"id,omitempty"`
	Name string `json:"name,omitempty"`
	Type string `json:"type,omitempty"`
}

// Content is what a stream plays, as a client describes it. All fields are optional.
type Content struct {
	ID    string `json:"id,omitempty"`
	Title string `json:"title,omitempty"`
}

// Encode returns the stored form of v. It does not escape '<', '>' and '&', which
// would make the texts of clients up to six times as long: nothing that is stored
// becomes part of HTML.
func Encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // strings and numbers always marshal
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{'\n'})
}

// Encode returns the stored form of r.
func (r *Record) Encode() []byte {
	if value, ok := r.compose(); ok {
		return value
	}
	return Encode(r)
}

// compose returns the stored form of r without encoding/json, because there is a record
// for each start. It reports false for a record with attributes, or with a text that JSON
// escapes.
func (r *Record) compose() (value []byte, ok bool) {
	if r.Attributes != nil {
		return nil, false
	}
	c := composer{b: make([]byte, 0, 256)}
	c.raw(`{"n":"`)
	c.nonce(r.Nonce)
	c.raw(`","t":`)
	c.number(r.Started)
	c.raw(`,"l":`)
	c.number(r.TTLSeconds)
	c.text(`,"r":"`, r.Region)
	c.text(`,"s":"`, r.Session)
	if r.Device != nil {
		c.raw(`,"d":`)
		c.device(*r.Device)
	}
	if r.Content != nil {
		c.raw(`,"c":`)
		c.object(`"id":"`, r.Content.ID, `"title":"`, r.Content.Title)
	}
	c.text(`,"p":"`, r.Plan)
	if r.Limit != nil {
		c.raw(`,"m":`)
		c.number(int64(*r.Limit))
	}
	c.text(`,"v":"`, r.Via)
	c.raw(`}`)
	return slices.Clip(c.b), !c.escapes
}

// DecodeRecord decodes the value of a key. If streamcount did not write the value, it
// returns the zero record.
func DecodeRecord(value []byte) Record {
	var r Record
	if json.Unmarshal(value, &r) != nil {
		return Record{}
	}
	return r
}

// StartTime returns when the stream started, by the clock of the node that started it.
func (r Record) StartTime() time.Time { return time.UnixMilli(r.Started) }

// DeviceID returns the id of the stream's device, or "".
func (r Record) DeviceID() string {
	if r.Device == nil {
		return ""
	}
	return r.Device.ID
}

// ContentID returns the id of the stream's content, or "".
func (r Record) ContentID() string {
	if r.Content == nil {
		return ""
	}
	return r.Content.ID
}

// DecodeClaims returns the claims of the start that wrote a record. It is fast for a
// record without claims: a text in a record cannot contain the names of the members,
// because its quotation marks are escaped.
func DecodeClaims(value []byte) (plan string, limit *int) {
	if !bytes.Contains(value, []byte(`,"p":"`)) && !bytes.Contains(value, []byte(`,"m":`)) {
		return "", nil
	}
	r := DecodeRecord(value)
	return r.Plan, r.Limit
}

// Head is the part of a record that every start, stop and heartbeat needs.
type Head struct {
	Nonce      streamid.Nonce `json:"n"`
	TTLSeconds int64          `json:"l"` // seconds
	Region     string         `json:"r"`
	Session    string         `json:"s"`
}

// TTL returns the TTL of the stream, which may differ from the TTL of new streams.
func (h Head) TTL() time.Duration { return time.Duration(h.TTLSeconds) * time.Second }

// DecodeHead decodes the head of a record. If streamcount did not write the value, it
// returns the zero head.
func DecodeHead(value []byte) Head {
	if h, ok := scanHead(value); ok {
		return h
	}
	var h Head
	if json.Unmarshal(value, &h) != nil {
		return Head{}
	}
	return h
}

// scanHead decodes the head of a record that has the form which json.Marshal
// writes. For most values of another form it reports false. It differs from
// json.Unmarshal only for a value that has a member twice, or that is not JSON after its
// head. It exists because a replica decodes the head of each of a million streams.
func scanHead(value []byte) (h Head, ok bool) {
	rest, ok := bytes.CutPrefix(value, []byte(`{"n":"`))
	size := base64.RawURLEncoding.EncodedLen(len(h.Nonce))
	if !ok || len(rest) <= size || h.Nonce.UnmarshalText(rest[:size]) != nil {
		return Head{}, false
	}
	rest = rest[size:]
	if _, rest, ok = scanNumber(rest, `","t":`); !ok {
		return Head{}, false
	}
	if h.TTLSeconds, rest, ok = scanNumber(rest, `,"l":`); !ok {
		return Head{}, false
	}
	if h.Region, rest, ok = scanString(rest, `,"r":"`); !ok {
		return Head{}, false
	}
	if h.Session, rest, ok = scanString(rest, `,"s":"`); !ok {
		return Head{}, false
	}
	return h, string(rest) == "}" || slices.ContainsFunc(membersAfterHead, func(next string) bool {
		return bytes.HasPrefix(rest, []byte(next))
	})
}

// membersAfterHead are the beginnings of the members that may follow the head of a
// record. A member that a later version writes may be followed by more of the head, so
// such a record is decoded as JSON.
var membersAfterHead = []string{`,"d":`, `,"c":`, `,"p":`, `,"m":`, `,"v":`, `,"a":`}

// scanNumber scans a member whose value is a nonnegative integer.
func scanNumber(b []byte, name string) (value int64, rest []byte, ok bool) {
	rest, ok = bytes.CutPrefix(b, []byte(name))
	if !ok {
		return 0, nil, false
	}
	after := bytes.TrimLeft(rest, "0123456789")
	digits := rest[:len(rest)-len(after)]
	value, err := strconv.ParseInt(string(digits), 10, 64)
	return value, after, err == nil && (len(digits) == 1 || digits[0] != '0')
}

// scanString scans a member that may be missing. It reports false for a string with an
// escape sequence or a character that JSON does not allow.
func scanString(b []byte, name string) (value string, rest []byte, ok bool) {
	inside, there := bytes.CutPrefix(b, []byte(name))
	if !there {
		return "", b, true
	}
	for i, c := range inside {
		switch {
		case c == '"':
			return string(inside[:i]), inside[i+1:], utf8.Valid(inside[:i])
		case c == '\\' || c < ' ':
			return "", nil, false
		}
	}
	return "", nil, false
}
