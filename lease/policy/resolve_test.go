package policy

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// someRules is a Source in memory.
type someRules struct {
	users map[string]Override
	plans map[string]Plan
}

func (s someRules) Override(user string) (*Override, int64) {
	if o, ok := s.users[user]; ok {
		return &o, 7
	}
	return nil, 0
}

func (s someRules) Plan(name string) (*Plan, int64) {
	if p, ok := s.plans[name]; ok {
		return &p, 8
	}
	return nil, 0
}

func TestResolve(t *testing.T) {
	one, five, many := 1, 5, 1000
	family := Plan{Limit: 4, OnLimit: ReplaceOldest, Count: CountContent}
	basic := Plan{Limit: 2, OnLimit: Deny, Count: CountDevices}
	plans := map[string]Plan{"family": family}
	withDefault := map[string]Plan{"family": family, DefaultPlan: basic}
	tests := []struct {
		name     string
		override *Override
		plans    map[string]Plan
		claims   Claims
		limit    int
		evict    bool
		count    Counting
		unknown  bool
	}{
		{name: "nothing", limit: 3, evict: true},
		{name: "defaultPlan", plans: withDefault, limit: 2, count: CountDevices},
		{name: "byTheService", plans: withDefault, claims: Claims{Plan: "family"}, limit: 4, evict: true, count: CountContent},
		{name: "unknownToTheService", plans: plans, claims: Claims{Plan: "gold"}, unknown: true},
		{name: "byAToken", plans: plans, claims: Claims{GrantedPlan: "family"}, limit: 4, evict: true, count: CountContent},
		{name: "unknownToTheToken", plans: withDefault, claims: Claims{GrantedPlan: "gold"}, limit: 2, count: CountDevices},
		{name: "unknownToTheTokenAndNoDefault", plans: plans, claims: Claims{GrantedPlan: "gold"}, limit: 3, evict: true},
		{name: "limitOfAToken", plans: plans, claims: Claims{Limit: &five}, limit: 5, evict: true},
		{name: "limitAndPlanOfAToken", plans: plans, claims: Claims{GrantedPlan: "family", Limit: &five}, limit: 5, evict: true, count: CountContent},
		{name: "tooMuchOfAToken", claims: Claims{Limit: &many}, limit: MaxLimit, evict: true},
		{name: "ownLimit", override: &Override{Limit: &one}, plans: withDefault, claims: Claims{Limit: &five}, limit: 1, count: CountDevices},
		{name: "ownLimitKeepsThePlan", override: &Override{Limit: &one}, plans: withDefault, claims: Claims{Plan: "family"}, limit: 1, evict: true, count: CountContent},
		{name: "ownPlan", override: &Override{Plan: "family"}, plans: withDefault, claims: Claims{Limit: &one}, limit: 4, evict: true, count: CountContent},
		{name: "ownPlanBeatsAnUnknownOne", override: &Override{Plan: "family"}, plans: plans, claims: Claims{Plan: "gold"}, limit: 4, evict: true, count: CountContent},
		{name: "ownPlanThatIsGone", override: &Override{Plan: "gold"}, plans: withDefault, claims: Claims{Plan: "family"}, limit: 2, count: CountDevices},
	}
	defaults := Defaults{Plan: Plan{Limit: 3, OnLimit: ReplaceOldest}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			src := someRules{plans: tt.plans}
			if tt.override != nil {
				src.users = map[string]Override{"maya": *tt.override}
			}
			r, err := Resolve(src, "maya", tt.claims, defaults)
			if tt.unknown {
				require.ErrorIs(t, err, ErrNoPlan)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, []any{tt.limit, tt.evict, tt.count}, []any{r.Limit, r.EvictionAllowed, r.Counting})
			_, revision := src.Override("maya")
			assert.Equal(t, revision, r.Override)
			for _, p := range r.Plans { // what the transaction will compare
				_, revision := src.Plan(p.Plan)
				assert.Equal(t, revision, p.Revision, "%s", p.Plan)
			}
		})
	}
}

func TestResolve_FurtherLimits(t *testing.T) {
	tv := Limit{Name: "tv", Limit: 1, OnLimit: ReplaceOldest}
	plans := map[string]Plan{
		"tv":    {Limit: 3, OnLimit: Deny, Limits: []Limit{tv}, Require: []Attribute{AttrDeviceType}},
		"kiosk": {Limit: 2, OnLimit: ReplaceLowest},
		"plain": {Limit: 2, OnLimit: ReplaceOldest},
		"deny":  {Limit: 2, OnLimit: Deny, Limits: []Limit{{Name: "tv"}}},
	}
	one := 1
	source := someRules{plans: plans, users: map[string]Override{"maya": {Limit: &one}}}
	resolve := func(user, plan string) Rule {
		r, err := Resolve(source, user, Claims{Plan: plan}, Defaults{})
		require.NoError(t, err)
		return r
	}
	r := resolve("maya", "tv")
	assert.Equal(t, []Limit{tv}, r.Several.Limits)
	assert.Equal(t, []Attribute{AttrDeviceType}, r.Several.Require)
	assert.Equal(t, 1, r.Limit)
	assert.False(t, r.EvictionAllowed)
	for plan, want := range map[string][2]bool{ // MayEvict, NeedsAttributes
		"tv": {true, true}, "kiosk": {true, true}, "plain": {true, false}, "deny": {false, true},
	} {
		r := resolve("tom", plan)
		assert.Equal(t, want, [2]bool{r.MayEvict(), r.NeedsAttributes()}, plan)
	}
}

// A rule that exists and cannot be read is not replaced by another one.
func TestResolve_UnreadableRules(t *testing.T) {
	family, three := Plan{Limit: 4}, 3
	tests := []struct {
		name   string
		source unreadableRules
		claims Claims
		want   *UnreadableError
	}{
		{name: "none", source: unreadableRules{}},
		{name: "override", source: unreadableRules{override: true}, want: &UnreadableError{User: "maya"}},
		{name: "claimed", source: unreadableRules{plan: "gold"}, claims: Claims{Plan: "gold"}, want: &UnreadableError{Plan: "gold"}},
		{name: "granted", source: unreadableRules{plan: "gold"}, claims: Claims{GrantedPlan: "gold"}, want: &UnreadableError{Plan: "gold"}},
		{name: "default", source: unreadableRules{plan: DefaultPlan}, want: &UnreadableError{Plan: DefaultPlan}},
		{name: "defaultInPlaceOfAnother", source: unreadableRules{plan: DefaultPlan}, claims: Claims{GrantedPlan: "gold"}, want: &UnreadableError{Plan: DefaultPlan}},
		{name: "planOfOverride", source: unreadableRules{plan: "gold", someRules: someRules{users: map[string]Override{"maya": {Plan: "gold"}}}},
			want: &UnreadableError{Plan: "gold"}},
		{name: "planBesideOverride", source: unreadableRules{plan: DefaultPlan, someRules: someRules{users: map[string]Override{"maya": {Limit: &three}}}},
			want: &UnreadableError{Plan: DefaultPlan}},
		{name: "anotherPlan", source: unreadableRules{plan: "gold", someRules: someRules{plans: map[string]Plan{"family": family}}}, claims: Claims{Plan: "family"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Resolve(tt.source, "maya", tt.claims, Defaults{Plan: Plan{Limit: 3}})
			if tt.want == nil {
				require.NoError(t, err)
				return
			}
			var got *UnreadableError
			require.ErrorAs(t, err, &got)
			require.ErrorIs(t, err, ErrUnreadable)
			assert.Equal(t, tt.want, got)
		})
	}
	assert.EqualError(t, &UnreadableError{Plan: "gold"}, `lease: this version cannot read a rule: plan "gold"`)
	assert.EqualError(t, &UnreadableError{User: "maya"}, `lease: this version cannot read a rule: that of user "maya"`)
}

// unreadableRules is a Source with a plan, or the override of each user, that cannot be
// read.
type unreadableRules struct {
	someRules
	plan     string
	override bool
}

func (u unreadableRules) Override(user string) (*Override, int64) {
	if u.override {
		return nil, 7
	}
	return u.someRules.Override(user)
}

func (u unreadableRules) Plan(name string) (*Plan, int64) {
	if u.plan == name {
		return nil, 8
	}
	return u.someRules.Plan(name)
}
