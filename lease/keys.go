package lease

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// MaxLimit is the largest limit, and how many streams a user may have however
// they count. A start may end them all in one transaction, of which etcd allows
// 128 operations (its --max-txn-ops).
const MaxLimit = 60

// ValidUser reports whether user is an acceptable user id: 1 to 128 characters
// of A-Z a-z 0-9 . _ ~ @ : | + = -. None of them is a slash, so that no user's
// key prefix contains another's.
func ValidUser(user string) bool {
	if len(user) == 0 || len(user) > 128 {
		return false
	}
	for _, c := range []byte(user) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case strings.IndexByte("._~@:|+=-", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// keys lays out the service's part of etcd's key space below a prefix.
type keys struct{ prefix string }

// users is the prefix of every stream of every user.
func (k keys) users() string { return k.prefix + "/users/" }

// user is the prefix of one user's streams. Every key below it counts.
func (k keys) user(user string) string { return k.users() + user + "/" }

func (k keys) slot(user string, slot int) string {
	return fmt.Sprintf("%s%03d", k.user(user), slot)
}

// overrides is the prefix of what users have of their own.
func (k keys) overrides() string { return k.prefix + "/limits/" }

func (k keys) override(user string) string { return k.overrides() + user }

// plans is the prefix of all plans.
func (k keys) plans() string { return k.prefix + "/plans/" }

func (k keys) plan(name string) string { return k.plans() + name }

// rules is put whenever a rule is.
func (k keys) rules() string { return k.prefix + "/rules" }

// ended is the prefix of all tombstones.
func (k keys) ended() string { return k.prefix + "/ended/" }

// tombstone is a new key for graves.
func (k keys) tombstone() string { return k.ended() + rand.Text() }

// split takes a key under users apart: whose it is, and the rest. What is in nobody's
// prefix is nobody's.
func (k keys) split(key []byte) (user, rest string, ok bool) {
	path, ok := strings.CutPrefix(string(key), k.users())
	if !ok {
		return "", "", false
	}
	return strings.Cut(path, "/")
}

// A nonce tells streams apart that had the same slot or lease.
type nonce [12]byte

func (n nonce) String() string { return base64.RawURLEncoding.EncodeToString(n[:]) }

// MarshalText writes the nonce as it stands in records and keys.
func (n nonce) MarshalText() ([]byte, error) { return []byte(n.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (n *nonce) UnmarshalText(b []byte) error {
	if base64.RawURLEncoding.DecodedLen(len(b)) != len(n) {
		return fmt.Errorf("nonce of %d characters", len(b))
	}
	_, err := base64.RawURLEncoding.Strict().Decode(n[:], b)
	return err
}

// A record is the value of a slot's key. The lease stands on the key itself.
type record struct {
	Nonce   nonce    `json:"n"`
	Started int64    `json:"t"` // Unix milliseconds
	TTL     int64    `json:"l"` // seconds, as etcd granted them
	Region  string   `json:"r,omitempty"`
	Session string   `json:"s,omitempty"`
	Device  *Device  `json:"d,omitempty"`
	Content *Content `json:"c,omitempty"`
	// What the start was told of its user, for showing his limit.
	Plan  string `json:"p,omitempty"`
	Limit *int   `json:"m,omitempty"`
}

func (r record) started() time.Time { return time.UnixMilli(r.Started) }

func (r record) device() Device {
	if r.Device == nil {
		return Device{}
	}
	return *r.Device
}

// held is one key under a user's prefix.
type held struct {
	key     string
	slot    int // -1 if the key is none of ours; it counts all the same
	lease   int64
	mod     int64 // etcd revision of its start: orders streams without a clock, and names this put for ever
	nonce   nonce // zero if the value is none of ours: no id can name it
	session string
	value   []byte // the record, as etcd holds it; not to be changed
}

// recordOf decodes a whole value. A foreign one is an empty record.
func recordOf(value []byte) record {
	var r record
	if json.Unmarshal(value, &r) != nil {
		return record{}
	}
	return r
}

// ident is what the id of the stream says that holds the key.
func (h held) ident() ident { return ident{uint16(max(h.slot, 0)), h.lease, h.nonce} }

// snapshot is a user's keys at one etcd revision.
type snapshot struct {
	rev    int64
	term   uint64 // raft term of the member that answered; 0 if it was the view
	held   []held // oldest first
	viewed bool   // by the view, which may lag behind; else by etcd itself
	rules  ruleSource
	// rumoured means that the rules are older than the keys: good enough to try by,
	// which the transaction checks, and not to refuse by.
	rumoured bool
}

func newSnapshot(user string, k keys, rev int64, term uint64, kvs []*mvccpb.KeyValue) snapshot {
	s := snapshot{rev: rev, term: term, held: make([]held, 0, len(kvs))}
	for _, kv := range kvs {
		s.held = append(s.held, newHeld(k.user(user), kv))
	}
	s.sort()
	return s
}

// sort orders by start. Streams that have moved here together go by the clock of
// the node that started each.
func (s snapshot) sort() {
	slices.SortFunc(s.held, func(a, b held) int {
		if a.mod != b.mod {
			return cmp.Compare(a.mod, b.mod)
		}
		return cmp.Or(recordOf(a.value).started().Compare(recordOf(b.value).started()), cmp.Compare(a.key, b.key))
	})
}

func newHeld(prefix string, kv *mvccpb.KeyValue) held {
	h := held{
		key: string(kv.Key), slot: slotOf(strings.TrimPrefix(string(kv.Key), prefix)),
		lease: kv.Lease, mod: kv.ModRevision, value: kv.Value,
	}
	head := headOf(kv.Value)
	h.nonce, h.session = head.Nonce, head.Session
	return h
}

// slotOf reads the last part of a key, -1 if it is no slot of ours.
func slotOf(name string) int {
	if len(name) != 3 {
		return -1
	}
	n := 0
	for _, c := range []byte(name) {
		if c < '0' || c > '9' {
			return -1
		}
		n = 10*n + int(c-'0')
	}
	return n
}

// head is the part of a record that every start, stop and heartbeat looks at.
type head struct {
	Nonce   nonce  `json:"n"`
	TTL     int64  `json:"l"` // seconds
	Region  string `json:"r"`
	Session string `json:"s"`
}

// ttl is the stream's own, which may not be what this node grants today.
func (h head) ttl() time.Duration { return time.Duration(h.TTL) * time.Second }

// headOf reads the head of a record; of a foreign value it is empty.
func headOf(value []byte) head {
	if h, ok := scanHead(value); ok {
		return h
	}
	var h head
	if json.Unmarshal(value, &h) != nil {
		return head{}
	}
	return h
}

// scanHead reads the head of a record as json.Marshal writes it, which is what
// nearly all values are; of most others it says nothing. Only of a value that has a
// member twice does it say something else than json.Unmarshal. A view of a million
// streams decodes each of them.
func scanHead(value []byte) (h head, ok bool) {
	rest, ok := bytes.CutPrefix(value, []byte(`{"n":"`))
	size := base64.RawURLEncoding.EncodedLen(len(h.Nonce))
	if !ok || len(rest) <= size || h.Nonce.UnmarshalText(rest[:size]) != nil {
		return head{}, false
	}
	rest = rest[size:]
	if _, rest, ok = scanNumber(rest, `","t":`); !ok {
		return head{}, false
	}
	if h.TTL, rest, ok = scanNumber(rest, `,"l":`); !ok {
		return head{}, false
	}
	if h.Region, rest, ok = scanString(rest, `,"r":"`); !ok {
		return head{}, false
	}
	if h.Session, rest, ok = scanString(rest, `,"s":"`); !ok {
		return head{}, false
	}
	return h, bytes.HasPrefix(rest, []byte("}")) || slices.ContainsFunc(afterHead, func(next string) bool {
		return bytes.HasPrefix(rest, []byte(next))
	})
}

// afterHead are the members of a record that may follow its head. Behind any other, of
// a later version, there may be more of the head.
var afterHead = []string{`,"d":`, `,"c":`, `,"p":`, `,"m":`}

// scanNumber reads a member that is a positive whole number.
func scanNumber(b []byte, name string) (value int64, rest []byte, ok bool) {
	rest, ok = bytes.CutPrefix(b, []byte(name))
	if !ok {
		return 0, nil, false
	}
	after := bytes.TrimLeft(rest, "0123456789")
	value, err := strconv.ParseInt(string(rest[:len(rest)-len(after)]), 10, 64)
	return value, after, err == nil
}

// scanString reads a member that may be left out. A string with an escape, or
// with anything that JSON would not have there, is not ok.
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
