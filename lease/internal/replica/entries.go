package replica

import (
	"bytes"
	"hash/maphash"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"streamcount/lease/internal/monotonic"
	"streamcount/lease/internal/schema"
	"streamcount/lease/streamid"
)

// A Entry is one key under a user's prefix. A replica may hold millions.
type Entry struct {
	next           *Entry       // of the same user
	renewed        atomic.Int64 // a monotonic.Time
	lease          int64
	mod            int64 // revision of the last put
	Value          []byte
	foreignName    *string // last part of a key that is not a slot
	nonce          streamid.Nonce
	listGeneration uint32 // of the last list that contained the key
	slot           int16  // -1 if the key is not a slot
	region         uint16 // index in usageCounts.regionNames
	hasClaims      bool   // the start carried a plan or a limit
	origin         uint8  // index in origins
	ttlSeconds     uint32 // 0 if the value is not a record
}

// TTL returns the TTL of the stream, which may differ from the TTL of new streams.
func (s *Entry) TTL() time.Duration { return time.Duration(s.ttlSeconds) * time.Second }

// LastRenewal returns when this node sent its last successful renewal of the
// stream's lease, or zero if there was none.
func (s *Entry) LastRenewal() time.Time {
	return monotonic.Time(s.renewed.Load()).Time()
}

// RecordRenewal records a successful renewal that was sent at sent.
func (s *Entry) RecordRenewal(sent time.Time) {
	at := int64(monotonic.Of(sent))
	for {
		old := s.renewed.Load()
		if old != 0 && old >= at || s.renewed.CompareAndSwap(old, at) {
			return
		}
	}
}

// SlotEntry returns the entry with its key and session.
func (s *Entry) SlotEntry(k schema.Keys, user string) schema.Entry {
	h := schema.Entry{Slot: int(s.slot), Lease: s.lease, ModRevision: s.mod, Nonce: s.nonce, Value: s.Value}
	if s.slot >= 0 {
		h.Key = k.Slot(user, h.Slot)
		h.Session = schema.DecodeHead(s.Value).Session
	} else {
		h.Key = k.UserPrefix(user) + *s.foreignName
	}
	return h
}

// Nonce returns the nonce of the stream.
func (s *Entry) Nonce() streamid.Nonce { return s.nonce }

// StreamID returns the stream's identity, as its id contains it.
func (s *Entry) StreamID() streamid.ID {
	return streamid.ID{Slot: uint16(max(s.slot, 0)), Lease: s.lease, Nonce: s.nonce}
}

// matches reports whether s is the key with this last part.
func (s *Entry) matches(slot int, rest string) bool {
	return int(s.slot) == slot && (slot >= 0 || *s.foreignName == rest)
}

// isStream reports whether s is a stream: neither nil nor a key of another program.
func (s *Entry) isStream() bool { return s != nil && s.nonce != (streamid.Nonce{}) }

// count returns 1, or 0 if s is nil.
func (s *Entry) count() int {
	if s == nil {
		return 0
	}
	return 1
}

// A stripe holds the keys of some of the users. Each user's keys are a linked list.
type stripe struct {
	sync.RWMutex
	users map[string]*Entry
}

func (r *Replica) stripeOf(user string) *stripe {
	return &r.stripes[maphash.String(r.seed, user)%uint64(len(r.stripes))]
}

// replace puts fresh in the place of old.
func (sh *stripe) replace(user string, old, fresh *Entry) {
	fresh.next = old.next
	if sh.users[user] == old {
		sh.users[user] = fresh
		return
	}
	for at := sh.users[user]; at != nil; at = at.next {
		if at.next == old {
			at.next = fresh
			return
		}
	}
}

func (sh *stripe) userNames() []string {
	sh.RLock()
	defer sh.RUnlock()
	return slices.Collect(maps.Keys(sh.users))
}

func (sh *stripe) eachCount(f func(user string, streams int)) {
	sh.RLock()
	defer sh.RUnlock()
	for user, at := range sh.users {
		n := 0
		for ; at != nil; at = at.next {
			n++
		}
		f(user, n)
	}
}

// EachUser calls f with every user and their schema.Keys, in no particular order.
func (r *Replica) EachUser(f func(user string, entries []schema.Entry)) {
	for i := range r.stripes {
		for _, user := range r.stripes[i].userNames() {
			if entries, _, _ := r.UserEntries(user); len(entries) > 0 {
				f(user, entries)
			}
		}
	}
}

// EachUserCount calls f with every user and the number of their schema.Keys, in no
// particular order, without decoding a key. f must not call the replica.
func (r *Replica) EachUserCount(f func(user string, streams int)) {
	for i := range r.stripes {
		r.stripes[i].eachCount(f)
	}
}

// EachStream calls f with every stream and its user until f returns false, the streams of a
// user one after the other. It leaves out keys that streamcount did not write. An entry does
// not change if its stream ends or another stream takes its slot.
func (r *Replica) EachStream(f func(user string, s *Entry) (more bool)) {
	type stream struct {
		user  string
		entry *Entry
	}
	var streams []stream // of one stripe, because f must not run while it is locked
	for i := range r.stripes {
		sh := &r.stripes[i]
		streams = streams[:0]
		sh.RLock()
		for user, at := range sh.users {
			for ; at != nil; at = at.next {
				if at.isStream() {
					streams = append(streams, stream{user, at})
				}
			}
		}
		sh.RUnlock()
		for _, s := range streams {
			if !f(s.user, s.entry) {
				return
			}
		}
	}
}

// An entryChange is the effect of one event on a user's keys.
type entryChange struct {
	removed, added *Entry // nil if nothing was
	count          int    // the user's keys after it
}

// putEntry applies a put. A put that rewrites the record of the same stream neither
// removes nor adds a stream.
func (r *Replica) putEntry(user, rest string, kv *mvccpb.KeyValue) entryChange {
	slot := schema.ParseSlot(rest)
	sh := r.stripeOf(user)
	sh.Lock()
	defer sh.Unlock()
	n := 0
	var old *Entry
	for at := sh.users[user]; at != nil; at = at.next {
		n++
		if at.matches(slot, rest) {
			old = at
		}
	}
	if old != nil {
		old.listGeneration = r.listGeneration
		if old.mod == kv.ModRevision && bytes.Equal(old.Value, kv.Value) { // the value differs after a restore
			return entryChange{}
		}
		// Readers may hold the entry, so it is replaced, not changed.
		fresh := r.newEntry(user, slot, rest, kv)
		sh.replace(user, old, fresh)
		r.counts.replaced(old, fresh)
		if old.nonce == fresh.nonce {
			return entryChange{}
		}
		return entryChange{old, fresh, n}
	}
	s := r.newEntry(user, slot, rest, kv)
	s.next = sh.users[user]
	sh.users[strings.Clone(user)] = s // user is part of a longer string, which the map would keep in memory
	r.counts.added(n, s)
	r.cfg.Observer.StreamCount(user, n+1)
	return entryChange{added: s, count: n + 1}
}

func (r *Replica) newEntry(user string, slot int, rest string, kv *mvccpb.KeyValue) *Entry {
	head := schema.DecodeHead(kv.Value)
	plan, limit := schema.DecodeClaims(kv.Value)
	s := &Entry{
		lease: kv.Lease, mod: kv.ModRevision, Value: kv.Value, nonce: head.Nonce,
		listGeneration: r.listGeneration, slot: int16(slot), region: r.counts.regionNumber(head.Region),
		hasClaims: plan != "" || limit != nil, origin: originOf(schema.DecodeVia(kv.Value)),
		ttlSeconds: uint32(min(max(head.TTLSeconds, 0), math.MaxUint32)),
	}
	if r.bars.Any() && head.Session != "" { // a running session has no bar
		r.bars.Lift(schema.BarKeyOf(user, head.Session))
	}
	if slot < 0 {
		name := strings.Clone(rest)
		s.foreignName = &name
	}
	if at, ok := r.renewalHints.Get(s.nonce); ok && s.nonce != (streamid.Nonce{}) {
		s.RecordRenewal(at)
	}
	return s
}

// removeEntry applies a deletion.
func (r *Replica) removeEntry(user, rest string) entryChange {
	slot := schema.ParseSlot(rest)
	sh := r.stripeOf(user)
	sh.Lock()
	defer sh.Unlock()
	return r.drop(sh, user, func(s *Entry) bool { return s.matches(slot, rest) })
}

// drop removes the first of the user's entries that matches. The stripe is locked.
func (r *Replica) drop(sh *stripe, user string, matches func(*Entry) bool) entryChange {
	var removed *Entry
	n := 0
	for at, previous := sh.users[user], (*Entry)(nil); at != nil; previous, at = at, at.next {
		n++
		if removed != nil || !matches(at) {
			continue
		}
		removed = at
		switch {
		case previous != nil:
			previous.next = at.next
		case at.next != nil:
			sh.users[user] = at.next
		default:
			delete(sh.users, user)
		}
	}
	if removed != nil {
		r.counts.removed(n, removed)
		n--
	}
	return entryChange{removed: removed, count: n}
}

// sweep removes the entries and rules that the last list did not contain.
func (r *Replica) sweep() {
	r.rules.sweep(r.listGeneration)
	for i := range r.stripes {
		sh := &r.stripes[i]
		sh.Lock()
		for user := range sh.users {
			for r.drop(sh, user, func(s *Entry) bool { return s.listGeneration != r.listGeneration }).removed != nil {
			}
		}
		sh.Unlock()
	}
}
