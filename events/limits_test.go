package events

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease"
	"streamcount/lease/policy"
)

// Refusals and evictions of a plan with several limits name the limits, an eviction on every
// node.
func TestFeed_NamesLimits(t *testing.T) {
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	here, l := feedOf(t, c, prefix)
	there, _ := feedOf(t, c, prefix)
	_, err := l.Rules().SetPlan(t.Context(), policy.DefaultPlan, policy.Plan{Limit: 2, OnLimit: policy.ReplaceOldest, Limits: []policy.Limit{
		{Name: "live", Where: []policy.Condition{{Attribute: policy.AttrContentType, In: []string{"live"}}}, Limit: 1, OnLimit: policy.ReplaceOldest},
		{Name: "tv", Where: []policy.Condition{{Attribute: policy.AttrDeviceType, In: []string{"tv"}}}, Limit: 1},
	}})
	require.NoError(t, err)
	local, remote := follow(t, here, "", ""), follow(t, there, "", "")
	on := func(kind, content string) lease.Request {
		return lease.Request{
			Device: lease.Device{Name: kind, Type: kind}, OnLimit: policy.ReplaceOldest,
			Attributes: policy.StartAttributes{ContentType: content},
		}
	}
	mustStart(t, l, "maya", on("tv", ""))
	mustStart(t, l, "maya", on("phone", "live"))
	_, err = l.Start(t.Context(), "maya", on("tv", "live"))
	require.ErrorIs(t, err, lease.ErrLimit)
	mustStart(t, l, "maya", on("tablet", "live"))
	mustStart(t, l, "maya", on("laptop", ""))
	want := []string{
		"start maya 1/2 tv", "start maya 2/2 phone", "refusal maya 2/1 for tv",
		"stop maya 1/2 evicted phone by tablet for total,live", "start maya 2/2 tablet",
		"stop maya 1/2 evicted tv by laptop for total", "start maya 2/2 laptop",
	}
	got := next(t, local, len(want))
	assert.ElementsMatch(t, want, got)
	assert.Equal(t, withoutRefusals(want), withoutRefusals(got))
	assert.Equal(t, withoutRefusals(want), next(t, remote, len(want)-1))
}
