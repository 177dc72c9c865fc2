package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// usageText returns "name[value] counted/limit left n" for each usage.
func usageText(usages []LimitUsage) (out []string) {
	for _, u := range usages {
		text := u.Limit.Name
		if u.Value != nil {
			text += fmt.Sprintf("[%s]", *u.Value)
		}
		text += fmt.Sprintf(" %d/%d left %d", u.Counted, u.Limit.Limit, u.Left)
		if u.MoreValues > 0 {
			text += fmt.Sprintf(" more %d", u.MoreValues)
		}
		out = append(out, text)
	}
	return out
}

func TestExplain(t *testing.T) {
	tv := Limit{Name: "tv", Where: []Condition{{Attribute: AttrDeviceType, In: []string{"tv", ""}}}, Limit: 1}
	profile := Limit{Name: "profile", Per: AttrProfile, Limit: 2}
	several := Plan{Limit: 4, Limits: []Limit{tv, profile, {Name: "devices", Count: CountDevices, Limit: 2}}}
	tests := []struct {
		name    string
		plan    Plan
		limit   int // of the user; -1 for none
		streams []Attributes
		want    []string
	}{
		{"noStreams", several, -1, nil, []string{"total 0/4 left 4", "tv 0/1 left 1", "profile 0/2 left 2", "devices 0/2 left 2"}},
		{"streams", several, -1, []Attributes{
			{DeviceType: "tv", DeviceID: "a", Profile: "kid"}, {DeviceType: "phone", DeviceID: "b"}, {DeviceID: "b", Profile: "kid"},
		}, []string{"total 3/4 left 1", "tv 2/1 left 0", "profile[kid] 2/2 left 0", "profile[] 1/2 left 1", "devices 2/2 left 0"}},
		{"onlyALimit", Plan{Limit: 3}, -1, []Attributes{{}}, []string{"total 1/3 left 2"}},
		{"limitOfTheUser", several, 2, []Attributes{{DeviceType: "phone"}, {DeviceType: "phone"}, {DeviceType: "phone"}}, []string{
			"total 3/2 left 0", "tv 0/1 left 1", "profile[] 3/2 left 0", "devices 3/2 left 0"}},
		{"countsDevices", Plan{Limit: 3, Count: CountDevices}, -1, []Attributes{{DeviceID: "a"}, {DeviceID: "a"}, {}}, []string{"total 2/3 left 1"}},
		{"manyValues", Plan{Limit: 60, Limits: []Limit{{Name: "title", Per: AttrContentID, Limit: 2}}}, -1, func() (all []Attributes) {
			for i := range 25 {
				all = append(all, Attributes{ContentID: fmt.Sprintf("film-%02d", i)})
			}
			return append(all, Attributes{ContentID: "film-22"})
		}(), []string{"total 26/60 left 34", "title[film-22] 2/2 left 0", "title[film-00] 1/2 left 1"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := ruleOf(t, tt.plan)
			if tt.limit >= 0 {
				r.Limit = tt.limit
			}
			var streams []Stream
			for i, as := range tt.streams {
				st := Stream{Index: i, Slot: i, Device: as.DeviceID, Content: as.ContentID}
				if r.NeedsAttributes() {
					st.Attributes = &as
				}
				streams = append(streams, st)
			}
			got := usageText(Explain(r, streams))
			if tt.name == "manyValues" {
				require.Len(t, got, 1+MaxUsageValues)
				assert.Equal(t, "title[film-18] 1/2 left 1 more 5", got[MaxUsageValues])
				got = got[:len(tt.want)]
			}
			assert.Equal(t, tt.want, got)
		})
	}
	r := ruleOf(t, Plan{Limit: 3, Count: CountDevices})
	r.MaxStreams = 2
	assert.Equal(t, []string{"total 1/3 left 0"}, usageText(Explain(r, []Stream{{Device: "a"}, {Device: "a"}})), "the number of streams is limited too")
}

// A start is admitted if every limit that applies to it has room.
func TestExplain_AgreesWithDecide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawSeveral(t)
		for i := range c.held {
			c.held[i].Expired = false
		}
		c.start.Session, c.start.Evict, c.start.Replaces = "", false, nil
		full := false
		for _, u := range Explain(c.rule, c.held) {
			applies := u.Limit.selects(c.start.Attributes) && !u.Limit.Observe
			sameValue := u.Value == nil || *u.Value == c.start.Attributes.value(u.Limit.Per)
			if applies && (sameValue && u.Left == 0 || u.Limit.Limit == 0) {
				full = true
			}
			require.Equal(t, max(u.Limit.Limit-u.Counted, 0), u.Left)
		}
		_, ok := Decide(c.rule, c.held, c.start)
		if !full {
			require.True(t, ok)
		}
	})
}

func TestPlan_Warnings(t *testing.T) {
	in := func(a Attribute, values ...string) []Condition { return []Condition{{Attribute: a, In: values}} }
	not := func(a Attribute, values ...string) []Condition { return []Condition{{Attribute: a, Not: values}} }
	kids := in("labels.kids", "yes")
	tests := []struct {
		name string
		plan Plan
		want []string
	}{
		{"onlyALimit", Plan{Limit: 3}, nil},
		{"byLabel", Plan{Limit: 3, Limits: []Limit{{Name: "kids", Where: kids, Limit: 2}}}, nil},
		{"network", Plan{Limit: 3, Limits: []Limit{{Name: "place", Count: CountNetworks, Limit: 2}}}, nil},
		{"reported", Plan{Limit: 3, Limits: []Limit{{Name: "tv", Where: in(AttrDeviceType, "tv", ""), Limit: 1}}},
			[]string{"limit tv depends on device.type, which the player reports"}},
		{"reportedByAll", Plan{Limit: 3, Limits: []Limit{{Name: "x", Where: not(AttrContentType, "live"), Per: AttrProfile, Count: CountDevices, Limit: 1}}},
			[]string{"limit x depends on content.type, profile and device.id, which the player reports"}},
		{"totalCountsDevices", Plan{Limit: 3, Count: CountDevices, Require: []Attribute{AttrDeviceID}},
			[]string{"limit total depends on device.id, which the player reports"}},
		{"evadable", Plan{Limit: 3, Limits: []Limit{{Name: "tv", Where: in(AttrDeviceType, "tv"), Limit: 1}}}, []string{
			"limit tv depends on device.type, which the player reports",
			`limit tv does not apply to a stream without device.type: require the attribute, or add "" to its values`}},
		{"evadableByNot", Plan{Limit: 3, Limits: []Limit{{Name: "tv", Where: not(AttrDeviceType, ""), Limit: 1}}}, []string{
			"limit tv depends on device.type, which the player reports",
			`limit tv does not apply to a stream without device.type: require the attribute, or remove "" from its values`}},
		{"required", Plan{Limit: 3, Require: []Attribute{AttrDeviceType}, Limits: []Limit{{Name: "tv", Where: in(AttrDeviceType, "tv"), Limit: 1}}},
			[]string{"limit tv depends on device.type, which the player reports"}},
		{"asHighAsTotal", Plan{Limit: 3, Limits: []Limit{{Name: "kids", Where: kids, Limit: 3}}},
			[]string{"limit kids (3) rejects no start that limit total (3) admits"}},
		{"asHighButStricter", Plan{Limit: 3, OnLimit: ReplaceOldest, Limits: []Limit{{Name: "kids", Where: kids, Limit: 3}}}, nil},
		{"totalCountsOtherwise", Plan{Limit: 3, Count: CountContent, Limits: []Limit{{Name: "kids", Where: kids, Limit: 5}}},
			[]string{"limit total depends on content.id, which the player reports"}},
		{"maximum", Plan{Limit: 3, Count: CountContent, Limits: []Limit{{Name: "kids", Where: kids, Limit: 60}}}, []string{
			"limit total depends on content.id, which the player reports",
			"limit kids has no effect: a user has at most 60 streams"}},
		{"observesNothing", Plan{Limit: 3, Limits: []Limit{{Name: "kids", Where: kids, Limit: 4, Observe: true}}},
			[]string{"limit kids (4) observes no start that limit total (3) admits"}},
		{"lowerThanTotal", Plan{Limit: 3, Limits: []Limit{{Name: "all", Limit: 2}}},
			[]string{"limit total (3) rejects no start that limit all (2) admits"}},
		{"same", Plan{Limit: 3, Limits: []Limit{{Name: "a", Where: kids, Limit: 2}, {Name: "b", Where: kids, Limit: 1}}},
			[]string{"limit a (2) rejects no start that limit b (1) admits"}},
		{"triesAStricterLimit", Plan{Limit: 3, Limits: []Limit{{Name: "a", Where: kids, Limit: 2}, {Name: "b", Where: kids, Limit: 1, Observe: true}}}, nil},
		{"triesALooserLimit", Plan{Limit: 5, Limits: []Limit{{Name: "a", Where: kids, Limit: 3, Observe: true}, {Name: "b", Where: kids, Limit: 2}}},
			[]string{"limit a (3) observes no start that limit b (2) admits"}},
		{"observesTwoNumbers", Plan{Limit: 5, Limits: []Limit{{Name: "a", Limit: 3, Observe: true}, {Name: "b", Limit: 2, Observe: true}}}, nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			require.NoError(t, tt.plan.Validate())
			assert.Equal(t, tt.want, tt.plan.Warnings())
		})
	}
}

var redundant = regexp.MustCompile(`^limit (\S+) .*(rejects|observes) no start that limit (\S+) `)

// A plan without a limit that is redundant by a warning admits the same starts, and ends the
// same streams.
func TestPlan_WarningsAreTrue(t *testing.T) {
	found := 0
	rapid.Check(t, func(t *rapid.T) {
		p := *drawSeveral(t).rule.Several
		for _, text := range p.Warnings() {
			m := redundant.FindStringSubmatch(text)
			if m == nil || m[1] == TotalLimit || m[2] == "observes" {
				continue
			}
			found++
			without := p
			without.Limits = slices.DeleteFunc(slices.Clone(p.Limits), func(l Limit) bool { return l.Name == m[1] })
			var running []TrialStream
			for range 8 {
				next := TrialStream{
					Session: rapid.SampledFrom([]string{"", "tv"}).Draw(t, "session"), Attributes: *drawProperties(t).attributes(),
					Evict: rapid.Bool().Draw(t, "evict"),
				}
				got, err := Try(p, running, next)
				require.NoError(t, err)
				want, err := Try(without, running, next)
				require.NoError(t, err)
				require.Equal(t, want.Admitted, got.Admitted, text)
				if without.HasSeveralLimits() { // otherwise the oldest stream ends, whatever its priority
					require.Equal(t, want.Ends, got.Ends, text)
				}
				if got.Admitted {
					running = append(remove(running, got.Ends), next)
				}
			}
		}
	})
	if found == 0 {
		t.Error("no plan had a redundant limit")
	}
}

func remove(all []TrialStream, indexes []int) (out []TrialStream) {
	for i, s := range all {
		if !slices.Contains(indexes, i) {
			out = append(out, s)
		}
	}
	return out
}

func TestPlan_Attributes(t *testing.T) {
	p := Plan{Limit: 3, Count: CountContent, Require: []Attribute{"labels.tier", AttrProfile}, Limits: []Limit{
		{Name: "a", Where: []Condition{{Attribute: "labels.kids", In: []string{"yes"}}, {Attribute: AttrRegion, In: []string{"x"}}}, Per: AttrProfile},
		{Name: "b", Count: CountNetworks}, {Name: "c", Count: CountDevices, Per: "labels.kids"},
	}}
	require.NoError(t, p.Validate())
	assert.Equal(t, []Attribute{AttrDeviceID, AttrContentID, AttrProfile, AttrNetwork, "labels.kids", "labels.tier"}, p.Attributes())
	assert.Empty(t, Plan{Limit: 3}.Attributes())
}

func TestTry(t *testing.T) {
	tvs := Plan{Limit: 3, OnLimit: ReplaceOldest, Limits: []Limit{
		{Name: "tv", Where: []Condition{{Attribute: AttrDeviceType, In: []string{"tv", ""}}}, Limit: 1, Message: "Only one TV at a time"},
		{Name: "two", Limit: 2, Observe: true},
	}}
	tv := TrialStream{Session: "living-room", Attributes: Attributes{DeviceType: "tv"}}
	phone := TrialStream{Attributes: Attributes{DeviceType: "phone"}}
	with := func(s TrialStream, change func(*TrialStream)) TrialStream { change(&s); return s }
	other := with(tv, func(s *TrialStream) { s.Session = "bedroom" })
	evicts := func(s *TrialStream) { s.Evict = true }
	byTV := []RefusingLimit{{Name: "tv", Limit: 1, Counted: 1, Count: CountStreams, Message: "Only one TV at a time"}}
	byTotal := []RefusingLimit{{Name: TotalLimit, Limit: 3, Counted: 3, Count: CountStreams}}
	three := []TrialStream{tv, phone, phone}
	tests := []struct {
		name    string
		plan    Plan
		running []TrialStream
		next    TrialStream
		want    Trial
	}{
		{"first", tvs, nil, tv, Trial{Admitted: true}},
		{"secondTV", tvs, []TrialStream{tv}, other, Trial{Limits: byTV}},
		{"sameSession", tvs, []TrialStream{phone, tv}, tv, Trial{Admitted: true, Ends: []int{1}}},
		{"replaces", tvs, []TrialStream{phone, tv}, with(other, func(s *TrialStream) { s.Replaces = []int{0, 1} }), Trial{Admitted: true, Ends: []int{0, 1}}},
		{"third", tvs, []TrialStream{tv, phone}, phone, Trial{Admitted: true, Observed: []string{"two"}}},
		{"fourth", tvs, three, phone, Trial{Limits: byTotal}},
		{"fourthEvicts", tvs, three, with(phone, evicts), Trial{Admitted: true, Ends: []int{0}, Observed: []string{"two"}}},
		{"tvDeniesEviction", tvs, three, with(other, evicts), Trial{Limits: byTV}},
		{"planDeniesEviction", Plan{Limit: 1}, []TrialStream{phone}, with(phone, evicts), Trial{Limits: []RefusingLimit{
			{Name: TotalLimit, Limit: 1, Counted: 1, Count: CountStreams}}}},
		{"countsDevices", Plan{Limit: 1, Count: CountDevices}, []TrialStream{{Attributes: Attributes{DeviceID: "a"}}},
			TrialStream{Attributes: Attributes{DeviceID: "a"}}, Trial{Admitted: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Try(tt.plan, tt.running, tt.next)
			require.NoError(t, err)
			assert.Equal(t, tt.want, got)
		})
	}
	_, err := Try(Plan{Limit: 3, Require: []Attribute{AttrProfile}}, nil, phone)
	missing := &MissingAttributesError{}
	require.ErrorAs(t, err, &missing)
	assert.Equal(t, []Attribute{AttrProfile}, missing.Missing)
	assert.True(t, strings.Contains(err.Error(), "profile"))
}
