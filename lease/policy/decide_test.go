package policy

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"
)

// stream returns the stream that started as the nth.
func stream(slot, n int, session string) Stream {
	return Stream{Index: n, Slot: slot, Nonce: [12]byte{byte(n)}, Session: session}
}

// decideWith applies the rule to streams of which some have expired.
func decideWith(r Rule, streams []Stream, expired map[int]bool, s Start) (Decision, bool) {
	streams = slices.Clone(streams)
	for i := range streams {
		streams[i].Expired = expired[streams[i].Index]
	}
	d, ok := Decide(r, streams, s)
	for i := range d.Endings {
		d.Endings[i].Stream.Expired = false
	}
	return d, ok
}

func TestDecide(t *testing.T) {
	a, b, c := stream(0, 1, "tv"), stream(1, 2, "phone"), stream(2, 3, "")
	full := []Stream{a, b, c}
	tests := []struct {
		name    string
		limit   int
		held    []Stream
		expired map[int]bool
		want    Start
		ok      bool
		slot    int
		ends    []Ending
	}{
		{name: "first", limit: 3, ok: true},
		{name: "lowestFreeSlot", limit: 3, held: []Stream{a, c}, ok: true, slot: 1},
		{name: "full", limit: 3, held: full},
		{name: "limitZero", limit: 0, want: Start{Evict: true}},
		{name: "ownSession", limit: 3, held: full, want: Start{Session: "phone"}, ok: true, slot: 1,
			ends: []Ending{{Stream: b, Reason: ReasonReplaced}}},
		{name: "ownSessionAboveLoweredLimit", limit: 1, held: full, want: Start{Session: "phone"}, ok: true, slot: 1,
			ends: []Ending{{Stream: b, Reason: ReasonReplaced}}},
		{name: "otherSession", limit: 3, held: full, want: Start{Session: "car"}},
		{name: "noSessionIsNotASession", limit: 3, held: full, want: Start{Session: ""}},
		{name: "replaces", limit: 3, held: full, want: Start{Replaces: [][12]byte{c.Nonce}}, ok: true, slot: 2,
			ends: []Ending{{Stream: c, Reason: ReasonReplaced}}},
		{name: "replacesWhatIsGone", limit: 3, held: full, want: Start{Replaces: [][12]byte{{9}}}},
		{name: "replacesAboveLoweredLimit", limit: 2, held: full, want: Start{Replaces: [][12]byte{c.Nonce}}},
		{name: "sessionAndReplaces", limit: 3, held: full, want: Start{Session: "tv", Replaces: [][12]byte{c.Nonce}},
			ok: true, slot: 0, ends: []Ending{{Stream: a, Reason: ReasonReplaced}, {Stream: c, Reason: ReasonReplaced}}},
		{name: "expired", limit: 3, held: full, expired: map[int]bool{b.Index: true}, ok: true, slot: 1,
			ends: []Ending{{Stream: b, Reason: ReasonExpired}}},
		{name: "expiredBeforeEvicted", limit: 3, held: full, expired: map[int]bool{b.Index: true},
			want: Start{Evict: true}, ok: true, slot: 1, ends: []Ending{{Stream: b, Reason: ReasonExpired}}},
		{name: "evictsTheOldest", limit: 3, held: full, want: Start{Evict: true}, ok: true, slot: 0,
			ends: []Ending{{Stream: a, Reason: ReasonEvicted}}},
		{name: "evictsToALoweredLimit", limit: 2, held: full, want: Start{Evict: true}, ok: true, slot: 0,
			ends: []Ending{{Stream: a, Reason: ReasonEvicted}, {Stream: b, Reason: ReasonEvicted}}},
		{name: "foreignKeyCounts", limit: 1, held: []Stream{{Slot: -1}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, ok := decideWith(Rule{Limit: tt.limit}, tt.held, tt.expired, tt.want)
			assert.Equal(t, tt.ok, ok)
			assert.Equal(t, Decision{Slot: tt.slot, Endings: tt.ends}, d)
		})
	}
}

// The rules of Decide, stated independently of its implementation.
func TestDecide_Rules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(0, 6).Draw(t, "limit")
		sessions := rapid.SampledFrom([]string{"", "a", "b", "c"})
		var hs []Stream
		expired := map[int]bool{}
		used := map[string]bool{}
		for _, slot := range rapid.SliceOfNDistinct(rapid.IntRange(0, 7), 0, 8, rapid.ID[int]).Draw(t, "slots") {
			h := stream(slot, len(hs)+1, sessions.Draw(t, "session"))
			if used[h.Session] {
				h.Session = "" // one live stream a session
			}
			used[h.Session] = true
			expired[h.Index] = rapid.Bool().Draw(t, "expired")
			hs = append(hs, h)
		}
		w := Start{Session: sessions.Draw(t, "mine"), Evict: rapid.Bool().Draw(t, "evict")}
		w.Replaces = [][12]byte{{byte(rapid.IntRange(0, 9).Draw(t, "replaces"))}}

		d, ok := decideWith(Rule{Limit: limit}, hs, expired, w)

		mine := func(h Stream) bool { return w.Session != "" && h.Session == w.Session }
		named := func(h Stream) bool { return slices.Contains(w.Replaces, h.Nonce) }
		live := 0 // streams that only an eviction could end
		for _, h := range hs {
			if !mine(h) && !named(h) && !expired[h.Index] {
				live++
			}
		}
		if !ok {
			if slices.ContainsFunc(hs, mine) || live < limit || w.Evict && limit > 0 {
				t.Fatalf("rejected %+v with %d live of %d", w, live, limit)
			}
			return
		}
		after := len(hs) - len(d.Endings) + 1
		if slices.ContainsFunc(hs, mine) {
			if after > len(hs) {
				t.Fatalf("a takeover counts twice: %d after %d", after, len(hs))
			}
		} else if after > limit {
			t.Fatalf("%d streams of %d", after, limit)
		}
		gone := map[int]Reason{}
		for _, e := range d.Endings {
			gone[e.Stream.Index] = e.Reason
		}
		evicted := 0
		for i, h := range hs {
			reason, over := gone[h.Index]
			switch {
			case !over && (mine(h) || named(h)):
				t.Fatalf("%+v should have ended", h)
			case !over && h.Slot == d.Slot:
				t.Fatalf("slot %d is taken", d.Slot)
			case over && !mine(h) && !named(h) && !expired[h.Index]:
				if evicted++; reason != ReasonEvicted || !w.Evict {
					t.Fatalf("ended %+v for %s", h, reason)
				}
				for _, older := range hs[:i] {
					if _, ok := gone[older.Index]; !ok {
						t.Fatalf("evicted %+v before %+v", h, older)
					}
				}
			}
		}
		if evicted > 0 && after < limit {
			t.Fatalf("evicted %d for %d of %d", evicted, after, limit)
		}
	})
}

// The rules of Decide for plans that count by content, stated independently of its
// implementation.
func TestDecide_GroupedRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Rule{Limit: rapid.IntRange(0, 4).Draw(t, "limit"), Counting: CountContent}
		films := rapid.SampledFrom([]string{"", "a", "b", "c"})
		var hs []Stream
		expired := map[int]bool{}
		for i := range rapid.IntRange(0, 9).Draw(t, "held") {
			h := stream(i, i+1, "")
			h.Content = films.Draw(t, "film")
			expired[h.Index] = rapid.Bool().Draw(t, "expired")
			hs = append(hs, h)
		}
		w := Start{Content: films.Draw(t, "mine"), Evict: rapid.Bool().Draw(t, "evict")}
		if rapid.Bool().Draw(t, "takesOver") && len(hs) > 0 {
			w.Session, hs[0].Session = "tv", "tv"
		}

		d, ok := decideWith(r, hs, expired, w)

		units := func(hs []Stream, more ...string) int {
			alone, seen := 0, map[string]bool{}
			for _, h := range hs {
				more = append(more, h.Content)
			}
			for _, film := range more {
				if film == "" {
					alone++
				} else {
					seen[film] = true
				}
			}
			return alone + len(seen)
		}
		ended := func(h Stream) bool {
			return slices.ContainsFunc(d.Endings, func(e Ending) bool { return e.Stream.Index == h.Index })
		}
		takesOver := w.Session != ""
		others := slices.DeleteFunc(slices.Clone(hs), func(h Stream) bool { return h.Session == "tv" })
		live := slices.DeleteFunc(slices.Clone(others), func(h Stream) bool { return expired[h.Index] })
		most := r.Limit
		if takesOver {
			most = max(most, units(hs))
		}
		if !ok {
			if units(live, w.Content) <= most {
				t.Fatalf("rejected, though %d of %d would count", units(live, w.Content), most)
			}
			if w.Evict && r.Limit > 0 {
				t.Fatal("rejected, though it may evict")
			}
			return
		}
		stay := slices.DeleteFunc(slices.Clone(hs), ended)
		if n := units(stay, w.Content); n > most {
			t.Fatalf("%d count of %d", n, most)
		}
		for _, e := range d.Endings {
			film := e.Stream.Content
			if e.Reason == ReasonEvicted && film != "" && film == w.Content {
				t.Fatalf("evicted %+v, which the new stream counts as one with", e)
			}
			if e.Reason == ReasonEvicted && units(live, w.Content) <= most {
				t.Fatal("evicted without need")
			}
		}
	})
}

func TestDecide_LimitsTheNumberOfStreamsHoweverTheyAreCounted(t *testing.T) {
	var hs []Stream
	for i := range MaxLimit {
		h := stream(i, i+1, fmt.Sprint(i))
		h.Content = "film"
		hs = append(hs, h)
	}
	r := Rule{Limit: 2, Counting: CountContent}
	_, ok := decideWith(r, hs, nil, Start{Content: "film"})
	assert.False(t, ok)
	d, ok := decideWith(r, hs, nil, Start{Content: "film", Session: "7"})
	assert.True(t, ok)
	assert.Equal(t, 7, d.Slot)
	d, ok = decideWith(r, hs, nil, Start{Content: "film", Evict: true})
	assert.True(t, ok)
	assert.Equal(t, []Ending{{Stream: hs[0], Reason: ReasonEvicted}}, d.Endings)
}
