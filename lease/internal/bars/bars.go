// Package bars keeps sessions from starting streams implicitly after their streams were ended
// on purpose. A player whose requests start streams does not stop requesting, so without a
// bar it would start again at once.
package bars

import (
	"sync/atomic"
	"time"

	"streamcount/lease/internal/schema"
	"streamcount/lease/internal/ttlmap"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// The times after which a bar ends.
const (
	MaxAge     = 10 * time.Minute // in any case
	Quiet      = 15 * time.Second // since the last request of the session to this node
	EntryQuiet = 5 * time.Second  // the same, for a request with which a viewer begins to play
)

// maxBars is the maximum number of bars in one of the two generations of the map.
const maxBars = 1 << 17

// Bars are the bars of one node. They are safe for concurrent use.
//
// A bar ends when the session is quiet, not after a fixed time, so that a player that repeats
// its requests stays out. Every node reads the same tombstones and has the same bars. A node
// to which the session has sent no request has no time of the last one. It rejects the first
// request, unless that is one with which a viewer begins to play.
type Bars struct {
	m        *ttlmap.Map[schema.BarKey, *bar]
	cooldown time.Duration // after an eviction, the minimum age at which a bar ends
	any      atomic.Bool   // a bar was ever set
	now      func() time.Time
}

// A bar is the bar of one session.
type bar struct {
	tombstone schema.Tombstone
	begin     time.Time
	last      atomic.Int64 // nanoseconds from begin to the last rejected request; 0 if there was none
}

// New returns no bars. After an eviction a bar lasts for at least cooldown.
func New(cooldown time.Duration) *Bars {
	return &Bars{m: ttlmap.New[schema.BarKey, *bar](MaxAge, maxBars), cooldown: cooldown, now: time.Now}
}

// Set sets the bar of a tombstone that has one. It has no effect if it is set already.
func (b *Bars) Set(t schema.Tombstone) {
	if t.Bar == (schema.BarKey{}) || t.Nonce == (streamid.Nonce{}) {
		return
	}
	if old, ok := b.m.Get(t.Bar); ok && old.tombstone.Nonce == t.Nonce {
		return
	}
	b.any.Store(true)
	b.m.Put(t.Bar, &bar{tombstone: t, begin: b.now()})
}

// Any reports whether there may be a bar.
func (b *Bars) Any() bool { return b.any.Load() }

// Lift ends a bar.
func (b *Bars) Lift(key schema.BarKey) { b.m.Remove(key) }

// Check reports whether a session is barred, and how its stream ended. If the session sends no
// request for the time retryAfter, the bar ends. entry means that the request is one with which
// a viewer begins to play. A rejected request prolongs the bar.
func (b *Bars) Check(key schema.BarKey, entry bool) (t schema.Tombstone, retryAfter time.Duration, barred bool) {
	of, age, retryAfter, barred := b.look(key, entry)
	switch {
	case of == nil:
		return schema.Tombstone{}, 0, false
	case !barred:
		b.m.Remove(key)
		return schema.Tombstone{}, 0, false
	}
	of.last.Store(int64(max(age, 1)))
	return of.tombstone, retryAfter, true
}

// Look is Check without an effect on the bar.
func (b *Bars) Look(key schema.BarKey, entry bool) (t schema.Tombstone, retryAfter time.Duration, barred bool) {
	of, _, retryAfter, barred := b.look(key, entry)
	if !barred {
		return schema.Tombstone{}, 0, false
	}
	return of.tombstone, retryAfter, true
}

// look returns the bar of a session, or nil, with its age, and whether it still
// applies to a request.
func (b *Bars) look(key schema.BarKey, entry bool) (of *bar, age, retryAfter time.Duration, barred bool) {
	of, ok := b.m.Get(key)
	if !ok {
		return nil, 0, 0, false
	}
	age, quiet := b.now().Sub(of.begin), Quiet
	if entry {
		quiet = EntryQuiet
	}
	least := time.Duration(0)
	if of.tombstone.Reason == policy.ReasonEvicted {
		least = b.cooldown
	}
	last := time.Duration(of.last.Load())
	known := last > 0 || entry // whether the session is quiet
	barred = age < MaxAge && (age < least || !known || age-last < quiet)
	return of, age, max(quiet, least-age), barred
}
