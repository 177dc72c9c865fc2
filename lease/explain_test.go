package lease

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/policy"
)

// explained returns "plan from: limit counted/limit, ...".
func explained(t *testing.T, l *Limiter, user string) string {
	t.Helper()
	x, err := l.Rules().Explain(t.Context(), user)
	require.NoError(t, err)
	text := fmt.Sprintf("%s from %s", x.Plan, x.From)
	if !x.Until.IsZero() {
		text += " until " + x.Until.UTC().Format(time.DateOnly)
	}
	for _, u := range x.Limits {
		name := u.Limit.Name
		if u.Value != nil {
			name += "=" + *u.Value
		}
		text += fmt.Sprintf("; %s %d/%d, %d left", name, u.Counted, u.Limit.Limit, u.Left)
		if from := x.NumbersFrom[u.Limit.Name]; from != "" {
			text += fmt.Sprintf(" by %s", from)
		}
	}
	return text
}

func TestRules_Explain(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 3})
	set := func(name string, p policy.Plan) {
		t.Helper()
		_, err := l.Rules().SetPlan(ctx, name, p)
		require.NoError(t, err)
	}
	override := func(user string, o policy.Override) {
		t.Helper()
		_, err := l.Rules().SetOverride(ctx, user, o)
		require.NoError(t, err)
	}
	assert.Equal(t, "default from configuration; total 0/3, 3 left", explained(t, l, "maya"))
	family := policy.Plan{Limit: 4, Limits: []policy.Limit{
		{Name: "tv", Where: []policy.Condition{{Attribute: policy.AttrDeviceType, In: []string{"tv"}}}, Limit: 1},
		{Name: "profile", Per: policy.AttrProfile, Limit: 2},
	}}
	set("family", family)
	override("maya", policy.Override{Plan: "family"})
	assert.Equal(t, "family from override; total 0/4, 4 left; tv 0/1, 1 left; profile 0/2, 2 left", explained(t, l, "maya"))
	mustStart(t, l, "maya", Request{Device: Device{Type: "tv"}, Attributes: policy.StartAttributes{Profile: "kid"}})
	mustStart(t, l, "maya", Request{Device: Device{Type: "phone"}})
	assert.Equal(t, "family from override; total 2/4, 2 left; tv 1/1, 0 left; profile= 1/2, 1 left; profile=kid 1/2, 1 left",
		explained(t, l, "maya"))
	override("maya", policy.Override{Plan: "family", Limits: map[string]int{"tv": 2, "none": 1}, Until: time.Date(2100, 1, 2, 0, 0, 0, 0, time.UTC)})
	assert.Equal(t, "family from override until 2100-01-02; total 2/4, 2 left; tv 1/2, 1 left by override; profile= 1/2, 1 left; profile=kid 1/2, 1 left",
		explained(t, l, "maya"))
	override("maya", policy.Override{Plan: "family"})
	_, err := l.Rules().RemovePlan(ctx, "family")
	require.NoError(t, err)
	assert.Equal(t, "default from configuration; total 2/3, 1 left", explained(t, l, "maya"), "the plan was removed")

	set(policy.DefaultPlan, policy.Plan{Limit: 2, Count: policy.CountDevices})
	assert.Equal(t, "default from default; total 2/2, 0 left", explained(t, l, "maya"), "the plan was removed")
	assert.Equal(t, "default from default; total 0/2, 2 left", explained(t, l, "tom"))
	override("tom", policy.Override{Limit: new(5)})
	assert.Equal(t, "default from default; total 0/5, 5 left by override", explained(t, l, "tom"))

	set("gold", policy.Plan{Limit: 9})
	mustStart(t, l, "ida", Request{Plan: "gold"})
	assert.Equal(t, "gold from start; total 1/9, 8 left", explained(t, l, "ida"))
	mustStart(t, l, "ida", Request{Grant: "silver", Limit: new(7)})
	assert.Equal(t, "default from default; total 2/7, 5 left by start", explained(t, l, "ida"))

	_, err = l.Rules().Explain(ctx, "a\tb")
	require.ErrorIs(t, err, ErrBadUser)
}

// A rule that this version cannot read is not explained by another one.
func TestRules_ExplainUnreadable(t *testing.T) {
	t.Parallel()
	ctx, c, prefix := t.Context(), etcdtest.Client(t), etcdtest.Prefix(t)
	l := newLimiter(t, c, Config{Prefix: prefix, Limit: 3})
	for key, value := range map[string]string{
		"/plans/default": `{"limit":9,"needs":["teleport"]}`, "/limits/tom": `{"limit":9,"needs":["teleport"]}`,
		"/plans/gold": `{"limit":9}`, "/limits/ida": `{"plan":"gold"}`,
	} {
		_, err := c.Put(ctx, prefix+key, value)
		require.NoError(t, err)
	}
	var unreadable *policy.UnreadableError
	_, err := l.Rules().Explain(ctx, "maya")
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorAs(t, err, &unreadable)
	assert.Equal(t, policy.UnreadableError{Plan: "default"}, *unreadable)
	_, err = l.Rules().Explain(ctx, "tom")
	require.ErrorAs(t, err, &unreadable)
	assert.Equal(t, policy.UnreadableError{User: "tom"}, *unreadable)
	assert.Equal(t, "gold from override; total 0/9, 9 left", explained(t, l, "ida"))
}
