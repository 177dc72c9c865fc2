package lease

import "slices"

// want is what a start asks of the admission rule.
type want struct {
	session  string // "" for none
	replaces nonce  // zero for none
	evict    bool   // end the oldest streams rather than be refused
	content  string // what is to be played, "" if not said
	device   string // and on what
}

// ending is a stream that a start ends, and why.
type ending struct {
	held
	reason Reason
}

// buried reports whether a tombstone tells the stream's client why it ended. A
// lapsed stream has no lease to lose, and a foreign key has no client.
func (e ending) buried() bool { return e.reason != ReasonExpired && e.nonce != (nonce{}) }

// decision is what an admitted start writes: its own key in slot, and the end of
// others. An ended stream in the same slot is overwritten.
type decision struct {
	slot int
	ends []ending
}

// decide is the admission rule: may one more stream start, given all that the
// user holds? It is pure; the transaction that carries its decision out succeeds
// only while held and the rule are still the truth.
//
// With the new stream, the user's streams must count for no more than the limit.
// A stream that goes on under the same session keeps its slot, even where the
// limit has been lowered meanwhile, as long as it adds nothing. Streams whose
// lease has lapsed make room first, then, where the request says so, the oldest.
func decide(r rule, heldNow []held, lapsed map[int64]bool, w want) (decision, bool) {
	var d decision
	var stay []held
	own := -1
	for _, h := range heldNow {
		switch {
		case w.session != "" && h.session == w.session && h.slot >= 0 && own < 0:
			own = h.slot
			d.ends = append(d.ends, ending{h, ReasonReplaced})
		case w.replaces != (nonce{}) && h.nonce == w.replaces:
			d.ends = append(d.ends, ending{h, ReasonReplaced})
		default:
			stay = append(stay, h)
		}
	}
	t := tallier{count: r.count, mine: r.count.unit(w.device, w.content), most: r.limit}
	if own >= 0 {
		t.most = max(t.most, t.counted(heldNow)) // it adds nothing
	}
	if !t.fits(stay, own >= 0) {
		var out []ending
		stay, out = t.makeRoom(stay, lapsed, w.evict && r.limit > 0, own >= 0)
		d.ends = append(d.ends, out...)
	}
	if !t.fits(stay, own >= 0) {
		return decision{}, false
	}
	d.slot = own
	if own < 0 {
		d.slot = freeSlot(stay)
	}
	return d, true
}

// spoils reports whether what the user holds now is why a decision on what he held
// at revision rev could not be carried out.
func (s snapshot) spoils(d decision, rev int64) bool {
	for _, h := range s.held {
		if h.mod > rev {
			return true
		}
	}
	return slices.ContainsFunc(d.ends, func(e ending) bool {
		return !slices.ContainsFunc(s.held, func(h held) bool { return h.key == e.key && h.mod == e.mod })
	})
}

// tallier counts streams as a plan does, with one that is to start.
type tallier struct {
	count Counting
	mine  string // what the new stream counts as; "" if alone
	most  int    // so much may be counted
}

// fits reports whether the new stream may start beside stay. However they count,
// streams take one of [MaxLimit] keys each, but for one that has its slot.
func (t tallier) fits(stay []held, hasSlot bool) bool {
	if len(stay) >= MaxLimit && !hasSlot {
		return false
	}
	n := t.counted(stay)
	if t.mine == "" || !slices.ContainsFunc(stay, func(h held) bool { return t.unit(h) == t.mine }) {
		n++
	}
	return n <= t.most
}

// counted is what streams count for.
func (t tallier) counted(hs []held) int {
	if t.count.each() {
		return len(hs)
	}
	n, seen := 0, make(map[string]bool, len(hs))
	for _, h := range hs {
		if u := t.unit(h); u == "" || !seen[u] {
			n++
			seen[u] = true
		}
	}
	return n
}

// unit is what a stream counts as: all of the same unit count once, and each of
// unit "" counts alone.
func (t tallier) unit(h held) string {
	if t.count.each() {
		return ""
	}
	r := recordOf(h.value)
	content := ""
	if r.Content != nil {
		content = r.Content.ID
	}
	return t.count.unit(r.device().ID, content)
}

// makeRoom takes lapsed streams out of stay, and with evict the oldest live
// ones, with all that count as one with them, until one more fits.
func (t tallier) makeRoom(stay []held, lapsed map[int64]bool, evict, hasSlot bool) (live []held, out []ending) {
	for _, h := range stay {
		if lapsed[h.lease] {
			out = append(out, ending{h, ReasonExpired})
		} else {
			live = append(live, h)
		}
	}
	for evict && len(live) > 0 && !t.fits(live, hasSlot) {
		// To end streams that the new one joins would not make room, unless it is
		// only their number that is too large.
		first := max(0, slices.IndexFunc(live, func(h held) bool { return t.mine == "" || t.unit(h) != t.mine }))
		unit := t.unit(live[first])
		var rest []held
		for i, h := range live {
			if i == first || unit != "" && unit != t.mine && t.unit(h) == unit {
				out = append(out, ending{h, ReasonEvicted})
			} else {
				rest = append(rest, h)
			}
		}
		live = rest
	}
	return live, out
}

// freeSlot returns the lowest slot that none of stay holds.
func freeSlot(stay []held) int {
	for slot := 0; ; slot++ {
		if !slices.ContainsFunc(stay, func(h held) bool { return h.slot == slot }) {
			return slot
		}
	}
}
