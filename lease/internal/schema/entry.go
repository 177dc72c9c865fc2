package schema

import (
	"cmp"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// A Entry is one key below a user's prefix.
type Entry struct {
	Key         string
	Slot        int // -1 if streamcount did not write the key, which counts nevertheless
	Lease       int64
	ModRevision int64          // etcd revision of the put; orders streams without a clock
	Nonce       streamid.Nonce // zero if streamcount did not write the value: then no id refers to it
	Session     string
	Value       []byte // the stored record, shared and not to be modified
}

// StreamID returns the content of the stream's id.
func (e Entry) StreamID() streamid.ID {
	return streamid.ID{Slot: uint16(max(e.Slot, 0)), Lease: e.Lease, Nonce: e.Nonce}
}

// PolicyStream returns the entry in the form that a rule takes. It decodes the record only
// if the rule depends on what it contains.
func (e *Entry) PolicyStream(r *policy.Rule) policy.Stream {
	st := policy.Stream{Slot: e.Slot, Nonce: e.Nonce, Session: e.Session}
	if r.NeedsAttributes() || !r.Counting.PerStream() {
		record := DecodeRecord(e.Value)
		st.Device, st.Content = record.DeviceID(), record.ContentID()
		if r.NeedsAttributes() {
			st.Attributes = record.PolicyAttributes()
		}
	}
	return st
}

// NewEntry returns the entry of a key below the prefix of a user.
func NewEntry(prefix string, kv *mvccpb.KeyValue) Entry {
	head := DecodeHead(kv.Value)
	return Entry{
		Key: string(kv.Key), Slot: ParseSlot(strings.TrimPrefix(string(kv.Key), prefix)),
		Lease: kv.Lease, ModRevision: kv.ModRevision, Value: kv.Value,
		Nonce: head.Nonce, Session: head.Session,
	}
}

// NewEntries returns the entries of a user's keys, oldest first.
func NewEntries(k Keys, user string, kvs []*mvccpb.KeyValue) []Entry {
	entries := make([]Entry, 0, len(kvs))
	prefix := k.UserPrefix(user)
	for _, kv := range kvs {
		entries = append(entries, NewEntry(prefix, kv))
	}
	SortEntries(entries)
	return entries
}

// SortEntries sorts entries by the start of their streams. Streams that were migrated
// in one transaction are sorted by the clocks of the nodes that started them.
func SortEntries(entries []Entry) {
	slices.SortFunc(entries, func(a, b Entry) int {
		if a.ModRevision != b.ModRevision {
			return cmp.Compare(a.ModRevision, b.ModRevision)
		}
		return cmp.Or(DecodeRecord(a.Value).StartTime().Compare(DecodeRecord(b.Value).StartTime()), cmp.Compare(a.Key, b.Key))
	})
}

// ParseSlot returns the slot with that name, the last part of a key, or -1.
func ParseSlot(name string) int {
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
