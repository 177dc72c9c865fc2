package rules

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"streamcount/lease/policy"
)

func TestPlanChange_Limits(t *testing.T) {
	one := policy.Plan{Limit: 3, Limits: []policy.Limit{{Name: "tv", Limit: 1}}}
	two := policy.Plan{Limit: 3, Limits: []policy.Limit{{Name: "tv", Limit: 2}, {Name: "kids", Limit: 2}}}
	assert.Equal(t, []string{"limit tv 1 -> 2", "+ limit kids"}, PlanChange{Name: "family", Old: &one, New: &two}.Limits())
	assert.Equal(t, []string{"+ limit tv"}, PlanChange{New: &one}.Limits())
	assert.Equal(t, []string{"- limit tv"}, PlanChange{Old: &one}.Limits())
}
