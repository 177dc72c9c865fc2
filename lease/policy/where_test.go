package policy_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/lease/policy"
)

func TestCheckWhere(t *testing.T) {
	long := strings.Repeat("x", policy.MaxValue+1)
	many := make([]policy.Condition, policy.MaxConditions+1)
	for i := range many {
		many[i] = policy.Condition{Attribute: policy.Attribute("labels.k" + string(rune('a'+i))), In: []string{"v"}}
	}
	for _, tt := range []struct {
		name  string
		where []policy.Condition
		want  policy.FieldError // its Problem is a part of the actual text
	}{
		{"valid", []policy.Condition{
			{Attribute: policy.AttrContentID, In: []string{"film-77", ""}}, {Attribute: "labels.tier", Not: []string{"paid"}},
		}, policy.FieldError{}},
		{"none", nil, policy.FieldError{Location: "where", Problem: "at least one condition"}},
		{"too many", many, policy.FieldError{Location: "where", Problem: "9 conditions are more than 8"}},
		{"misspelled", []policy.Condition{{Attribute: "content.ids", In: []string{"a"}}}, policy.FieldError{Location: "where.content.ids", Problem: "content.id?"}},
		{"twice", []policy.Condition{
			{Attribute: policy.AttrRegion, In: []string{"eu"}}, {Attribute: policy.AttrRegion, Not: []string{"us"}},
		}, policy.FieldError{Location: "where.region", Problem: "two conditions"}},
		{"no value", []policy.Condition{{Attribute: policy.AttrRegion}}, policy.FieldError{Location: "where.region", Problem: "empty"}},
		{"both", []policy.Condition{{Attribute: policy.AttrRegion, In: []string{"a"}, Not: []string{"b"}}}, policy.FieldError{Location: "where.region", Problem: "one of them"}},
		{"long", []policy.Condition{{Attribute: policy.AttrRegion, In: []string{long}}}, policy.FieldError{Location: "where.region", Problem: "at most 200"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := policy.CheckWhere(tt.where)
			if tt.want == (policy.FieldError{}) {
				require.NoError(t, err)
				return
			}
			var bad *policy.PlanError
			require.ErrorAs(t, err, &bad)
			require.Len(t, bad.Fields, 1)
			assert.Equal(t, tt.want.Location, bad.Fields[0].Location)
			assert.Contains(t, bad.Fields[0].Problem, tt.want.Problem)
		})
	}
}

// A stream is selected if it fulfils all conditions, as for the limit of a plan.
func TestSelects(t *testing.T) {
	as := &policy.Attributes{ContentID: "film-77", Region: "eu", ContentLabels: []string{"a", "b"}, Labels: map[string]string{"tier": "free"}}
	film := policy.Condition{Attribute: policy.AttrContentID, In: []string{"film-77"}}
	for _, tt := range []struct {
		more policy.Condition
		want bool
	}{
		{policy.Condition{Attribute: policy.AttrRegion, In: []string{"us", "eu"}}, true},
		{policy.Condition{Attribute: policy.AttrRegion, Not: []string{"eu"}}, false},
		{policy.Condition{Attribute: "labels.tier", Not: []string{"paid"}}, true},
		{policy.Condition{Attribute: policy.AttrContentLabels, In: []string{"b"}}, true},
		{policy.Condition{Attribute: policy.AttrContentLabels, Not: []string{"b"}}, false},
		{policy.Condition{Attribute: policy.AttrDeviceType, In: []string{""}}, true},
		{policy.Condition{Attribute: policy.AttrDeviceType, Not: []string{""}}, false},
	} {
		assert.Equal(t, tt.want, policy.Selects([]policy.Condition{film, tt.more}, as), "%v", tt.more)
	}
}
