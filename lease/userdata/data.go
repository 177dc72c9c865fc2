package userdata

import (
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"streamcount/lease/internal/leasestatus"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
)

// Data is what is stored about a user. With several etcd clusters, [Data.Add] combines what
// each of them stores.
type Data struct {
	User      string
	Streams   []Stream // oldest first
	Override  []byte   // JSON as stored; nil if there is no override
	Cooldowns []Cooldown
	// Departed is the state of a user who moves to another etcd cluster, in JSON as stored;
	// nil without one.
	Departed []byte
	// Arrived means that the user has come from another etcd cluster, by a move that is not
	// complete.
	Arrived bool
	Other   []Key // keys below the user's prefix that streamcount did not write
}

// A Stream is a running stream with everything that is stored about it.
type Stream struct {
	ID         string
	StartedAt  time.Time
	ExpiresAt  time.Time // zero if etcd did not report it in time
	TTL        time.Duration
	Region     string
	Session    string
	Via        string // what started it in place of its player, or ""
	Device     Device
	Content    Content
	Plan       string // that the start named, or ""
	Limit      *int   // that the start named
	Attributes policy.StartAttributes
}

// A Device is the device of a stream, as its client described it.
type Device struct{ ID, Name, Type string }

// Content is what a stream plays, as its client described it.
type Content struct{ ID, Title string }

// A Cooldown forbids a client to evict streams. It contains a hash of the id of the client.
type Cooldown struct {
	Of        string    // "session" or "device"
	Hash      string    // base64url
	ExpiresAt time.Time // zero if etcd did not report it in time
}

// A Key is a key in etcd.
type Key struct {
	Key   string
	Value []byte
}

// Empty reports whether nothing is stored.
func (d Data) Empty() bool {
	return len(d.Streams)+len(d.Cooldowns)+len(d.Other) == 0 && d.Override == nil && d.Departed == nil && !d.Arrived
}

// Add adds what another etcd cluster stores about the same user.
func (d *Data) Add(other Data) {
	d.User = other.User
	d.Streams = append(d.Streams, other.Streams...)
	d.Cooldowns = append(d.Cooldowns, other.Cooldowns...)
	d.Other = append(d.Other, other.Other...)
	if d.Override == nil {
		d.Override = other.Override
	}
	if d.Departed == nil {
		d.Departed = other.Departed
	}
	d.Arrived = d.Arrived || other.Arrived
}

// Erased is what an erasure has removed.
type Erased struct {
	Streams   int
	Override  bool
	Cooldowns int
	Other     int // all other keys: of moves, and keys that streamcount did not write
	// MarkKept means that [Options.KeepMark] has kept a key.
	MarkKept bool
}

// Add adds what was removed from another etcd cluster, or by another attempt.
func (e *Erased) Add(other Erased) {
	e.Streams += other.Streams
	e.Override = e.Override || other.Override
	e.Cooldowns += other.Cooldowns
	e.Other += other.Other
	e.MarkKept = other.MarkKept || e.MarkKept
}

// Empty reports whether nothing was removed, and no key was kept.
func (e Erased) Empty() bool { return e == Erased{} }

// decode returns the data in a snapshot. statuses are those of the leases of its keys.
func (s *Store) decode(now snapshot, statuses map[int64]leasestatus.Status) Data {
	d := Data{User: now.user, Arrived: len(now.kvs[arrived]) > 0}
	for _, e := range schema.NewEntries(s.cfg.Keys, now.user, now.kvs[streams]) {
		if !isStream(e) {
			d.Other = append(d.Other, Key{e.Key, e.Value})
			continue
		}
		st := decodeStream(schema.DecodeRecord(e.Value))
		st.ID, st.ExpiresAt = s.cfg.StreamID(now.user, e), statuses[e.Lease].NotExpiredBefore()
		d.Streams = append(d.Streams, st)
	}
	for _, kv := range now.kvs[cooldowns] {
		c, ok := decodeCooldown(strings.TrimPrefix(string(kv.Key), s.cfg.Keys.UserCooldowns(now.user)))
		if !ok {
			d.Other = append(d.Other, Key{string(kv.Key), kv.Value})
			continue
		}
		c.ExpiresAt = statuses[kv.Lease].NotExpiredBefore()
		d.Cooldowns = append(d.Cooldowns, c)
	}
	d.Override, d.Departed = valueOf(now.kvs[override]), valueOf(now.kvs[departed])
	return d
}

// valueOf returns the value of the only key in kvs; nil if kvs is empty.
func valueOf(kvs []*mvccpb.KeyValue) []byte {
	if len(kvs) == 0 {
		return nil
	}
	return append([]byte{}, kvs[0].Value...)
}

func decodeStream(r schema.Record) Stream {
	st := Stream{
		StartedAt: r.StartTime(), TTL: time.Duration(r.TTLSeconds) * time.Second, Region: r.Region, Session: r.Session, Via: r.Via,
		Plan: r.Plan, Limit: r.Limit,
	}
	if r.Device != nil {
		st.Device = Device(*r.Device)
	}
	if r.Content != nil {
		st.Content = Content(*r.Content)
	}
	if r.Attributes != nil {
		st.Attributes = policy.StartAttributes(*r.Attributes)
	}
	return st
}

func decodeCooldown(name string) (c Cooldown, ok bool) {
	for prefix, of := range map[string]string{schema.SessionCooldown: "session", schema.DeviceCooldown: "device"} {
		if hash, ok := strings.CutPrefix(name, prefix); ok {
			return Cooldown{Of: of, Hash: hash}, true
		}
	}
	return Cooldown{}, false
}
