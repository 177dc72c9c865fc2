package policy

import (
	"cmp"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// A rule without further limits decides as it did before there were any, also by the
// function for several limits.
func TestDecide_OneLimitAsBefore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := Rule{
			Limit:           rapid.IntRange(0, 5).Draw(t, "limit"),
			Counting:        rapid.SampledFrom([]Counting{"", CountStreams, CountContent, CountDevices}).Draw(t, "counting"),
			EvictionAllowed: true,
		}
		if r.Counting.PerStream() {
			r.MaxStreams = rapid.IntRange(0, 6).Draw(t, "maxStreams")
		}
		text := rapid.SampledFrom([]string{"", "a", "b", "c"})
		var held []Stream
		for i, slot := range rapid.SliceOfNDistinct(rapid.IntRange(-1, 7), 0, 8, rapid.ID[int]).Draw(t, "slots") {
			st := stream(slot, i, text.Draw(t, "session"))
			st.Device, st.Content, st.Expired = text.Draw(t, "device"), text.Draw(t, "content"), rapid.Bool().Draw(t, "expired")
			held = append(held, st)
		}
		s := Start{Session: text.Draw(t, "mine"), Evict: rapid.Bool().Draw(t, "evict"), Device: text.Draw(t, "onDevice"), Content: text.Draw(t, "plays")}
		if rapid.Bool().Draw(t, "hasReplaces") {
			s.Replaces = [][12]byte{{byte(rapid.IntRange(0, 9).Draw(t, "replaces"))}}
		}

		want, ok := oracle(r, held, s)
		got, gotOK := Decide(r, held, s)
		require.Equal(t, ok, gotOK)
		require.Equal(t, want, got)

		for i := range held {
			held[i].Attributes = &Attributes{DeviceID: held[i].Device, ContentID: held[i].Content, Priority: DefaultPriority}
		}
		s.Attributes = &Attributes{DeviceID: s.Device, ContentID: s.Content, Priority: DefaultPriority}
		want, _ = oracle(r, held, s)
		got, gotOK = decideByLimits(r, held, s)
		require.Equal(t, ok, gotOK)
		for i, e := range got.Endings {
			require.Equal(t, e.Reason == ReasonEvicted, slices.Equal(e.Limits, []string{TotalLimit}), "%+v", e)
			got.Endings[i].Limits = nil
		}
		require.Equal(t, want, got)
	})
}

// live returns the streams that stay unless the start evicts them.
func (c *severalCase) live() []int {
	if len(c.violated(append(slices.Clone(c.stay), len(c.held)), c.bounds)) == 0 {
		return c.stay
	}
	return slices.DeleteFunc(slices.Clone(c.stay), func(i int) bool { return c.held[i].Expired })
}

// denies reports whether the start ends no stream for a limit.
func (c *severalCase) denies(l Limit) bool {
	return !c.start.Evict || !l.OnLimit.evicts() || c.bounds[l.Name] == 0
}

// The rules for several limits, by brute force.
func TestDecide_SeveralLimits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawSeveral(t)
		newest := len(c.held)
		live := c.live()
		violated := c.violated(append(slices.Clone(live), newest), c.bounds)
		d, ok := Decide(c.rule, c.held, c.start)
		refusal, refused := Refuse(c.rule, c.held, c.start)
		require.Equal(t, !ok, refused)
		if !ok {
			c.checkRefused(t, live, violated, refusal)
			return
		}
		victims := c.checkEndings(t, d, live)
		final := slices.DeleteFunc(slices.Clone(live), func(i int) bool { return slices.Contains(victims, i) })
		subsets(final, func(sub []int) { // whatever ends before the decision is applied
			require.Empty(t, c.violated(append(sub, newest), c.bounds))
		})
		subsets(victims, func(sub []int) {
			if len(sub) > 0 {
				back := append(append(slices.Clone(final), sub...), newest)
				require.NotEmpty(t, c.violated(back, c.bounds), "%v need not end", sub)
			}
		})
		for _, e := range d.Endings {
			require.Equal(t, e.Reason == ReasonEvicted, len(e.Limits) > 0)
			if e.Reason == ReasonEvicted { // the limits that made the stream end
				back := append(slices.Clone(final), e.Stream.Index, newest)
				require.Equal(t, names(c.violated(back, c.bounds)), slices.Sorted(slices.Values(e.Limits)))
			}
		}
		for _, l := range violated {
			require.False(t, c.denies(l), "%s denies", l.Name)
		}
		for _, v := range victims {
			require.True(t, slices.ContainsFunc(violated, func(l Limit) bool { return c.selects(l, v) }), "%d counts for no limit", v)
		}
		for _, l := range c.rule.Several.Limits {
			want := l.Observe && c.selects(l, newest) && c.count(l, append(slices.Clone(final), newest)) > c.bounds[l.Name]
			require.Equal(t, want, slices.Contains(d.Observed, l.Name), l.Name)
		}
	})
}

// names returns the names of limits, each once, in order.
func names(limits []Limit) []string {
	var out []string
	for _, l := range limits {
		out = append(out, l.Name)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// checkEndings checks the slot and what is not evicted, and returns what is.
func (c *severalCase) checkEndings(t *rapid.T, d Decision, live []int) (victims []int) {
	ends := map[int]Reason{}
	for _, e := range d.Endings {
		require.NotContains(t, ends, e.Stream.Index)
		ends[e.Stream.Index] = e.Reason
		if e.Reason == ReasonEvicted {
			victims = append(victims, e.Stream.Index)
		}
	}
	for i := range c.held {
		reason, ended := ends[i]
		switch {
		case !slices.Contains(c.stay, i):
			require.Equal(t, ReasonReplaced, reason)
		case !slices.Contains(live, i):
			require.Equal(t, ReasonExpired, reason)
		case ended:
			require.Equal(t, ReasonEvicted, reason)
		}
		if !ended {
			require.NotEqual(t, c.held[i].Slot, d.Slot)
		}
	}
	if c.mine >= 0 {
		require.Equal(t, c.held[c.mine].Slot, d.Slot)
	}
	slices.Sort(victims)
	return victims
}

// checkRefused checks a rejected start, and why it says it was rejected.
func (c *severalCase) checkRefused(t *rapid.T, live []int, violated []Limit, refusal Refusal) {
	newest := len(c.held)
	require.NotEmpty(t, violated)
	names := map[string]bool{}
	all := []int{}
	for i := range c.held {
		all = append(all, i)
	}
	for _, l := range refusal.Limits {
		names[l.Name] = true
		i := slices.IndexFunc(violated, func(v Limit) bool { return v.Name == l.Name })
		require.GreaterOrEqual(t, i, 0, l.Name)
		require.Equal(t, c.count(violated[i], all), l.Counted)
		require.Equal(t, violated[i].Limit, l.Limit)
	}
	if slices.ContainsFunc(violated, c.denies) {
		for _, l := range violated {
			require.Equal(t, c.denies(l), names[l.Name], l.Name)
		}
	} else { // then a limit does not hold even without all streams that may end for it
		require.True(t, slices.ContainsFunc(violated, func(l Limit) bool {
			left := slices.DeleteFunc(slices.Clone(live), func(i int) bool { return c.eligible(l, i, live) })
			return names[l.Name] && c.count(l, append(left, newest)) > c.bounds[l.Name]
		}))
	}
	for i, b := range refusal.Streams {
		if !slices.Contains(live, i) {
			require.Empty(t, b)
			continue
		}
		for _, l := range c.limits {
			counts := names[l.Name] && c.selects(l, i) && c.unit(l, i) != c.unit(l, newest)
			require.Equal(t, counts, slices.Contains(b.Limits, l.Name), "%d %s", i, l.Name)
		}
		s := c.start
		s.Replaces = append(slices.Clone(s.Replaces), c.held[i].Nonce)
		if c.held[i].Nonce != [12]byte{} {
			_, ok := Decide(c.rule, c.held, s)
			require.Equal(t, ok, b.Enough, "%d", i)
		}
	}
}

// ruleOf returns the rule of a user with a plan.
func ruleOf(tb testing.TB, p Plan) Rule {
	tb.Helper()
	require.NoError(tb, p.Validate())
	r, err := Resolve(someRules{}, "maya", Claims{}, Defaults{Plan: p.WithDefaults()})
	require.NoError(tb, err)
	return r
}

func TestDecide_PlansOfServices(t *testing.T) {
	st := func(n int, as Attributes) Stream {
		as.Priority = cmp.Or(as.Priority, DefaultPriority)
		out := stream(n, n, "")
		out.Attributes = &as
		return out
	}
	in := func(a Attribute, values ...string) []Condition { return []Condition{{Attribute: a, In: values}} }
	not := func(a Attribute, values ...string) []Condition { return []Condition{{Attribute: a, Not: values}} }
	tvs := Plan{Limit: 3, Limits: []Limit{{Name: "tv", Where: in(AttrDeviceType, "tv", ""), Limit: 1}}}
	live := Plan{Limit: 3, OnLimit: ReplaceOldest, Limits: []Limit{{Name: "live", Where: in(AttrContentType, "live"), Limit: 1, OnLimit: ReplaceOldest}}}
	place := Plan{Limit: MaxLimit, Limits: []Limit{{Name: "devices", Count: CountDevices, Limit: 2}, {Name: "place", Count: CountNetworks, Limit: 1}}}
	kiosk := Plan{Limit: 2, OnLimit: ReplaceLowest}
	title := Plan{Limit: 3, Limits: []Limit{{Name: "same-title", Per: AttrContentID, Limit: 2}}}
	phones := Plan{Limit: 1, Limits: []Limit{{Name: "phones-only", Where: not(AttrDeviceType, "phone"), Limit: 0}}}
	family := Plan{Limit: 4, OnLimit: ReplaceOldest, Limits: []Limit{{Name: "devices", Count: CountDevices, Limit: 1, OnLimit: ReplaceOldest}}}
	tests := []struct {
		name string
		plan Plan
		held []Attributes
		want Attributes
		ok   bool
		ends []int
	}{
		{"secondTV", tvs, []Attributes{{DeviceType: "tv"}}, Attributes{DeviceType: "tv"}, false, nil},
		{"phoneBesideTV", tvs, []Attributes{{DeviceType: "tv"}}, Attributes{DeviceType: "phone"}, true, nil},
		{"missingTypeIsATV", tvs, []Attributes{{DeviceType: "tv"}}, Attributes{}, false, nil},
		{"phoneAboveLoweredTVs", tvs, []Attributes{{DeviceType: "tv"}, {DeviceType: "tv"}}, Attributes{DeviceType: "phone"}, true, nil},
		{"oneEndsForTwoLimits", live, []Attributes{{ContentType: "vod"}, {ContentType: "live"}, {ContentType: "vod"}},
			Attributes{ContentType: "live"}, true, []int{1}},
		{"filmEndsTheOldest", live, []Attributes{{ContentType: "vod"}, {ContentType: "live"}, {ContentType: "vod"}},
			Attributes{ContentType: "vod"}, true, []int{0}},
		{"otherPlace", place, []Attributes{{DeviceID: "a", Network: "n"}}, Attributes{DeviceID: "b", Network: "m"}, false, nil},
		{"samePlace", place, []Attributes{{DeviceID: "a", Network: "n"}}, Attributes{DeviceID: "b", Network: "n"}, true, nil},
		{"thirdDevice", place, []Attributes{{DeviceID: "a", Network: "n"}, {DeviceID: "b", Network: "n"}}, Attributes{DeviceID: "c", Network: "n"}, false, nil},
		{"paidEndsFree", kiosk, []Attributes{{Priority: 9}, {Priority: 1}}, Attributes{Priority: 9}, true, []int{1}},
		{"freeEndsNothing", kiosk, []Attributes{{Priority: 9}, {Priority: 1}}, Attributes{Priority: 1}, false, nil},
		{"thirdOfATitle", title, []Attributes{{ContentID: "x"}, {ContentID: "x"}}, Attributes{ContentID: "x"}, false, nil},
		{"otherTitle", title, []Attributes{{ContentID: "x"}, {ContentID: "x"}}, Attributes{ContentID: "y"}, true, nil},
		{"noTitleIsATitle", title, []Attributes{{}, {}}, Attributes{}, false, nil},
		{"noTV", phones, nil, Attributes{DeviceType: "tv"}, false, nil},
		{"phone", phones, nil, Attributes{DeviceType: "phone"}, true, nil},
		{"wholeDeviceEnds", family, []Attributes{{DeviceID: "a"}, {DeviceID: "a"}}, Attributes{DeviceID: "b"}, true, []int{0, 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var held []Stream
			for i, as := range tt.held {
				held = append(held, st(i, as))
			}
			tt.want.Priority = cmp.Or(tt.want.Priority, DefaultPriority)
			d, ok := Decide(ruleOf(t, tt.plan), held, Start{Evict: true, Attributes: &tt.want})
			assert.Equal(t, tt.ok, ok)
			var ends []int
			for _, e := range d.Endings {
				assert.Equal(t, ReasonEvicted, e.Reason)
				ends = append(ends, e.Stream.Index)
			}
			assert.Equal(t, tt.ends, ends)
		})
	}
}

// A session that changes to other content is refused only if it adds to a limit.
func TestDecide_ContinuingSession(t *testing.T) {
	r := ruleOf(t, Plan{Limit: 3, Limits: []Limit{{Name: "live", Where: []Condition{{Attribute: AttrContentType, In: []string{"live"}}}, Limit: 1}}})
	as := func(content string) *Attributes { return &Attributes{ContentType: content, Priority: DefaultPriority} }
	held := []Stream{stream(0, 1, "a"), stream(1, 2, "b"), stream(2, 3, "c")}
	held[0].Attributes, held[1].Attributes, held[2].Attributes = as("live"), as("live"), as("vod")
	_, ok := Decide(r, held, Start{Session: "a", Attributes: as("live")})
	assert.True(t, ok, "it was live before")
	_, ok = Decide(r, held, Start{Session: "c", Attributes: as("live")})
	assert.False(t, ok)
	_, ok = Decide(r, held, Start{Session: "c", Attributes: as("vod")})
	assert.True(t, ok)
	_, ok = Decide(r, held[1:], Start{Replaces: [][12]byte{held[1].Nonce}, Attributes: as("live")})
	assert.True(t, ok)
}
