package lease

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/policy"
	"streamcount/lease/rules"
)

// A rule that a registered node does not support is not written, and every other rule is.
func TestRules_OlderNodes(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	current := rules.Node{ID: "new-1", Version: "0.2.0", Supports: policy.SupportedNeeds()}
	old := []rules.Node{{ID: "old-2", Region: "us"}, {ID: "old-1", Region: "eu", Version: "0.1.0", Supports: []string{"teleport"}}}
	var nodes []rules.Node
	var failed error
	l := newLimiter(t, etcdtest.Client(t), Config{
		Prefix: etcdtest.Prefix(t),
		Nodes:  func(context.Context) ([]rules.Node, error) { return nodes, failed },
	})
	several := policy.Plan{Limit: 3, Limits: []policy.Limit{{Name: "tv", Limit: 1}}}
	change := rules.Set{Plans: map[string]*policy.Plan{"family": &several, "basic": {Limit: 1}}}
	refused := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, rules.ErrOlderNodes)
		require.NotErrorIs(t, err, ErrUnavailable)
		older, ok := errors.AsType[*rules.OlderNodesError](err)
		require.True(t, ok)
		assert.Equal(t, &rules.OlderNodesError{Needs: []string{policy.NeedLimits}, Nodes: []rules.Node{old[1], old[0]}}, older)
		for _, name := range []string{"family", "basic"} {
			_, err := l.Rules().Plan(ctx, name)
			require.ErrorIs(t, err, policy.ErrNoPlan)
		}
	}

	nodes = []rules.Node{old[0], current, old[1]}
	_, err := l.Rules().Apply(ctx, change, rules.Options{DryRun: true})
	refused(err)
	_, err = l.Rules().Apply(ctx, change, rules.Options{})
	refused(err)
	_, err = l.Rules().SetPlan(ctx, "family", several)
	refused(err)
	_, err = l.Rules().SetPlan(ctx, "simple", policy.Plan{Limit: 2})
	require.NoError(t, err, "old nodes support it")

	failed = errors.New("no route")
	_, err = l.Rules().Apply(ctx, change, rules.Options{DryRun: true})
	require.ErrorIs(t, err, ErrUnavailable)
	_, err = l.Rules().Apply(ctx, change, rules.Options{})
	require.ErrorIs(t, err, ErrUnavailable)
	_, err = l.Rules().SetOverride(ctx, "maya", policy.Override{Plan: "simple"})
	require.NoError(t, err, "it needs no list of nodes")

	nodes, failed = []rules.Node{current}, nil
	_, err = l.Rules().Apply(ctx, change, rules.Options{})
	require.NoError(t, err)

	// An old node has started since: what is in force already is not refused.
	nodes = old
	change.Plans["basic"] = &policy.Plan{Limit: 2}
	_, err = l.Rules().Apply(ctx, change, rules.Options{})
	require.NoError(t, err, "the plan family does not change")
	_, err = l.Rules().RemovePlan(ctx, "family")
	require.NoError(t, err)
}
