package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestPlan_ValidateLimits(t *testing.T) {
	where := func(a Attribute, values ...string) []Condition { return []Condition{{Attribute: a, In: values}} }
	tests := []struct {
		name     string
		limit    Limit
		location string
		problem  string
	}{
		{"empty", Limit{}, "limits[1].name", "a name has 1 to 32 characters of a-z 0-9 -"},
		{"upperCase", Limit{Name: "TV"}, "limits[1].name", "a name has 1 to 32 characters of a-z 0-9 -"},
		{"longName", Limit{Name: strings.Repeat("a", 33)}, "limits[1].name", "a name has 1 to 32 characters of a-z 0-9 -"},
		{"total", Limit{Name: "total"}, "limits[1].name", `"total" is the limit of the plan itself`},
		{"twice", Limit{Name: "first"}, "limits[1].name", `another limit has the name "first"`},
		{"negative", Limit{Name: "tv", Limit: -1}, "limits[1].limit", "-1 is not between 0 and 60"},
		{"high", Limit{Name: "tv", Limit: 61}, "limits[1].limit", "61 is not between 0 and 60"},
		{"onLimit", Limit{Name: "tv", OnLimit: "explode"}, "limits[1].onLimit", "none of deny, replace-oldest, replace-lowest"},
		{"replacesAtZero", Limit{Name: "tv", OnLimit: ReplaceLowest}, "limits[1].onLimit", "a limit of 0 cannot replace a stream: use deny"},
		{"count", Limit{Name: "tv", Count: "sheep"}, "limits[1].count", "none of streams, devices, content, profiles, networks"},
		{"per", Limit{Name: "tv", Per: "device"}, "limits[1].per",
			"no such attribute; the attributes are device.id, device.type, content.id, content.type, content.labels, profile, network, region and labels.KEY"},
		{"perLabels", Limit{Name: "tv", Per: AttrContentLabels}, "limits[1].per", "content.labels may have several values"},
		{"perCounted", Limit{Name: "tv", Per: AttrProfile, Count: CountProfiles}, "limits[1].per", "the limit counts profiles, of which each value of profile has one"},
		{"message", Limit{Name: "tv", Message: strings.Repeat("é", 201)}, "limits[1].message", "more than 200 characters"},
		{"messageWithNewline", Limit{Name: "tv", Message: "a\nb"}, "limits[1].message", "contains a control character, or is not UTF-8"},
		{"typo", Limit{Name: "tv", Where: where("device.typ", "tv")}, "limits[1].where.device.typ", "no such attribute; device.type?"},
		{"case", Limit{Name: "tv", Where: where("Profile", "x")}, "limits[1].where.Profile", "no such attribute; profile?"},
		{"singular", Limit{Name: "tv", Where: where("label.kids", "yes")}, "limits[1].where.label.kids", "no such attribute; labels.kids?"},
		{"emptyList", Limit{Name: "tv", Where: where(AttrRegion)}, "limits[1].where.region", "the list is empty"},
		{"bothLists", Limit{Name: "tv", Where: []Condition{{AttrRegion, []string{"a"}, []string{"b"}}}}, "limits[1].where.region", "has values and not: use one of them"},
		{"longList", Limit{Name: "tv", Where: where(AttrRegion, make([]string, 33)...)}, "limits[1].where.region", "33 values are more than 32"},
		{"longValue", Limit{Name: "tv", Where: where(AttrRegion, strings.Repeat("a", 201))}, "limits[1].where.region", "a value has at most 200 characters, and no control characters"},
		{"sameAttribute", Limit{Name: "tv", Where: append(where(AttrRegion, "a"), where(AttrRegion, "b")...)}, "limits[1].where.region", "two conditions have this attribute"},
		{"manyConditions", Limit{Name: "tv", Where: make([]Condition, 9)}, "limits[1].where", "9 conditions are more than 8"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Plan{Limit: 3, Limits: []Limit{{Name: "first"}, tt.limit}}.Validate()
			require.ErrorIs(t, err, ErrBadRule)
			var fields *PlanError
			require.ErrorAs(t, err, &fields)
			assert.Equal(t, []FieldError{{tt.location, tt.problem}}, fields.Fields)
			assert.EqualError(t, err, fmt.Sprintf("%v: %s: %s", ErrBadRule, tt.location, tt.problem))
		})
	}
}

func TestPlan_ValidateMany(t *testing.T) {
	p := Plan{Limits: make([]Limit, 17), Require: []Attribute{"profile", "profile", "labels.", "labels.kids"}}
	for i := range p.Limits {
		p.Limits[i] = Limit{Name: fmt.Sprint("limit-", i), Limit: 1}
	}
	var fields *PlanError
	require.ErrorAs(t, p.Validate(), &fields)
	assert.Equal(t, []FieldError{
		{"limits", "17 limits are more than 16"},
		{"require[1]", `"profile" is in the list twice`},
		{"require[2]", "no such attribute; the attributes are device.id, device.type, content.id, content.type, content.labels, profile, network, region and labels.KEY"},
	}, fields.Fields)
	assert.EqualError(t, fields, "lease: not a valid rule: limits: 17 limits are more than 16; "+
		`require[1]: "profile" is in the list twice; require[2]: `+fields.Fields[2].Problem)

	p = Plan{Limits: p.Limits[:16]}
	require.NoError(t, p.Validate())
	for i := range p.Limits {
		p.Limits[i].Where = []Condition{{AttrRegion, []string{strings.Repeat("a", 200), strings.Repeat("é", 200), strings.Repeat("ü", 200), strings.Repeat("b", 50)}, nil}}
	}
	require.ErrorAs(t, p.Validate(), &fields)
	assert.Equal(t, []FieldError{{"limits", "the texts have 16800 bytes, more than 16384"}}, fields.Fields)
}

func TestPlan_WithDefaults(t *testing.T) {
	p := Plan{Limits: []Limit{{Name: "tv", Where: []Condition{{AttrRegion, []string{"b", "a"}, nil}, {AttrDeviceType, []string{"tv"}, nil}}}}}
	full := p.WithDefaults()
	assert.Equal(t, Plan{OnLimit: Deny, Count: CountStreams, Limits: []Limit{{
		Name: "tv", OnLimit: Deny, Count: CountStreams,
		Where: []Condition{{AttrDeviceType, []string{"tv"}, nil}, {AttrRegion, []string{"b", "a"}, nil}},
	}}}, full)
	assert.Equal(t, AttrRegion, p.Limits[0].Where[0].Attribute, "the argument has not changed")
	assert.True(t, full.Equal(full.WithDefaults()))
	assert.False(t, full.Equal(p))
	for _, change := range []func(*Plan){
		func(p *Plan) { p.Limit++ },
		func(p *Plan) { p.OnLimit = ReplaceLowest },
		func(p *Plan) { p.Count = CountDevices },
		func(p *Plan) { p.Require = []Attribute{AttrProfile} },
		func(p *Plan) { p.Limits = nil },
		func(p *Plan) { p.Limits[0].Name = "x" },
		func(p *Plan) { p.Limits[0].Limit++ },
		func(p *Plan) { p.Limits[0].OnLimit = ReplaceLowest },
		func(p *Plan) { p.Limits[0].Count = CountProfiles },
		func(p *Plan) { p.Limits[0].Per = AttrProfile },
		func(p *Plan) { p.Limits[0].Message = "x" },
		func(p *Plan) { p.Limits[0].Observe = true },
		func(p *Plan) { p.Limits[0].Where = p.Limits[0].Where[:1] },
		func(p *Plan) { p.Limits[0].Where[0].In, p.Limits[0].Where[0].Not = nil, p.Limits[0].Where[0].In },
	} {
		changed := full.WithDefaults()
		change(&changed)
		assert.False(t, full.Equal(changed), "%+v", changed)
	}
}

func TestLimitDifferences(t *testing.T) {
	one := Plan{Limits: []Limit{{Name: "tv", Limit: 1}, {Name: "uhd", Limit: 1}, {Name: "place", Limit: 1}}}
	two := Plan{Limits: []Limit{{Name: "tv", Limit: 2}, {Name: "place", Limit: 3, Message: "x", Per: AttrProfile}, {Name: "kids"}}, Require: []Attribute{AttrProfile}}
	assert.Equal(t, []string{"limit tv 1 -> 2", "limit place 1 -> 3, changes per, message", "+ limit kids", "- limit uhd", "require [] -> [profile]"},
		LimitDifferences(one, two))
	assert.Empty(t, LimitDifferences(one, one))
	assert.Equal(t, []string{"limit tv changes observe"}, LimitDifferences(
		Plan{Limits: []Limit{{Name: "tv"}}}, Plan{Limits: []Limit{{Name: "tv", Observe: true}}}))
	assert.Equal(t, []string{"order of limits"}, LimitDifferences(
		Plan{Limits: []Limit{{Name: "a"}, {Name: "b"}}}, Plan{Limits: []Limit{{Name: "b"}, {Name: "a"}}}))
}

func TestRule_CheckRequired(t *testing.T) {
	r := ruleOf(t, Plan{Require: []Attribute{AttrDeviceID, AttrContentLabels, "labels.kids", AttrProfile}})
	assert.Equal(t, &MissingAttributesError{r.Several.Require}, r.CheckRequired(&Attributes{}))
	as := &Attributes{DeviceID: "x", ContentLabels: []string{"y"}, Labels: map[string]string{"kids": "yes"}}
	err := r.CheckRequired(as)
	require.ErrorIs(t, err, ErrMissingAttributes)
	assert.EqualError(t, err, `lease: the plan requires attributes that the start does not state: ["profile"]`)
	as.Profile = "ann"
	assert.NoError(t, r.CheckRequired(as))
	assert.NoError(t, (&Rule{}).CheckRequired(&Attributes{}))
}

func TestAttributes_Value(t *testing.T) {
	as := &Attributes{
		DeviceID: "1", DeviceType: "2", ContentID: "3", ContentType: "4", Profile: "5", Network: "6", Region: "7",
		Labels: map[string]string{"a.b": "8"},
	}
	for a, want := range map[Attribute]string{
		AttrDeviceID: "1", AttrDeviceType: "2", AttrContentID: "3", AttrContentType: "4", AttrProfile: "5", AttrNetwork: "6", AttrRegion: "7",
		"labels.a.b": "8", "labels.c": "",
	} {
		assert.Equal(t, want, as.value(a))
		assert.True(t, a.valid())
	}
}
