package openapi

import (
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"streamcount/api/apitype"
	"streamcount/lease/policy"
)

// RegisterSchemas adds the schemas of the types in package apitype that have several forms,
// or whose elements have bounds. Package apitype cannot state them, because it depends on the
// standard library alone.
func RegisterSchemas(schemas huma.Registry) {
	schemas.RegisterTypeAlias(reflect.TypeFor[apitype.StreamIDs](), reflect.TypeFor[streamIDs]())
	schemas.RegisterTypeAlias(reflect.TypeFor[apitype.Labels](), reflect.TypeFor[labels]())
	schemas.RegisterTypeAlias(reflect.TypeFor[apitype.Where](), reflect.TypeFor[where]())
	schemas.RegisterTypeAlias(reflect.TypeFor[apitype.Numbers](), reflect.TypeFor[numbers]())
}

const (
	maxText      = 200 // characters of an id, and of a value
	maxStreamIDs = 60
	maxValues    = 32
	maxWhere     = 8
	maxLabel     = 64
)

type (
	streamIDs struct{}
	labels    struct{}
	where     struct{}
	numbers   struct{}
)

// Schema implements huma.SchemaProvider.
func (streamIDs) Schema(huma.Registry) *huma.Schema {
	return oneOf(oneOrMore(maxStreamIDs)...)
}

// Schema implements huma.SchemaProvider.
func (labels) Schema(huma.Registry) *huma.Schema {
	return prepared(&huma.Schema{
		Type: huma.TypeObject, MaxProperties: new(apitype.MaxLabels), AdditionalProperties: text(1, maxLabel),
		Examples: []any{map[string]string{"tier": "free"}},
	})
}

// Schema implements huma.SchemaProvider.
func (where) Schema(huma.Registry) *huma.Schema {
	not := &huma.Schema{
		Type: huma.TypeObject, Properties: map[string]*huma.Schema{"not": oneOf(oneOrMore(maxValues)...)}, Required: []string{"not"},
		AdditionalProperties: false,
	}
	return prepared(&huma.Schema{
		Type: huma.TypeObject, MaxProperties: new(maxWhere), AdditionalProperties: oneOf(append(oneOrMore(maxValues), not)...),
		Examples: []any{map[string]any{"device.type": []string{"tv", "stb", ""}}},
	})
}

// Schema implements huma.SchemaProvider.
func (numbers) Schema(huma.Registry) *huma.Schema {
	return prepared(&huma.Schema{
		Type: huma.TypeObject, MaxProperties: new(policy.MaxLimits),
		AdditionalProperties: &huma.Schema{Type: huma.TypeInteger, Minimum: new(0.0), Maximum: new(float64(policy.MaxLimit))},
		Examples:             []any{map[string]int{"tv": 2}},
	})
}

func oneOrMore(most int) []*huma.Schema {
	return []*huma.Schema{text(0, maxText), {Type: huma.TypeArray, MaxItems: &most, Items: text(0, maxText)}}
}

func text(least, most int) *huma.Schema {
	s := &huma.Schema{Type: huma.TypeString, MaxLength: &most}
	if least > 0 {
		s.MinLength = &least
	}
	return s
}

func oneOf(forms ...*huma.Schema) *huma.Schema {
	for _, f := range forms {
		prepared(f)
	}
	return prepared(&huma.Schema{OneOf: forms})
}

// prepared returns s with its messages, which huma needs to validate values.
func prepared(s *huma.Schema) *huma.Schema {
	if s.Items != nil {
		prepared(s.Items)
	}
	for _, p := range s.Properties {
		prepared(p)
	}
	if values, ok := s.AdditionalProperties.(*huma.Schema); ok {
		prepared(values)
	}
	s.PrecomputeMessages()
	return s
}
