package schema

import (
	"bytes"
	"encoding/json"
	"time"

	"streamcount/lease/policy"
)

// Members of stored rules that a later version adds are ignored, unless Needs names a need
// that this version does not support. A version that adds a member without which a rule
// admits too many streams must add a need for it.
type (
	storedPlan struct {
		Limit   *int               `json:"limit"`
		OnLimit policy.OnLimit     `json:"onLimit,omitempty"`
		Count   policy.Counting    `json:"count,omitempty"`
		Limits  []storedLimit      `json:"limits,omitempty"`
		Require []policy.Attribute `json:"require,omitempty"`
		Needs   []string           `json:"needs,omitempty"`
	}
	storedLimit struct {
		Name    string                            `json:"name"`
		Where   map[policy.Attribute]storedValues `json:"where,omitempty"`
		Count   policy.Counting                   `json:"count,omitempty"`
		Per     policy.Attribute                  `json:"per,omitempty"`
		Limit   *int                              `json:"limit"`
		OnLimit policy.OnLimit                    `json:"onLimit,omitempty"`
		Message string                            `json:"message,omitempty"`
		Observe bool                              `json:"observe,omitempty"`
	}
	// storedValues is a list, or an object with the member not.
	storedValues   struct{ in, not []string }
	storedOverride struct {
		Limit  *int            `json:"limit,omitempty"`
		Plan   string          `json:"plan,omitempty"`
		Limits map[string]*int `json:"limits,omitempty"`
		Until  time.Time       `json:"until,omitzero"`
		Needs  []string        `json:"needs,omitempty"`
	}
)

// supported reports whether this version supports all needs.
func supported(needs []string) bool {
	return len(policy.MissingNeeds(needs, policy.SupportedNeeds())) == 0
}

type notValues struct {
	Not []string `json:"not"`
}

// MarshalJSON implements [json.Marshaler].
func (v storedValues) MarshalJSON() ([]byte, error) {
	if len(v.not) > 0 {
		return Encode(notValues{v.not}), nil
	}
	return Encode(v.in), nil
}

// UnmarshalJSON implements [json.Unmarshaler].
func (v *storedValues) UnmarshalJSON(b []byte) error {
	*v = storedValues{}
	if bytes.HasPrefix(b, []byte("{")) {
		var not notValues
		err := json.Unmarshal(b, &not)
		v.not = not.Not
		return err
	}
	return json.Unmarshal(b, &v.in)
}

// EncodePlan returns the stored form of p.
func EncodePlan(p policy.Plan) []byte {
	s := storedPlan{Limit: &p.Limit, OnLimit: p.OnLimit, Count: p.Count, Require: p.Require, Needs: p.Needs()}
	for _, l := range p.Limits {
		stored := storedLimit{
			Name: l.Name, Count: l.Count, Per: l.Per, Limit: &l.Limit, OnLimit: l.OnLimit, Message: l.Message, Observe: l.Observe,
		}
		if len(l.Where) > 0 {
			stored.Where = make(map[policy.Attribute]storedValues, len(l.Where))
		}
		for _, c := range l.Where {
			stored.Where[c.Attribute] = storedValues{c.In, c.Not}
		}
		s.Limits = append(s.Limits, stored)
	}
	return Encode(s)
}

// EncodeOverride returns the stored form of o.
func EncodeOverride(o policy.Override) []byte {
	s := storedOverride{Limit: o.Limit, Plan: o.Plan, Until: o.Until.UTC(), Needs: o.Needs()}
	if len(o.Limits) > 0 {
		s.Limits = make(map[string]*int, len(o.Limits))
	}
	for name, n := range o.Limits {
		s.Limits[name] = &n
	}
	return Encode(s)
}

// DecodeUntil returns when a stored override ends; the zero time for one that does not end,
// and for a value that is not one. The override may have needs that this version does not
// support.
func DecodeUntil(value []byte) time.Time {
	var s struct {
		Until time.Time `json:"until"`
	}
	if json.Unmarshal(value, &s) != nil {
		return time.Time{}
	}
	return s.Until
}

// DecodePlan decodes a stored plan. It returns nil if value is not a valid plan, or one
// that needs what this version does not support.
func DecodePlan(value []byte) *policy.Plan {
	var s storedPlan
	if json.Unmarshal(value, &s) != nil || s.Limit == nil || !supported(s.Needs) {
		return nil
	}
	p := policy.Plan{Limit: *s.Limit, OnLimit: s.OnLimit, Count: s.Count}
	if len(s.Require) > 0 {
		p.Require = s.Require
	}
	for _, stored := range s.Limits {
		if stored.Limit == nil {
			return nil
		}
		l := policy.Limit{
			Name: stored.Name, Count: stored.Count, Per: stored.Per, Limit: *stored.Limit, OnLimit: stored.OnLimit,
			Message: stored.Message, Observe: stored.Observe,
		}
		for a, v := range stored.Where {
			l.Where = append(l.Where, policy.Condition{Attribute: a, In: v.in, Not: v.not})
		}
		p.Limits = append(p.Limits, l)
	}
	p = p.WithDefaults()
	if p.Validate() != nil {
		return nil
	}
	return &p
}

// DecodeOverride decodes a stored override. It returns nil if value is not a valid
// override, or one that needs what this version does not support.
func DecodeOverride(value []byte) *policy.Override {
	var s storedOverride
	if json.Unmarshal(value, &s) != nil || !supported(s.Needs) {
		return nil
	}
	o := policy.Override{Limit: s.Limit, Plan: s.Plan, Until: s.Until}
	if len(s.Limits) > 0 {
		o.Limits = make(map[string]int, len(s.Limits))
	}
	for name, n := range s.Limits {
		if n == nil {
			return nil
		}
		o.Limits[name] = *n
	}
	if o.Validate() != nil {
		return nil
	}
	return &o
}
