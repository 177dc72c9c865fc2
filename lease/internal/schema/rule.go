package schema

import (
	"encoding/json"

	"streamcount/lease/policy"
)

// Members of stored rules that a later version adds are ignored.
type (
	storedPlan struct {
		Limit   *int            `json:"limit"`
		OnLimit policy.OnLimit  `json:"onLimit,omitempty"`
		Count   policy.Counting `json:"count,omitempty"`
	}
	storedOverride struct {
		Limit *int   `json:"limit,omitempty"`
		Plan  string `json:"plan,omitempty"`
	}
)

// EncodePlan returns the stored form of p.
func EncodePlan(p policy.Plan) []byte {
	return Encode(storedPlan{&p.Limit, p.OnLimit, p.Count})
}

// EncodeOverride returns the stored form of o.
func EncodeOverride(o policy.Override) []byte { return Encode(storedOverride(o)) }

// DecodePlan decodes a stored plan. It returns nil if value is not a valid plan.
func DecodePlan(value []byte) *policy.Plan {
	var s storedPlan
	if json.Unmarshal(value, &s) != nil || s.Limit == nil {
		return nil
	}
	p := policy.Plan{Limit: *s.Limit, OnLimit: s.OnLimit, Count: s.Count}.WithDefaults()
	if p.Validate() != nil {
		return nil
	}
	return &p
}

// DecodeOverride decodes a stored override. It returns nil if value is not a valid
// override.
func DecodeOverride(value []byte) *policy.Override {
	var s storedOverride
	if json.Unmarshal(value, &s) != nil || policy.Override(s).Validate() != nil {
		return nil
	}
	o := policy.Override(s)
	return &o
}
