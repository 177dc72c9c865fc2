package lease

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"
)

func holder(slot int, mod int64, session string) held {
	return held{
		key: keys{"/p"}.slot("u", slot), slot: slot, lease: 100 + mod, mod: mod,
		nonce: nonce{byte(mod)}, session: session,
	}
}

func TestDecide(t *testing.T) {
	a, b, c := holder(0, 1, "tv"), holder(1, 2, "phone"), holder(2, 3, "")
	full := []held{a, b, c}
	tests := []struct {
		name   string
		limit  int
		held   []held
		lapsed map[int64]bool
		want   want
		ok     bool
		slot   int
		ends   []ending
	}{
		{name: "first", limit: 3, ok: true},
		{name: "lowestFreeSlot", limit: 3, held: []held{a, c}, ok: true, slot: 1},
		{name: "full", limit: 3, held: full},
		{name: "limitZero", limit: 0, want: want{evict: true}},
		{name: "ownSession", limit: 3, held: full, want: want{session: "phone"}, ok: true, slot: 1,
			ends: []ending{{b, ReasonReplaced}}},
		{name: "ownSessionAboveLoweredLimit", limit: 1, held: full, want: want{session: "phone"}, ok: true, slot: 1,
			ends: []ending{{b, ReasonReplaced}}},
		{name: "otherSession", limit: 3, held: full, want: want{session: "car"}},
		{name: "noSessionIsNotASession", limit: 3, held: full, want: want{session: ""}},
		{name: "replaces", limit: 3, held: full, want: want{replaces: c.nonce}, ok: true, slot: 2,
			ends: []ending{{c, ReasonReplaced}}},
		{name: "replacesWhatIsGone", limit: 3, held: full, want: want{replaces: nonce{9}}},
		{name: "replacesAboveLoweredLimit", limit: 2, held: full, want: want{replaces: c.nonce}},
		{name: "sessionAndReplaces", limit: 3, held: full, want: want{session: "tv", replaces: c.nonce},
			ok: true, slot: 0, ends: []ending{{a, ReasonReplaced}, {c, ReasonReplaced}}},
		{name: "lapsed", limit: 3, held: full, lapsed: map[int64]bool{b.lease: true}, ok: true, slot: 1,
			ends: []ending{{b, ReasonExpired}}},
		{name: "lapsedBeforeEvicted", limit: 3, held: full, lapsed: map[int64]bool{b.lease: true},
			want: want{evict: true}, ok: true, slot: 1, ends: []ending{{b, ReasonExpired}}},
		{name: "evictsTheOldest", limit: 3, held: full, want: want{evict: true}, ok: true, slot: 0,
			ends: []ending{{a, ReasonEvicted}}},
		{name: "evictsToALoweredLimit", limit: 2, held: full, want: want{evict: true}, ok: true, slot: 0,
			ends: []ending{{a, ReasonEvicted}, {b, ReasonEvicted}}},
		{name: "foreignKeyCounts", limit: 1, held: []held{{key: "/p/users/u/junk", slot: -1}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d, ok := decide(rule{limit: tt.limit}, tt.held, tt.lapsed, tt.want)
			assert.Equal(t, tt.ok, ok)
			assert.Equal(t, decision{slot: tt.slot, ends: tt.ends}, d)
		})
	}
}

// The rules, said again without regard to how decide works.
func TestDecide_Rules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.IntRange(0, 6).Draw(t, "limit")
		sessions := rapid.SampledFrom([]string{"", "a", "b", "c"})
		var hs []held
		lapsed := map[int64]bool{}
		used := map[string]bool{}
		for _, slot := range rapid.SliceOfNDistinct(rapid.IntRange(0, 7), 0, 8, rapid.ID[int]).Draw(t, "slots") {
			h := holder(slot, int64(len(hs)+1), sessions.Draw(t, "session"))
			if used[h.session] {
				h.session = "" // one live stream a session
			}
			used[h.session] = true
			lapsed[h.lease] = rapid.Bool().Draw(t, "lapsed")
			hs = append(hs, h)
		}
		w := want{session: sessions.Draw(t, "mine"), evict: rapid.Bool().Draw(t, "evict")}
		w.replaces = nonce{byte(rapid.IntRange(0, 9).Draw(t, "replaces"))}

		d, ok := decide(rule{limit: limit}, hs, lapsed, w)

		mine := func(h held) bool { return w.session != "" && h.session == w.session }
		named := func(h held) bool { return w.replaces != nonce{} && h.nonce == w.replaces }
		living := 0 // streams that nothing but an eviction could end
		for _, h := range hs {
			if !mine(h) && !named(h) && !lapsed[h.lease] {
				living++
			}
		}
		if !ok {
			if slices.ContainsFunc(hs, mine) || living < limit || w.evict && limit > 0 {
				t.Fatalf("refused %+v with %d living of %d", w, living, limit)
			}
			return
		}
		after := len(hs) - len(d.ends) + 1
		if slices.ContainsFunc(hs, mine) {
			if after > len(hs) {
				t.Fatalf("a takeover counts twice: %d after %d", after, len(hs))
			}
		} else if after > limit {
			t.Fatalf("%d streams of %d", after, limit)
		}
		gone := map[int64]Reason{}
		for _, e := range d.ends {
			gone[e.lease] = e.reason
		}
		evicted := 0
		for i, h := range hs {
			reason, over := gone[h.lease]
			switch {
			case !over && (mine(h) || named(h)):
				t.Fatalf("%+v should have made way", h)
			case !over && h.slot == d.slot:
				t.Fatalf("slot %d is taken", d.slot)
			case over && !mine(h) && !named(h) && !lapsed[h.lease]:
				if evicted++; reason != ReasonEvicted || !w.evict {
					t.Fatalf("ended %+v for %s", h, reason)
				}
				for _, older := range hs[:i] {
					if _, ok := gone[older.lease]; !ok {
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
