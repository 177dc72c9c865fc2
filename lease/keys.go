package lease

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// MaxLimit is the largest limit. The transaction that tries each slot in turn
// takes an operation a slot, of the 128 that etcd allows (its --max-txn-ops).
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

// ended is where the reason for an ending stays for up to one TTL.
func (k keys) ended(user string, n nonce) string {
	return k.prefix + "/ended/" + user + "/" + n.String()
}

// owner returns the user whose stream key is.
func (k keys) owner(key string) string {
	user, _, _ := strings.Cut(strings.TrimPrefix(key, k.users()), "/")
	return user
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
}

func (r record) started() time.Time { return time.UnixMilli(r.Started) }

func (r record) device() Device {
	if r.Device == nil {
		return Device{}
	}
	return *r.Device
}

// held is one key under a user's prefix, as a snapshot saw it.
type held struct {
	key   string
	slot  int // -1 if the key is none of ours; it counts all the same
	lease int64
	mod   int64 // etcd revision of its start: orders streams without a clock
	rec   record
}

// snapshot is a user's keys at one etcd revision.
type snapshot struct {
	rev  int64
	term uint64 // raft term of the member that answered
	held []held // oldest first
}

func newSnapshot(user string, k keys, rev int64, term uint64, kvs []*mvccpb.KeyValue) snapshot {
	s := snapshot{rev: rev, term: term, held: make([]held, 0, len(kvs))}
	for _, kv := range kvs {
		s.held = append(s.held, newHeld(k.user(user), kv))
	}
	slices.SortFunc(s.held, func(a, b held) int { return int(a.mod - b.mod) })
	return s
}

func newHeld(prefix string, kv *mvccpb.KeyValue) held {
	h := held{key: string(kv.Key), slot: -1, lease: kv.Lease, mod: kv.ModRevision}
	name := strings.TrimPrefix(h.key, prefix)
	if n, err := strconv.Atoi(name); err == nil && fmt.Sprintf("%03d", n) == name {
		h.slot = n
	}
	if err := json.Unmarshal(kv.Value, &h.rec); err != nil {
		h.rec = record{} // a foreign value: it holds a slot and has no id that anyone could know
	}
	return h
}
