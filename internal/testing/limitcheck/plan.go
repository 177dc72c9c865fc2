package limitcheck

import (
	"bytes"
	"encoding/json"
	"slices"
)

// A Plan is a plan in the form that the API accepts, which is also the stored form.
type Plan struct {
	Limit   int     `json:"limit"`
	OnLimit string  `json:"onLimit,omitempty"`
	Count   string  `json:"count,omitempty"`
	Limits  []Limit `json:"limits,omitempty"`
}

// A Limit is a named limit of a plan.
type Limit struct {
	Name    string            `json:"name"`
	Where   map[string]Values `json:"where,omitempty"` // by attribute
	Count   string            `json:"count,omitempty"`
	Per     string            `json:"per,omitempty"`
	Limit   int               `json:"limit"`
	OnLimit string            `json:"onLimit,omitempty"`
	Observe bool              `json:"observe,omitempty"`
}

// Values are those of a condition. One of the lists is empty.
type Values struct{ In, Not []string }

type notValues struct {
	Not []string `json:"not"`
}

// MarshalJSON implements [json.Marshaler].
func (v Values) MarshalJSON() ([]byte, error) {
	if len(v.Not) > 0 {
		return json.Marshal(notValues{v.Not})
	}
	return json.Marshal(v.In)
}

// UnmarshalJSON implements [json.Unmarshaler].
func (v *Values) UnmarshalJSON(b []byte) error {
	*v = Values{}
	if !bytes.HasPrefix(b, []byte("{")) {
		return json.Unmarshal(b, &v.In)
	}
	var not notValues
	err := json.Unmarshal(b, &not)
	v.Not = not.Not
	return err
}

// The values of OnLimit and Count that the checks treat differently from the defaults.
const (
	replaceOldest = "replace-oldest"
	replaceLowest = "replace-lowest"
)

// countedAttribute are the attributes whose distinct values the values of Count count.
var countedAttribute = map[string]string{
	"content": "content.id", "devices": "device.id", "profiles": "profile", "networks": "network",
}

// Attributes are the properties of a stream that limits refer to.
type Attributes struct {
	Values   map[string][]string // by attribute; a missing attribute has no values
	Priority int
}

// values returns the values of an attribute. Those of a missing attribute are the empty text.
func (as Attributes) values(attribute string) []string {
	if vs := as.Values[attribute]; len(vs) > 0 {
		return vs
	}
	return []string{""}
}

// first returns the value of an attribute with a single value.
func (as Attributes) first(attribute string) string { return as.values(attribute)[0] }

// matches reports whether a stream fulfils all conditions of the limit.
func (l Limit) matches(as Attributes) bool {
	for attribute, c := range l.Where {
		in, not := false, false
		for _, v := range as.values(attribute) {
			in = in || slices.Contains(c.In, v)
			not = not || slices.Contains(c.Not, v)
		}
		if len(c.In) > 0 && !in || not {
			return false
		}
	}
	return true
}

// counts reports whether stream s counts for the limit, as it applies to a new stream.
func (l Limit) counts(s, newest *Stream) bool {
	return l.matches(s.Attributes) && (l.Per == "" || s.first(l.Per) == newest.first(l.Per))
}

// unit returns the same value for two streams that count once.
func (l Limit) unit(s *Stream) any {
	if a := countedAttribute[l.Count]; a != "" && s.first(a) != "" {
		return s.first(a)
	}
	return s
}

// number returns what a set of streams counts for.
func (l Limit) number(set []*Stream, newest *Stream) int {
	units := map[any]bool{}
	for _, s := range set {
		if l.counts(s, newest) {
			units[l.unit(s)] = true
		}
	}
	return len(units)
}

// evicts reports whether a start may request that streams end for the limit.
func (l Limit) evicts() bool { return l.OnLimit == replaceOldest || l.OnLimit == replaceLowest }

// all returns all limits of the plan. The first is the plan's own, with another limit in
// place of that of the plan unless it is negative. The second is that of the number of
// streams however they are counted.
func (p Plan) all(instead int) []Limit {
	const maxStreams = 60
	total := Limit{Name: "total", Count: p.Count, Limit: p.Limit, OnLimit: p.OnLimit}
	if instead >= 0 {
		total.Limit = instead
	}
	number := Limit{Name: "total", Limit: maxStreams, OnLimit: p.OnLimit}
	return append([]Limit{total, number}, p.Limits...)
}

// oldestEnds reports whether a start ends the oldest streams, whatever their priority is.
// Under a plan with several limits the priority decides first.
func (p Plan) oldestEnds() bool { return len(p.Limits) == 0 && p.OnLimit != replaceLowest }
