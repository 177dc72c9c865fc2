package policy

import (
	"cmp"
	"slices"
)

// A Stream is one key below a user's prefix, as [Decide] sees it.
type Stream struct {
	Index   int      // identifies the stream for the caller
	Slot    int      // -1 if streamcount did not write the key, which counts nevertheless
	Nonce   [12]byte // as in the stream's id
	Session string
	Expired bool // the stream's lease has expired, but etcd has not revoked it yet
	// The ids of the device and the content. They may be empty if the rule counts each
	// stream separately.
	Device, Content string
	// Attributes may be nil for a rule that does not need them, and for a key that
	// streamcount did not write.
	Attributes *Attributes
}

// A Start is the new stream that a user requests.
type Start struct {
	Session         string     // "" for none
	Replaces        [][12]byte // the nonces of streams to end
	Evict           bool       // end other streams if the user is at the limit
	Device, Content string
	Attributes      *Attributes // may be nil for a rule that does not need them
}

// A Decision is what an admitted start writes: the new stream in Slot, and the end of
// other streams. One of these may have the same slot.
type Decision struct {
	Slot    int
	Endings []Ending
	// Observed are the names of the limits with Observe that do not hold with the new
	// stream.
	Observed []string
}

// An Ending is a stream that a start ends, and why.
type Ending struct {
	Stream Stream
	Reason Reason
	// Limits are the names of the limits that would not hold if an evicted stream did not
	// end. A rule without further limits has none.
	Limits []string
}

// Decide is the admission rule. It decides whether one more stream of a user may
// start, given all streams of the user, oldest first, and reports false if it may not.
// The caller applies the decision with a transaction that succeeds only if the streams
// and the rule have not changed.
//
//   - A stream of the same session ends, and the new stream takes its slot. Such a start
//     is admitted even if the user is over a lowered limit, provided that it does not
//     increase the count.
//   - The streams that the start names in Replaces end.
//   - With the new stream, the remaining streams must not count for more than the limit,
//     and there must not be more of them than MaxStreams.
//   - Otherwise, streams whose leases have expired end, and then, if the start requests
//     it and the limit is not 0, the oldest streams until the new stream fits.
//   - The new stream takes the lowest free slot.
//
// A rule with several limits decides as [Limit] describes.
func Decide(r Rule, streams []Stream, s Start) (Decision, bool) {
	if r.NeedsAttributes() {
		return decideByLimits(r, streams, s)
	}
	var d Decision
	remaining := make([]Stream, 0, 8)
	slot := -1
	for _, st := range streams {
		switch {
		case s.Session != "" && st.Session == s.Session && st.Slot >= 0 && slot < 0:
			slot = st.Slot
			d.Endings = append(d.Endings, Ending{Stream: st, Reason: ReasonReplaced})
		case s.replaces(st):
			d.Endings = append(d.Endings, Ending{Stream: st, Reason: ReasonReplaced})
		default:
			remaining = append(remaining, st)
		}
	}
	takeover := slot >= 0
	if takeover {
		r.Limit = max(r.Limit, r.Count(streams))
	}
	group := r.Counting.Group(s.Device, s.Content)
	fits := r.fits(remaining, group, takeover)
	if !fits {
		remaining, d.Endings = endExpired(remaining, d.Endings)
		fits = r.fits(remaining, group, takeover)
	}
	for s.Evict && r.Limit > 0 && len(remaining) > 0 && !fits {
		remaining, d.Endings = r.evictOldest(remaining, d.Endings, group)
		fits = r.fits(remaining, group, takeover)
	}
	if !fits {
		return Decision{}, false
	}
	if !takeover {
		slot = lowestFreeSlot(remaining)
	}
	d.Slot = slot
	return d, true
}

// replaces reports whether the start names st as a stream to end. A stream without a
// nonce was not written by streamcount, and has no id.
func (s *Start) replaces(st Stream) bool {
	return len(s.Replaces) > 0 && st.Nonce != [12]byte{} && slices.Contains(s.Replaces, st.Nonce)
}

// fits reports whether a new stream of that group fits beside the remaining streams. A
// takeover needs no further key.
func (r *Rule) fits(remaining []Stream, group string, takeover bool) bool {
	if len(remaining) >= cmp.Or(r.MaxStreams, MaxLimit) && !takeover {
		return false
	}
	n := r.Count(remaining)
	if group == "" || !slices.ContainsFunc(remaining, func(st Stream) bool { return r.group(&st) == group }) {
		n++
	}
	return n <= r.Limit
}

// Count returns what streams count for.
func (r *Rule) Count(streams []Stream) int {
	if r.Counting.PerStream() {
		return len(streams)
	}
	n, seen := 0, make(map[string]bool, len(streams))
	for _, st := range streams {
		if g := r.group(&st); g == "" || !seen[g] {
			n++
			seen[g] = true
		}
	}
	return n
}

func (r *Rule) group(st *Stream) string { return r.Counting.Group(st.Device, st.Content) }

// endExpired moves the streams whose leases have expired from remaining to endings.
func endExpired(remaining []Stream, endings []Ending) ([]Stream, []Ending) {
	for _, st := range remaining {
		if st.Expired {
			endings = append(endings, Ending{Stream: st, Reason: ReasonExpired})
		}
	}
	return slices.DeleteFunc(remaining, func(st Stream) bool { return st.Expired }), endings
}

// evictOldest moves the oldest stream, with all streams of its group, from remaining to
// endings. It prefers a stream outside the group of the new stream: ending streams of
// that group lowers the number of streams, but not what they count for.
func (r *Rule) evictOldest(remaining []Stream, endings []Ending, group string) ([]Stream, []Ending) {
	first := max(0, slices.IndexFunc(remaining, func(st Stream) bool { return group == "" || r.group(&st) != group }))
	victim := remaining[first]
	ends := func(st Stream) bool {
		g := r.group(&st)
		return st.Index == victim.Index || g != "" && g != group && g == r.group(&victim)
	}
	for _, st := range remaining {
		if ends(st) {
			endings = append(endings, Ending{Stream: st, Reason: ReasonEvicted})
		}
	}
	return slices.DeleteFunc(remaining, ends), endings
}

// lowestFreeSlot returns the lowest slot that none of the streams has.
func lowestFreeSlot(streams []Stream) int {
	for slot := 0; ; slot++ {
		if !slices.ContainsFunc(streams, func(st Stream) bool { return st.Slot == slot }) {
			return slot
		}
	}
}
