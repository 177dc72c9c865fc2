package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestOverride_Validate(t *testing.T) {
	now := time.Date(2026, 12, 1, 12, 0, 0, 500, time.UTC)
	soon := now.Truncate(time.Second).Add(time.Second)
	one, high := 1, 61
	many := map[string]int{}
	for _, c := range "abcdefghijklmnopq" {
		many[string(c)] = 1
	}
	tests := []struct {
		name     string
		override Override
		problem  string // "" if it is valid
	}{
		{"limit", Override{Limit: &one}, ""},
		{"plan", Override{Plan: "family"}, ""},
		{"limits", Override{Limits: map[string]int{"tv": 0, "kids": 60}}, ""},
		{"planAndLimits", Override{Plan: "family", Limits: map[string]int{"tv": 2}, Until: soon}, ""},
		{"limitAndLimits", Override{Limit: &one, Limits: map[string]int{"tv": 2}, Until: now.Truncate(time.Second).Add(MaxUntil)}, ""},
		{"otherZone", Override{Limit: &one, Until: soon.In(time.FixedZone("", 3600))}, ""},
		{"nothing", Override{}, "a user has a limit, a plan, or limits by name"},
		{"onlyUntil", Override{Until: soon, Limits: map[string]int{}}, "a user has a limit, a plan, or limits by name"},
		{"limitAndPlan", Override{Limit: &one, Plan: "family", Limits: map[string]int{"tv": 2}}, "a user has either a limit or a plan"},
		{"badPlan", Override{Plan: "a/b"}, "malformed name of a plan"},
		{"highLimit", Override{Limit: &high}, "limit 61 is not between 0 and 60"},
		{"total", Override{Limits: map[string]int{"total": 2}}, "limits.total: use the member limit for the limit of all streams"},
		{"upperCase", Override{Limits: map[string]int{"TV": 2}}, "limits: a name has 1 to 32 characters of a-z 0-9 -"},
		{"longName", Override{Limits: map[string]int{strings.Repeat("a", 33): 2}}, "limits: a name has 1 to 32 characters of a-z 0-9 -"},
		{"numbers", Override{Plan: "x", Limits: map[string]int{"tv": -1, "kids": 61}},
			"limits.kids: 61 is not between 0 and 60; limits.tv: -1 is not between 0 and 60"},
		{"many", Override{Limits: many}, "limits: 17 limits are more than 16"},
		{"fraction", Override{Limit: &one, Until: soon.Add(time.Millisecond)}, "until: not a whole second"},
		{"past", Override{Limit: &one, Until: soon.Add(-time.Second)}, "until: the time is not in the future"},
		{"far", Override{Limit: &one, Until: soon.Add(MaxUntil)},
			"until: more than 100 years ahead: leave it out for an override that does not end"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.override.ValidateNew(now)
			if tt.problem == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, ErrBadRule)
			assert.EqualError(t, err, ErrBadRule.Error()+": "+tt.problem)
		})
	}
	assert.NoError(t, Override{Limit: &one, Until: time.Unix(0, 0)}.Validate(), "a stored override may have ended")
}

func TestOverride_Equal(t *testing.T) {
	one, two, alsoOne := 1, 2, 1
	at := time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)
	same := Override{Limit: &one, Limits: map[string]int{"tv": 2}, Until: at}
	assert.True(t, same.Equal(Override{Limit: &alsoOne, Limits: map[string]int{"tv": 2}, Until: at.In(time.FixedZone("", 3600))}))
	for _, other := range []Override{
		{}, {Limit: &two, Limits: map[string]int{"tv": 2}, Until: at}, {Limits: map[string]int{"tv": 2}, Until: at},
		{Limit: &one, Until: at}, {Limit: &one, Limits: map[string]int{"tv": 3}, Until: at}, {Limit: &one, Limits: map[string]int{"tv": 2}},
		{Plan: "x", Limits: map[string]int{"tv": 2}, Until: at}, {Limit: &one, Limits: map[string]int{"kids": 2}, Until: at},
	} {
		assert.False(t, same.Equal(other), "%+v", other)
		assert.False(t, other.Equal(same), "%+v", other)
	}
	assert.True(t, Override{Plan: "x"}.Equal(Override{Plan: "x", Limits: map[string]int{}}))
}

func TestResolve_NumbersOfTheUser(t *testing.T) {
	evict := Limit{Name: "tv", Limit: 1, OnLimit: ReplaceOldest}
	plans := map[string]Plan{
		"home":      {Limit: 3, OnLimit: Deny, Limits: []Limit{evict, {Name: "kids", Limit: 2, OnLimit: Deny}}},
		"plain":     {Limit: 2, OnLimit: Deny},
		DefaultPlan: {Limit: 4, OnLimit: Deny, Limits: []Limit{{Name: "tv", Limit: 1, OnLimit: Deny}}},
	}
	five := 5
	tests := []struct {
		name     string
		override Override
		claims   Claims
		total    int
		limits   map[string]int
		mayEvict bool
	}{
		{"ownPlan", Override{Plan: "home", Limits: map[string]int{"tv": 2}}, Claims{}, 3, map[string]int{"tv": 2, "kids": 2}, true},
		{"planOfTheStart", Override{Limits: map[string]int{"kids": 0}}, Claims{Plan: "home"}, 3, map[string]int{"tv": 1, "kids": 0}, true},
		{"limitOfTheStart", Override{Limits: map[string]int{"tv": 3}}, Claims{Limit: &five}, 5, map[string]int{"tv": 3}, false},
		{"defaultPlan", Override{Limit: &five, Limits: map[string]int{"tv": 2, "kids": 7}}, Claims{}, 5, map[string]int{"tv": 2}, false},
		{"noSuchLimit", Override{Plan: "home", Limits: map[string]int{"uhd": 9}}, Claims{}, 3, map[string]int{"tv": 1, "kids": 2}, true},
		{"withoutFurtherLimits", Override{Plan: "plain", Limits: map[string]int{"tv": 2}}, Claims{}, 2, nil, false},
		{"zeroEndsNoStream", Override{Plan: "home", Limits: map[string]int{"tv": 0}}, Claims{}, 3, map[string]int{"tv": 0, "kids": 2}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := Resolve(someRules{map[string]Override{"maya": tt.override}, plans}, "maya", tt.claims, Defaults{})
			require.NoError(t, err)
			assert.Equal(t, tt.total, r.Limit)
			var got map[string]int
			if r.Several != nil {
				got = map[string]int{}
				for _, l := range r.Several.Limits {
					got[l.Name] = l.Limit
				}
			}
			assert.Equal(t, tt.limits, got)
			assert.Equal(t, tt.mayEvict, r.MayEvict())
		})
	}
	assert.Equal(t, []Limit{evict, {Name: "kids", Limit: 2, OnLimit: Deny}}, plans["home"].Limits, "the plan is unchanged")
}

// A user whose override has numbers has the decisions of a plan with these numbers.
func TestResolve_NumbersDecideLikeAPlan(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := drawSeveral(t)
		plan := *c.rule.Several
		before, same := plan.WithDefaults(), plan.WithDefaults() // copies
		o := Override{Plan: "family", Limits: map[string]int{"z": rapid.IntRange(0, 3).Draw(t, "z")}}
		for i := range same.Limits {
			l := &same.Limits[i]
			if !rapid.Bool().Draw(t, "overrides "+l.Name) {
				continue
			}
			l.Limit = rapid.IntRange(0, 3).Draw(t, "number of "+l.Name)
			o.Limits[l.Name] = l.Limit
			if l.Limit == 0 {
				l.OnLimit = Deny // other values are not valid
			}
		}
		require.NoError(t, o.Validate())
		resolve := func(p Plan, o Override) Rule {
			r, err := Resolve(sharedPlan{&p, o}, "maya", Claims{}, Defaults{})
			require.NoError(t, err)
			return r
		}
		own, equal := resolve(plan, o), resolve(same, Override{Plan: "family"})
		got, gotOK := Decide(own, c.held, c.start)
		want, wantOK := Decide(equal, c.held, c.start)
		require.Equal(t, wantOK, gotOK)
		require.Equal(t, want, got)
		gotRefusal, _ := Refuse(own, c.held, c.start)
		wantRefusal, _ := Refuse(equal, c.held, c.start)
		require.Equal(t, wantRefusal, gotRefusal)
		require.True(t, before.Equal(plan.WithDefaults()), "the plan of other users is unchanged")
	})
}

// sharedPlan is a Source with one plan, which is not copied, and the override of every user.
type sharedPlan struct {
	plan *Plan
	own  Override
}

func (s sharedPlan) Override(string) (*Override, int64) { return &s.own, 1 }
func (s sharedPlan) Plan(string) (*Plan, int64)         { return s.plan, 2 }

func TestNumberDifferences(t *testing.T) {
	a := Override{Limits: map[string]int{"tv": 1, "kids": 2, "uhd": 1}}
	b := Override{Limits: map[string]int{"tv": 2, "live": 3, "uhd": 1}}
	assert.Equal(t, []string{"+ limit live 3", "limit tv 1 -> 2", "- limit kids"}, NumberDifferences(a, b))
	assert.Empty(t, NumberDifferences(a, a))
	assert.Equal(t, []string{"- limit kids", "- limit tv", "- limit uhd"}, NumberDifferences(a, Override{}))
}
