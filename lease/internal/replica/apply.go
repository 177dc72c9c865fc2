package replica

import (
	"bytes"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"

	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// Apply applies the events of complete revisions, in order.
func (r *Replica) Apply(events []*mvccpb.Event) {
	for len(events) > 0 {
		rev, n := events[0].Kv.ModRevision, 1
		for n < len(events) && events[n].Kv.ModRevision == rev {
			n++
		}
		r.applyRevision(rev, events[:n])
		r.mark = (*historyMark)(events[n-1])
		r.advance(rev)
		events = events[n:]
	}
}

// applyRevision applies one revision. A tombstone counts only if its stream ended in
// the same revision: the decision that it belongs to may have failed. A revision that
// was applied before changes nothing, so the observer receives no change twice.
func (r *Replica) applyRevision(rev int64, events []*mvccpb.Event) {
	tombstones, migrates := r.tombstonesIn(events), hasMigration(r.keys, events)
	r.changes = r.changes[:0]
	for _, e := range events {
		user, rest, ok := r.keys.ParseUserKey(e.Kv.Key)
		if !ok {
			r.applyOtherKey(e)
			continue
		}
		var c entryChange
		if e.Type == mvccpb.Event_PUT {
			c = r.putEntry(user, rest, e.Kv)
		} else {
			c = r.removeEntry(user, rest)
		}
		// A migration neither starts nor ends a stream.
		if c.removed == nil && c.added == nil || migrates && isMigrated(r.keys, user, events) {
			continue
		}
		if c.removed.isStream() {
			g := r.recordEnding(c.removed.nonce, tombstones)
			r.changes = append(r.changes, Change{
				User: user, Streams: c.count - c.added.count(), Ended: true, Reason: g.Reason, By: g.By,
				Limits: g.Limits, ID: c.removed.StreamID(), Record: c.removed.Value,
			})
		}
		if c.added.isStream() {
			r.changes = append(r.changes, Change{
				User: user, Streams: c.count, ID: c.added.StreamID(), Record: c.added.Value,
			})
		}
	}
	if len(r.changes) > 0 {
		r.cfg.Observer.StreamsChanged(rev, r.changes)
		clear(r.changes)
	}
}

// tombstonesIn decodes the tombstones that were written in a revision.
func (r *Replica) tombstonesIn(events []*mvccpb.Event) map[streamid.Nonce]schema.Tombstone {
	var tombstones map[streamid.Nonce]schema.Tombstone
	for _, e := range events {
		if e.Type != mvccpb.Event_PUT || !strings.HasPrefix(string(e.Kv.Key), r.keys.TombstonesPrefix()) {
			continue
		}
		for _, g := range schema.DecodeTombstones(e.Kv.Value) {
			if tombstones == nil {
				tombstones = make(map[streamid.Nonce]schema.Tombstone, len(events))
			}
			tombstones[g.Nonce] = g
		}
	}
	return tombstones
}

// recordEnding records and returns why a stream ended. A stream without a tombstone
// has expired, unless this node has ended it.
func (r *Replica) recordEnding(n streamid.Nonce, tombstones map[streamid.Nonce]schema.Tombstone) schema.Tombstone {
	if g, ok := tombstones[n]; ok {
		r.endings.Put(n, g)
		r.bars.Set(g)
		return g
	}
	if g, ok := r.endings.Get(n); ok {
		if g.Intended {
			g.Intended = false
			r.endings.Put(n, g)
			r.bars.Set(g)
		}
		return g
	}
	g := schema.Tombstone{Nonce: n, Reason: policy.ReasonExpired}
	r.endings.Put(n, g)
	r.expiries.Add(1)
	return g
}

// applyOtherKey applies an event of a key that is not below a user's prefix.
func (r *Replica) applyOtherKey(e *mvccpb.Event) {
	if string(e.Kv.Key) == r.keys.Routing() {
		r.NoteRouting(&schema.RoutingRecord{Value: e.Kv.Value, Revision: e.Kv.ModRevision}) // the key is never deleted
		return
	}
	if string(e.Kv.Key) == r.keys.Secret() {
		if e.Type == mvccpb.Event_PUT {
			r.cfg.OnSecrets(e.Kv.Value)
		}
		return
	}
	if e.Type == mvccpb.Event_PUT {
		r.rules.put(r.keys, e.Kv, r.listGeneration)
	} else {
		r.rules.remove(r.keys, e.Kv.Key)
	}
}

// CurrentRouting returns the newest put of the routing record that is known.
func (r *Replica) CurrentRouting() *schema.RoutingRecord { return r.routing.Load() }

// NoteRouting stores the routing record unless a newer one is known, and returns the
// newer of the two.
func (r *Replica) NoteRouting(k *schema.RoutingRecord) *schema.RoutingRecord {
	for {
		old := r.routing.Load()
		if old.Revision >= k.Revision {
			return old
		}
		if r.routing.CompareAndSwap(old, k) {
			return k
		}
	}
}

// CheckRouting notes the routing record in kvs, the answer to a read of its key. It returns
// [schema.ErrRouting] unless its revision is routed.
func (r *Replica) CheckRouting(kvs []*mvccpb.KeyValue, routed int64) error {
	now := &schema.RoutingRecord{}
	if len(kvs) == 1 {
		now = schema.DecodeRoutingRecord(kvs[0])
	}
	r.NoteRouting(now)
	if now.Revision != routed {
		return schema.ErrRouting
	}
	return nil
}

// hasMigration reports whether a revision is a step of a user's migration.
func hasMigration(k schema.Keys, events []*mvccpb.Event) bool {
	if len(events) < 2 || len(events) > 2*policy.MaxLimit { // a step is not part of a batch
		return false
	}
	departed, arrived := []byte(k.DepartedPrefix()), []byte(k.ArrivedPrefix())
	return slices.ContainsFunc(events, func(e *mvccpb.Event) bool {
		return e.Type == mvccpb.Event_PUT && (bytes.HasPrefix(e.Kv.Key, departed) || bytes.HasPrefix(e.Kv.Key, arrived))
	})
}

// isMigrated reports whether a revision moves the user's streams to or from another etcd
// cluster.
func isMigrated(k schema.Keys, user string, events []*mvccpb.Event) bool {
	departed, arrived := k.Departed(user), k.Arrived(user)
	return slices.ContainsFunc(events, func(e *mvccpb.Event) bool {
		return e.Type == mvccpb.Event_PUT && (string(e.Kv.Key) == departed || string(e.Kv.Key) == arrived)
	})
}
