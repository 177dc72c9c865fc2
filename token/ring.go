package token

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"sync/atomic"
	"time"
)

// A Ring has the keys that are in use. It is safe for concurrent use. Its zero value has no keys.
type Ring struct{ entries atomic.Pointer[[]Entry] }

// An Entry is a key with the times at which it is used.
type Entry struct {
	Key   Key
	From  time.Time // when it begins to sign, if it can
	Until time.Time // when verifiers no longer need it; zero means never
}

// Set replaces the keys.
func (r *Ring) Set(entries []Entry) { r.entries.Store(&entries) }

// SetFile replaces the keys by those of [ParseFile].
func (r *Ring) SetFile(keys []Key) {
	entries := make([]Entry, len(keys))
	for i, k := range keys {
		entries[i].Key = k
	}
	r.Set(entries)
}

// Entries returns the keys. The caller must not change the slice.
func (r *Ring) Entries() []Entry {
	if all := r.entries.Load(); all != nil {
		return *all
	}
	return nil
}

// Signing returns the key that signs at a time: the one that began last.
func (r *Ring) Signing(now time.Time) (key Key, ok bool) {
	var from time.Time
	for _, e := range r.Entries() {
		if e.Key.CanSign() && !e.From.After(now) && (!ok || e.From.After(from)) {
			key, from, ok = e.Key, e.From, true
		}
	}
	return key, ok
}

// JWKS returns the set of the public keys, and its entity tag. Secrets of HS256 are not part
// of it.
func (r *Ring) JWKS(now time.Time) (document []byte, etag string, err error) {
	set := struct {
		Keys []Key `json:"keys"`
	}{[]Key{}}
	for _, e := range r.Entries() {
		if e.Key.Algorithm != HS256 && (e.Until.IsZero() || e.Until.After(now)) {
			set.Keys = append(set.Keys, e.Key.Public())
		}
	}
	if document, err = json.Marshal(set); err != nil {
		return nil, "", err
	}
	sum := sha256.Sum256(document)
	return document, `"` + hex.EncodeToString(sum[:8]) + `"`, nil
}

// A KeyState is what a key is used for at a time.
type KeyState string

// The states of a key, in their order.
const (
	Published KeyState = "published" // verifiers can fetch it; it does not sign yet
	Signing   KeyState = "signing"
	Verifying KeyState = "verifying" // it has signed tokens that may still be valid
)

// KeyInfo describes a key. It has no secret.
type KeyInfo struct {
	ID        string
	Algorithm Algorithm
	State     KeyState
	Created   time.Time
	From      time.Time // when it begins to sign
	Until     time.Time // when it is removed; zero if that is not known yet
}
