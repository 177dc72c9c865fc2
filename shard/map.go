package shard

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/cespare/xxhash/v2"
)

// Default is the name of the only shard of a service without a map.
const Default = "default"

// A Shard is one etcd cluster among several.
type Shard struct {
	Name      string   `json:"name"`
	Endpoints []string `json:"endpoints"` // empty for an embedded etcd
}

// A Map assigns each user to a shard. Maps are immutable: the next map has a higher epoch.
type Map struct {
	// ID identifies the service, so that two services cannot share a shard.
	ID    string `json:"id"`
	Epoch int64  `json:"epoch"` // 0 for a service without a map
	// Shards are the shards of users. The transaction that commits the next map is on the first.
	Shards []Shard `json:"shards"`
	// Previous are the shards of users before this migration; empty if there is none.
	Previous []Shard `json:"from,omitempty"`
	// By is the author of this map, if known.
	By string `json:"by,omitempty"`
}

var shardName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,31}$`)

// ErrInvalid means that a set of shards is not valid.
var ErrInvalid = errors.New("not a set of shards")

// Check returns an [ErrInvalid] if a set of shards is not valid.
func Check(shards []Shard) error {
	if err := check(shards); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}

func check(shards []Shard) error {
	if len(shards) == 0 {
		return errors.New("want at least one")
	}
	names, addresses := map[string]bool{}, map[string]string{}
	for _, s := range shards {
		if !shardName.MatchString(s.Name) {
			return fmt.Errorf("shard %.40q: want a name of 1 to 32 lower-case letters, digits and . _ -", s.Name)
		}
		if names[s.Name] {
			return fmt.Errorf("shard %s is there twice", s.Name)
		}
		names[s.Name] = true
		for _, e := range s.Endpoints {
			if other, there := addresses[e]; there && other != s.Name {
				return fmt.Errorf("shards %s and %s have the same address %s: streams would be counted twice", other, s.Name, e)
			}
			addresses[e] = s.Name
		}
	}
	return nil
}

// Parse parses NAME=ENDPOINT,ENDPOINT.
func Parse(text string) (Shard, error) {
	name, list, ok := strings.Cut(text, "=")
	if !ok || list == "" {
		return Shard{}, fmt.Errorf("shard %.80q: want NAME=ENDPOINT,ENDPOINT", text)
	}
	s := Shard{Name: name, Endpoints: strings.Split(list, ",")}
	return s, Check([]Shard{s})
}

func (s Shard) String() string { return s.Name + "=" + strings.Join(s.Endpoints, ",") }

// all returns the shards on which a user may have keys.
func (m *Map) all() []Shard {
	out := slices.Clone(m.Shards)
	for _, s := range m.Previous {
		if !slices.ContainsFunc(out, func(o Shard) bool { return o.Name == s.Name }) {
			out = append(out, s)
		}
	}
	return out
}

// Shard returns the name of user's shard.
func (m *Map) Shard(user string) string { return owner(m.Shards, user) }

// PreviousShard returns the name of user's shard before this migration, if there is a
// migration and the shard was another; otherwise "".
func (m *Map) PreviousShard(user string) string {
	if len(m.Previous) == 0 {
		return ""
	}
	if old := owner(m.Previous, user); old != m.Shard(user) {
		return old
	}
	return ""
}

// owner returns the shard with the highest weight (rendezvous hashing). A new shard takes
// users evenly from all others, and the users of a removed shard are spread evenly over the
// others; no other user moves. The weights must never change, because they determine where
// users are.
func owner(shards []Shard, user string) string {
	if len(shards) == 1 {
		return shards[0].Name
	}
	of := xxhash.Sum64String(user)
	best, highest := "", uint64(0)
	for _, s := range shards {
		w := mix(of ^ xxhash.Sum64String(s.Name))
		if best == "" || w > highest || w == highest && s.Name > best {
			best, highest = s.Name, w
		}
	}
	return best
}

// mix is the last step of splitmix64: each bit of h affects all bits of the result.
func mix(h uint64) uint64 {
	h ^= h >> 30
	h *= 0xbf58476d1ce4e5b9
	h ^= h >> 27
	h *= 0x94d049bb133111eb
	return h ^ h>>31
}

func (m *Map) encode() []byte {
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // text and numbers always marshal
	}
	return b
}

func decode(value []byte) (*Map, error) {
	var m Map
	if err := json.Unmarshal(value, &m); err != nil {
		return nil, fmt.Errorf("the shard map cannot be decoded: %w", err)
	}
	if err := errors.Join(Check(m.Shards), checkFrom(m.Previous)); err != nil || m.Epoch < 1 || m.ID == "" {
		return nil, fmt.Errorf("the shard map is not valid (does it come from a later version?): %w", err)
	}
	return &m, nil
}

func checkFrom(from []Shard) error {
	if len(from) == 0 {
		return nil
	}
	return Check(from)
}
