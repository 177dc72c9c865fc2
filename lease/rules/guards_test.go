package rules

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
)

// A transaction compares the revision of the override and of every plan that the rule
// depends on.
func TestGuards_CoverTheRule(t *testing.T) {
	s := New(Config{Keys: schema.Keys{Prefix: "/t"}})
	guards := func(r policy.Rule) map[string]int64 {
		out := map[string]int64{}
		for _, g := range s.Guards("maya", r) {
			out[string(g.Key)] = g.GetModRevision()
		}
		return out
	}
	assert.Equal(t, map[string]int64{"/t/limits/maya": 7, "/t/plans/default": 8},
		guards(policy.Rule{Override: 7, Plans: [2]policy.PlanRevision{{Plan: policy.DefaultPlan, Revision: 8}}}))
	assert.Equal(t, map[string]int64{"/t/limits/maya": 0, "/t/plans/gold": 0, "/t/plans/default": 9},
		guards(policy.Rule{Plans: [2]policy.PlanRevision{{Plan: "gold"}, {Plan: policy.DefaultPlan, Revision: 9}}}))
}
