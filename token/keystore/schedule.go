package keystore

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"streamcount/token"
)

// Config configures a Store.
type Config struct {
	Prefix     string // of the keys in etcd, with a slash at its end
	Algorithm  token.Algorithm
	Prepublish time.Duration // how long a key is published before it signs
	Period     time.Duration // how long a key signs
	Retention  time.Duration // how long a key is published after it has signed
	// Spread takes the place of Prepublish after a rotation at once. With [MaxDelay], all nodes
	// publish a key before one of them signs with it.
	Spread time.Duration
}

// removed is the state of a key that is no longer needed.
const removed token.KeyState = ""

// A stored key is a value in etcd.
type stored struct {
	Key     token.Key `json:"jwk"`
	Created time.Time `json:"createdAt"`
	From    time.Time `json:"signsFrom"`

	revision int64 // of its put
}

func decode(value []byte) (s stored, err error) {
	if err := json.Unmarshal(value, &s); err != nil {
		return s, fmt.Errorf("not a key: %w", err)
	}
	if !s.Key.CanSign() || s.From.IsZero() {
		return s, errors.New("not a key: it has no private part, or no time at which it begins to sign")
	}
	return s, nil
}

// order sorts keys by the time at which they begin to sign.
func order(keys []stored) {
	slices.SortFunc(keys, func(a, b stored) int { return cmp.Or(a.From.Compare(b.From), cmp.Compare(a.Key.ID, b.Key.ID)) })
}

// end returns when keys[i] of ordered keys stops signing: when the next key of the algorithm begins.
// The last key of the configured algorithm has no end, so that there is always a key that signs.
func (c Config) end(keys []stored, i int) time.Time {
	for _, next := range keys[i+1:] {
		if next.Key.Algorithm == keys[i].Key.Algorithm {
			return next.From
		}
	}
	if keys[i].Key.Algorithm == c.Algorithm {
		return time.Time{}
	}
	end := keys[i].From.Add(c.Period) // no node may replace it
	if j := slices.IndexFunc(keys, func(k stored) bool { return k.Key.Algorithm == c.Algorithm }); j > i && keys[j].From.After(end) {
		return keys[j].From // it signs in place of the first key of the algorithm until then
	}
	return end
}

// state returns the state of keys[i] of ordered keys.
func (c Config) state(keys []stored, i int, now time.Time) token.KeyState {
	end := c.end(keys, i)
	switch {
	case keys[i].From.After(now):
		return token.Published
	case end.IsZero() || end.After(now):
		return token.Signing
	case end.Add(c.Retention).After(now):
		return token.Verifying
	}
	return removed
}

// entries returns ordered keys for a [token.Ring]. Keys of other algorithms than that of the node sign
// here until the first key of its algorithm does, which verifiers may not have yet.
func (c Config) entries(keys []stored) []token.Entry {
	out, own := make([]token.Entry, len(keys)), false
	for i, k := range keys {
		own = own || k.Key.Algorithm == c.Algorithm
		out[i] = token.Entry{Key: k.Key, From: k.From}
		if end := c.end(keys, i); !end.IsZero() {
			out[i].Until = end.Add(c.Retention)
		}
		if own && k.Key.Algorithm != c.Algorithm {
			out[i].Key = k.Key.Public()
		}
	}
	return out
}

// due returns when the next key begins to sign, if a key has to be created now.
func (c Config) due(keys []stored, now time.Time) (from time.Time, ok bool) {
	newest := -1
	for i, k := range keys {
		if k.Key.Algorithm == c.Algorithm {
			newest = i
		}
	}
	switch {
	case len(keys) == 0:
		return now, true // no node has published keys, so no verifier has cached them
	case newest < 0: // the algorithm was changed
		return now.Add(c.Prepublish), true
	}
	begins := keys[newest].From.Add(c.Period)
	if now.Before(begins.Add(-c.Prepublish)) {
		return time.Time{}, false
	}
	if soonest := now.Add(c.Prepublish); begins.Before(soonest) {
		begins = soonest
	}
	return begins, true
}
