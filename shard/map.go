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

// Default is the name of the only cluster of a service that has no map.
const Default = "default"

// A Shard is one etcd cluster among several.
type Shard struct {
	Name      string   `json:"name"`
	Endpoints []string `json:"endpoints"` // empty for an etcd inside the node
}

// A Map says on which shard each user lives. Maps are not changed: another has a
// higher epoch.
type Map struct {
	// ID tells services apart, so that a shard cannot be given to two of them.
	ID    string `json:"id"`
	Epoch int64  `json:"epoch"` // 0 for a service that never had a map
	// Shards are where users live. The first decides what the next map is.
	Shards []Shard `json:"shards"`
	// From are where they lived before, while they move; else empty.
	From []Shard `json:"from,omitempty"`
}

var shardName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,31}$`)

// ErrInvalid means that shards cannot be what was asked for.
var ErrInvalid = errors.New("not a set of shards")

// Check says what is wrong with a set of shards. Its errors are [ErrInvalid].
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

// Parse reads NAME=ENDPOINT,ENDPOINT.
func Parse(text string) (Shard, error) {
	name, list, ok := strings.Cut(text, "=")
	if !ok || list == "" {
		return Shard{}, fmt.Errorf("shard %.80q: want NAME=ENDPOINT,ENDPOINT", text)
	}
	s := Shard{Name: name, Endpoints: strings.Split(list, ",")}
	return s, Check([]Shard{s})
}

func (s Shard) String() string { return s.Name + "=" + strings.Join(s.Endpoints, ",") }

// all are the shards that a user may have anything on.
func (m *Map) all() []Shard {
	out := slices.Clone(m.Shards)
	for _, s := range m.From {
		if !slices.ContainsFunc(out, func(o Shard) bool { return o.Name == s.Name }) {
			out = append(out, s)
		}
	}
	return out
}

// Home is the name of the shard on which user lives.
func (m *Map) Home(user string) string { return heaviest(m.Shards, user) }

// Old is where user lived before, while users move and if that was elsewhere;
// else "".
func (m *Map) Old(user string) string {
	if len(m.From) == 0 {
		return ""
	}
	if old := heaviest(m.From, user); old != m.Home(user) {
		return old
	}
	return ""
}

// heaviest is the shard of the highest weight (rendezvous hashing): a shard more takes
// users from all others alike, and one less gives its users to all others alike;
// nobody else moves. The weights must never change: they say where users are.
func heaviest(shards []Shard, user string) string {
	if len(shards) == 1 {
		return shards[0].Name
	}
	of := xxhash.Sum64String(user)
	best, most := "", uint64(0)
	for _, s := range shards {
		w := mix(of ^ xxhash.Sum64String(s.Name))
		if best == "" || w > most || w == most && s.Name > best {
			best, most = s.Name, w
		}
	}
	return best
}

// mix is the last step of splitmix64: each bit of h decides over all of the result.
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
		return nil, fmt.Errorf("the map of shards cannot be read: %w", err)
	}
	if err := errors.Join(Check(m.Shards), checkFrom(m.From)); err != nil || m.Epoch < 1 || m.ID == "" {
		return nil, fmt.Errorf("the map of shards makes no sense (a later version's?): %w", err)
	}
	return &m, nil
}

func checkFrom(from []Shard) error {
	if len(from) == 0 {
		return nil
	}
	return Check(from)
}
