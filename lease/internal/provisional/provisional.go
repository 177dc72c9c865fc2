// Package provisional keeps the streams that a node has admitted without etcd.
package provisional

import (
	"context"
	"slices"
	"sync"
	"time"

	"streamcount/lease/internal/schema"
	"streamcount/lease/streamid"
)

// A Stream was admitted by this node without etcd, and is not written yet. Its lease id,
// nonce and slot are fixed from the beginning, so that its id stays valid after it is
// written. It is not known which slots are free, so it has a slot that other streams do
// not use.
type Stream struct {
	User  string
	Entry schema.Entry // its key, which may not exist yet
	// Write admits the stream by etcd and writes its key, which it returns.
	Write func(context.Context) (schema.Entry, error)

	lastSeen  time.Time // last start or heartbeat
	attempted bool      // a write was attempted, so the key may exist
}

// FirstSlot is the first of the Slots that provisional streams have. It is above
// policy.MaxLimit, and all of them have three digits.
const (
	FirstSlot = 100
	Slots     = 900
)

const maxStreams = 1 << 17

// HasSlot reports whether id is that of a stream that is or was provisional.
func HasSlot(id streamid.ID) bool { return int(id.Slot) >= FirstSlot }

// A Set contains the provisional streams of a node. It is safe for concurrent use.
type Set struct {
	mu    sync.Mutex
	users map[string][]*Stream // oldest first
	n     int
}

// New returns an empty Set.
func New() *Set { return &Set{users: make(map[string][]*Stream)} }

// Add adds a stream. It reports false if there are too many.
func (s *Set) Add(p *Stream) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n >= maxStreams {
		return false
	}
	p.lastSeen = time.Now()
	s.n++
	s.users[p.User] = append(s.users[p.User], p)
	return true
}

// Remove removes the stream with that nonce. It returns nil if there is none, and whether
// a write of the stream was attempted.
func (s *Set) Remove(user string, n streamid.Nonce) (p *Stream, attempted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.users[user]
	i := slices.IndexFunc(all, func(p *Stream) bool { return p.Entry.Nonce == n })
	if i < 0 {
		return nil, false
	}
	p = all[i]
	s.n--
	if len(all) == 1 {
		delete(s.users, user)
	} else {
		s.users[user] = slices.Delete(slices.Clone(all), i, i+1)
	}
	return p, p.attempted
}

// RemoveSilent removes the streams without a heartbeat for one TTL, and returns their
// number.
func (s *Set) RemoveSilent(ttl time.Duration) int {
	removed := 0
	for _, p := range s.All() {
		s.mu.Lock()
		expired := time.Since(p.lastSeen) > ttl
		s.mu.Unlock()
		if expired {
			s.Remove(p.User, p.Entry.Nonce)
			removed++
		}
	}
	return removed
}

// MarkAttempted records that a write of p is about to be attempted.
func (s *Set) MarkAttempted(p *Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.attempted = true
}

// Contains reports whether there is a stream with that nonce.
func (s *Set) Contains(user string, n streamid.Nonce) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.users[user], func(p *Stream) bool { return p.Entry.Nonce == n })
}

// Touch records a heartbeat of the stream with that nonce. It returns the stream's record, and
// reports whether there is such a stream.
func (s *Set) Touch(user string, n streamid.Nonce) (value []byte, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.users[user] {
		if p.Entry.Nonce == n {
			p.lastSeen = time.Now()
			return p.Entry.Value, true
		}
	}
	return nil, false
}

// Entries returns the keys of the user's streams, oldest first.
func (s *Set) Entries(user string) []schema.Entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]schema.Entry, 0, len(s.users[user]))
	for _, p := range s.users[user] {
		out = append(out, p.Entry)
	}
	return out
}

// All returns the streams, oldest first for each user.
func (s *Set) All() []*Stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*Stream
	for _, streams := range s.users {
		out = append(out, streams...)
	}
	return out
}

// Len returns the number of streams.
func (s *Set) Len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.n
}
