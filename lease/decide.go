package lease

import "slices"

// want is what a start asks of the admission rule.
type want struct {
	session  string // "" for none
	replaces nonce  // zero for none
	evict    bool   // end the oldest streams rather than be refused
}

// ending is a stream that a start ends, and why.
type ending struct {
	held
	reason Reason
}

// buried reports whether a tombstone tells the stream's client why it ended. A
// lapsed stream has no lease to lose, and a foreign key has no client.
func (e ending) buried() bool { return e.reason != ReasonExpired && e.nonce != (nonce{}) }

// plan is what an admitted start writes: its own key in slot, and the end of
// others. An ended stream in the same slot is overwritten.
type plan struct {
	slot int
	ends []ending
}

// decide is the admission rule: may one more stream start, given all that the
// user holds? It is pure; the transaction that carries its plan out succeeds
// only while held is still the truth.
//
// A stream that goes on under the same session keeps its slot, even where the
// limit has been lowered meanwhile: it adds nothing. Anything else needs the
// streams that stay to be fewer than the limit. Streams whose lease has lapsed
// make room first, then, where the request says so, the oldest.
func decide(limit int, heldNow []held, lapsed map[int64]bool, w want) (plan, bool) {
	var p plan
	var stay []held
	own := -1
	for _, h := range heldNow {
		switch {
		case w.session != "" && h.session == w.session && h.slot >= 0 && own < 0:
			own = h.slot
			p.ends = append(p.ends, ending{h, ReasonReplaced})
		case w.replaces != (nonce{}) && h.nonce == w.replaces:
			p.ends = append(p.ends, ending{h, ReasonReplaced})
		default:
			stay = append(stay, h)
		}
	}
	if own >= 0 {
		p.slot = own
		return p, true
	}
	if len(stay) >= limit {
		var out []ending
		stay, out = makeRoom(limit, stay, lapsed, w.evict)
		p.ends = append(p.ends, out...)
	}
	if len(stay) >= limit {
		return plan{}, false
	}
	p.slot = freeSlot(stay)
	return p, true
}

// makeRoom takes lapsed streams out of stay, and with evict the oldest live
// ones until one more fits.
func makeRoom(limit int, stay []held, lapsed map[int64]bool, evict bool) (live []held, out []ending) {
	for _, h := range stay {
		if lapsed[h.lease] {
			out = append(out, ending{h, ReasonExpired})
		} else {
			live = append(live, h)
		}
	}
	for evict && limit > 0 && len(live) >= limit {
		out = append(out, ending{live[0], ReasonEvicted})
		live = live[1:]
	}
	return live, out
}

// freeSlot returns the lowest slot that none of stay holds. With fewer than
// limit streams staying it is below the limit.
func freeSlot(stay []held) int {
	for slot := 0; ; slot++ {
		if !slices.ContainsFunc(stay, func(h held) bool { return h.slot == slot }) {
			return slot
		}
	}
}
