package lease

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// someRules is a ruleSource in memory.
type someRules struct {
	users map[string]Override
	plans map[string]Plan
}

func (s someRules) override(user string) (*Override, int64) {
	if o, ok := s.users[user]; ok {
		return &o, 7
	}
	return nil, 0
}

func (s someRules) plan(name string) (*Plan, int64) {
	if p, ok := s.plans[name]; ok {
		return &p, 8
	}
	return nil, 0
}

func TestRule_Resolve(t *testing.T) {
	one, five, many := 1, 5, 1000
	family := Plan{Limit: 4, OnLimit: ReplaceOldest, Count: CountContent}
	basic := Plan{Limit: 2, OnLimit: Deny, Count: CountDevices}
	plans := map[string]Plan{"family": family}
	withDefault := map[string]Plan{"family": family, DefaultPlan: basic}
	tests := []struct {
		name     string
		override *Override
		plans    map[string]Plan
		said     said
		limit    int
		evict    bool
		count    Counting
		unknown  bool
	}{
		{name: "nothing", limit: 3, evict: true},
		{name: "defaultPlan", plans: withDefault, limit: 2, count: CountDevices},
		{name: "byTheService", plans: withDefault, said: said{plan: "family"}, limit: 4, evict: true, count: CountContent},
		{name: "unknownToTheService", plans: plans, said: said{plan: "gold"}, unknown: true},
		{name: "byAToken", plans: plans, said: said{grant: "family"}, limit: 4, evict: true, count: CountContent},
		{name: "unknownToTheToken", plans: withDefault, said: said{grant: "gold"}, limit: 2, count: CountDevices},
		{name: "unknownToTheTokenAndNoDefault", plans: plans, said: said{grant: "gold"}, limit: 3, evict: true},
		{name: "limitOfAToken", plans: plans, said: said{limit: &five}, limit: 5, evict: true},
		{name: "limitAndPlanOfAToken", plans: plans, said: said{grant: "family", limit: &five}, limit: 5, evict: true, count: CountContent},
		{name: "tooMuchOfAToken", said: said{limit: &many}, limit: MaxLimit, evict: true},
		{name: "ownLimit", override: &Override{Limit: &one}, plans: withDefault, said: said{limit: &five}, limit: 1, count: CountDevices},
		{name: "ownLimitKeepsThePlan", override: &Override{Limit: &one}, plans: withDefault, said: said{plan: "family"}, limit: 1, evict: true, count: CountContent},
		{name: "ownPlan", override: &Override{Plan: "family"}, plans: withDefault, said: said{limit: &one}, limit: 4, evict: true, count: CountContent},
		{name: "ownPlanBeatsAnUnknownOne", override: &Override{Plan: "family"}, plans: plans, said: said{plan: "gold"}, limit: 4, evict: true, count: CountContent},
		{name: "ownPlanThatIsGone", override: &Override{Plan: "gold"}, plans: withDefault, said: said{plan: "family"}, limit: 2, count: CountDevices},
	}
	l := &Limiter{usual: Plan{Limit: 3, OnLimit: ReplaceOldest}, keys: keys{"/t"}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src := someRules{plans: tt.plans}
			if tt.override != nil {
				src.users = map[string]Override{"maya": *tt.override}
			}
			r, err := l.resolve(src, "maya", tt.said)
			if tt.unknown {
				require.ErrorIs(t, err, ErrNoPlan)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, []any{tt.limit, tt.evict, tt.count}, []any{r.limit, r.evict, r.count})
			for _, guard := range l.guards("maya", r) { // what the transaction will compare
				_, mod := src.override("maya")
				if plan, ok := strings.CutPrefix(string(guard.Key), "/t/plans/"); ok {
					_, mod = src.plan(plan)
				}
				assert.Equal(t, mod, guard.GetModRevision(), "%s", guard.Key)
			}
		})
	}
}

func TestRule_StoredAndForeign(t *testing.T) {
	five := 5
	for _, p := range []Plan{{Limit: 0, OnLimit: Deny, Count: CountStreams}, {60, ReplaceOldest, CountDevices}} {
		assert.Equal(t, &p, planOf(p.value()))
	}
	for _, o := range []Override{{Limit: &five}, {Plan: "family"}} {
		assert.Equal(t, &o, overrideOf(o.value()))
	}
	assert.Equal(t, &Plan{4, Deny, CountStreams}, planOf([]byte(`{"limit":4,"later":true}`)))
	for _, junk := range []string{
		"", "x", "{}", "[]", `{"limit":"4"}`, `{"limit":-1}`, `{"limit":61}`, `{"limit":1,"count":"sheep"}`,
		`{"limit":1,"onLimit":"explode"}`, `{"limit":null}`,
	} {
		assert.Nil(t, planOf([]byte(junk)), junk)
	}
	for _, junk := range []string{"", "{}", `{"limit":1,"plan":"x"}`, `{"plan":"a/b"}`, `{"limit":61}`} {
		assert.Nil(t, overrideOf([]byte(junk)), junk)
	}
}

// What a start was told of its user is found in its record, and in no other.
func TestRule_SaidIn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := record{Started: 1, TTL: 90, Session: rapid.String().Draw(t, "session")}
		title := rapid.SampledFrom([]string{`,"p":"gold"`, `"p":"gold"`, `,"m":4`, `\",\"m\":4`, "plain"}).Draw(t, "title")
		r.Content = &Content{Title: title + rapid.String().Draw(t, "rest")}
		r.Plan = rapid.SampledFrom([]string{"", "gold"}).Draw(t, "plan")
		if rapid.Bool().Draw(t, "limited") {
			n := rapid.IntRange(0, 60).Draw(t, "limit")
			r.Limit = &n
		}
		got := saidIn(stored(r))
		if got.grant != r.Plan || !same(got.limit, r.Limit, func(a, b int) bool { return a == b }) {
			t.Fatalf("%+v in %s", got, stored(r))
		}
	})
}

// The rules for grouped counting, said again without regard to how decide works.
func TestDecide_GroupedRules(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rule{limit: rapid.IntRange(0, 4).Draw(t, "limit"), count: CountContent}
		films := rapid.SampledFrom([]string{"", "a", "b", "c"})
		var hs []held
		lapsed := map[int64]bool{}
		for i := range rapid.IntRange(0, 9).Draw(t, "held") {
			h := holder(i, int64(i+1), "")
			h.value = stored(record{Nonce: h.nonce, Content: &Content{ID: films.Draw(t, "film")}})
			lapsed[h.lease] = rapid.Bool().Draw(t, "lapsed")
			hs = append(hs, h)
		}
		w := want{content: films.Draw(t, "mine"), evict: rapid.Bool().Draw(t, "evict")}
		if rapid.Bool().Draw(t, "takesOver") && len(hs) > 0 {
			w.session, hs[0].session = "tv", "tv"
		}

		d, ok := decide(r, hs, lapsed, w)

		units := func(hs []held, more ...string) int {
			alone, seen := 0, map[string]bool{}
			for _, h := range hs {
				more = append(more, recordOf(h.value).Content.ID)
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
		ended := func(h held) bool { return slices.ContainsFunc(d.ends, func(e ending) bool { return e.key == h.key }) }
		takesOver := w.session != ""
		others := slices.DeleteFunc(slices.Clone(hs), func(h held) bool { return h.session == "tv" })
		living := slices.DeleteFunc(slices.Clone(others), func(h held) bool { return lapsed[h.lease] })
		most := r.limit
		if takesOver {
			most = max(most, units(hs))
		}
		if !ok {
			if units(living, w.content) <= most {
				t.Fatalf("refused, though %d of %d would count", units(living, w.content), most)
			}
			if w.evict && r.limit > 0 {
				t.Fatal("refused, though it may evict")
			}
			return
		}
		stay := slices.DeleteFunc(slices.Clone(hs), ended)
		if n := units(stay, w.content); n > most {
			t.Fatalf("%d count of %d", n, most)
		}
		for _, e := range d.ends {
			film := recordOf(e.value).Content.ID
			if e.reason == ReasonEvicted && film != "" && film == w.content {
				t.Fatalf("evicted %+v, which the new stream counts as one with", e)
			}
			if e.reason == ReasonEvicted && units(living, w.content) <= most {
				t.Fatal("evicted without need")
			}
		}
	})
}

func TestDecide_KeysAreBoundedHoweverTheyCount(t *testing.T) {
	var hs []held
	for i := range MaxLimit {
		h := holder(i, int64(i+1), fmt.Sprint(i))
		h.value = stored(record{Content: &Content{ID: "film"}})
		hs = append(hs, h)
	}
	r := rule{limit: 2, count: CountContent}
	_, ok := decide(r, hs, nil, want{content: "film"})
	assert.False(t, ok)
	d, ok := decide(r, hs, nil, want{content: "film", session: "7"})
	assert.True(t, ok)
	assert.Equal(t, 7, d.slot)
	d, ok = decide(r, hs, nil, want{content: "film", evict: true})
	assert.True(t, ok)
	assert.Equal(t, []ending{{hs[0], ReasonEvicted}}, d.ends)
}
