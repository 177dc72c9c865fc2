package shard

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/lease"
	"streamcount/lease/policy"
	"streamcount/lease/rules"
)

// A set that an older node on the last shard does not support changes no shard.
func TestApply_OlderNodeOnOneShard(t *testing.T) {
	t.Parallel()
	ctx, e := t.Context(), startShards(t, "a", "b")
	var older atomic.Bool
	older.Store(true)
	r := e.nodeWith(t, func(s Shard, cfg *lease.Config) {
		cfg.Nodes = func(context.Context) ([]rules.Node, error) {
			nodes := []rules.Node{{ID: "new", Supports: policy.SupportedNeeds()}}
			if s.Name == "b" && older.Load() {
				nodes = append(nodes, rules.Node{ID: "old"})
			}
			return nodes, nil
		}
	}, "a", "b")
	several := policy.Plan{Limit: 3, Limits: []policy.Limit{{Name: "tv", Limit: 1}}}
	set := rules.Set{Plans: map[string]*policy.Plan{"family": &several}}
	for _, how := range []rules.Options{{DryRun: true}, {}} {
		_, err := r.Apply(ctx, set, how)
		require.ErrorIs(t, err, rules.ErrOlderNodes)
	}
	_, err := r.SetPlan(ctx, "family", several)
	require.ErrorIs(t, err, rules.ErrOlderNodes)
	for _, name := range []string{"a", "b"} {
		kvs, err := e[name].Client(t).Get(ctx, "/streamcount/plans/family")
		require.NoError(t, err)
		assert.Empty(t, kvs.Kvs, "shard %s", name)
	}

	older.Store(false)
	_, err = r.SetPlan(ctx, "family", several)
	require.NoError(t, err)
	for _, name := range []string{"a", "b"} {
		kvs, err := e[name].Client(t).Get(ctx, "/streamcount/plans/family")
		require.NoError(t, err)
		assert.Len(t, kvs.Kvs, 1, "shard %s", name)
	}
}
