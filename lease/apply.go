package lease

import (
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
)

// apply takes in the events of whole revisions, in order.
func (v *view) apply(events []*mvccpb.Event) {
	for len(events) > 0 {
		rev, n := events[0].Kv.ModRevision, 1
		for n < len(events) && events[n].Kv.ModRevision == rev {
			n++
		}
		v.applyRevision(rev, events[:n])
		v.advance(rev)
		events = events[n:]
	}
}

// applyRevision takes in one revision. What its tombstones say of streams that
// did not end in it is not believed: the decision may have failed.
func (v *view) applyRevision(rev int64, events []*mvccpb.Event) {
	graves := v.gravesIn(events)
	tell, moving := v.told.telling(rev), movesIn(v.keys, events)
	for _, e := range events {
		user, rest, ok := v.keys.split(e.Kv.Key)
		if !ok {
			v.applyRule(e)
			continue
		}
		var c change
		if e.Type == mvccpb.Event_PUT {
			c = v.put(user, rest, e.Kv)
		} else {
			c = v.remove(user, rest)
		}
		// A user who moves neither starts nor stops anything.
		if c.gone == nil && c.came == nil || moving && moves(v.keys, user, events) {
			continue
		}
		if c.gone.known() {
			g := v.bury(c.gone.nonce, graves)
			tell.end(user, c.gone, g, c.left-c.came.one())
		}
		if c.came.known() {
			tell.start(user, c.came, c.left)
		}
	}
	tell.done()
}

// gravesIn are what the tombstones of a revision say.
func (v *view) gravesIn(events []*mvccpb.Event) map[nonce]grave {
	var graves map[nonce]grave
	for _, e := range events {
		if e.Type != mvccpb.Event_PUT || !strings.HasPrefix(string(e.Kv.Key), v.keys.ended()) {
			continue
		}
		for _, g := range gravesOf(e.Kv.Value) {
			if graves == nil {
				graves = make(map[nonce]grave, len(events))
			}
			graves[g.Nonce] = g
		}
	}
	return graves
}

// known reports whether s is a stream, and not something else below a user's
// prefix, or nil.
func (s *live) known() bool { return s != nil && s.nonce != (nonce{}) }

// one is 1 for a key, and 0 for none.
func (s *live) one() int {
	if s == nil {
		return 0
	}
	return 1
}

// bury remembers why a stream ended, and returns it. One that ended without a
// reason has expired, unless this node knows better.
func (v *view) bury(n nonce, graves map[nonce]grave) grave {
	if g, told := graves[n]; told {
		v.ends.put(n, g)
		return g
	}
	if g, known := v.ends.get(n); known {
		return g
	}
	g := grave{Nonce: n, Reason: ReasonExpired}
	v.ends.put(n, g)
	v.lapsed.Add(1)
	return g
}
