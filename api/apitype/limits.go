package apitype

import (
	"bytes"
	"encoding/json"
	"errors"
)

// A Limit is a named limit of a plan, in addition to the limit of the plan itself.
type Limit struct {
	Name    string `json:"name" maxLength:"32" doc:"1 to 32 characters of a-z 0-9 -, unique in the plan. \"total\" is the limit of the plan itself." example:"tv"`
	Where   Where  `json:"where,omitempty" doc:"The limit applies to the streams that fulfil all conditions; without conditions, to all streams."`
	Count   string `json:"count,omitempty" enum:"streams,devices,content,profiles,networks" doc:"What counts: each stream, or the distinct values of device.id, content.id, profile or network. A stream without the value counts separately. The default is streams."`
	Per     string `json:"per,omitempty" maxLength:"200" doc:"An attribute. Each of its values has the limit separately; the missing value is one of them." example:"profile"`
	Limit   int    `json:"limit" minimum:"0" maximum:"60" doc:"How many; 0 forbids the streams that fulfil the conditions." example:"1"`
	OnLimit string `json:"onLimit,omitempty" enum:"deny,replace-oldest,replace-lowest" doc:"Which streams a start with replace-oldest may end for this limit: none, the oldest, or the oldest of those with the lowest priority, if that is lower than its own. The default is deny."`
	Message string `json:"message,omitempty" maxLength:"200" doc:"A text for viewers whose start this limit rejects." example:"Only one TV at a time"`
	Observe bool   `json:"observe,omitempty" doc:"The limit rejects no start. Metrics count the starts that it would have rejected."`
}

// Where are the conditions of a limit, by the attribute of the stream that they refer to:
// device.id, device.type, content.id, content.type, content.labels, profile, network, region,
// or labels.KEY.
type Where map[string]Values

// Values is a condition on an attribute. Its JSON is a text, a list of texts, or an object
// with the member not. The text "" stands for a missing attribute.
type Values struct {
	In  []string // the attribute has one of these values
	Not []string // the attribute has none of these values
}

// notValues is the JSON of a condition with Not.
type notValues struct {
	Not oneOrMore `json:"not"`
}

// MarshalJSON writes a list, or an object with a list.
func (v Values) MarshalJSON() ([]byte, error) {
	if len(v.Not) > 0 {
		return json.Marshal(struct {
			Not []string `json:"not"`
		}{v.Not})
	}
	if v.In == nil {
		return []byte("[]"), nil
	}
	return json.Marshal(v.In)
}

// UnmarshalJSON reads all three forms.
func (v *Values) UnmarshalJSON(b []byte) error {
	*v = Values{}
	if b = bytes.TrimSpace(b); len(b) > 0 && b[0] == '{' {
		var not notValues
		d := json.NewDecoder(bytes.NewReader(b))
		d.DisallowUnknownFields()
		if err := d.Decode(&not); err != nil {
			return err
		}
		if v.Not = not.Not; v.Not == nil {
			return errors.New("a condition is a value, a list of values, or an object with the member not")
		}
		return nil
	}
	return (*oneOrMore)(&v.In).UnmarshalJSON(b)
}

// StreamIDs are the ids of streams. Their JSON is a text for one id, and otherwise a list.
type StreamIDs []string

// MarshalJSON writes one id as a text.
func (s StreamIDs) MarshalJSON() ([]byte, error) {
	if len(s) == 1 {
		return json.Marshal(s[0])
	}
	return json.Marshal([]string(s))
}

// UnmarshalJSON reads a text or a list. An empty text is no id.
func (s *StreamIDs) UnmarshalJSON(b []byte) error {
	if string(bytes.TrimSpace(b)) == `""` {
		*s = nil
		return nil
	}
	return (*oneOrMore)(s).UnmarshalJSON(b)
}

// oneOrMore is a text, or a list of texts.
type oneOrMore []string

func (o *oneOrMore) UnmarshalJSON(b []byte) error {
	if b = bytes.TrimSpace(b); len(b) > 0 && b[0] == '"' {
		*o = make(oneOrMore, 1)
		return json.Unmarshal(b, &(*o)[0])
	}
	return json.Unmarshal(b, (*[]string)(o))
}

// Labels are the labels of a stream, by key.
type Labels map[string]string

// MaxLabels is the maximum number of labels of a stream, and of its content.
const MaxLabels = 8

// A RefusingLimit is a limit that rejects a start.
type RefusingLimit struct {
	Name    string `json:"name" doc:"The name of the limit; \"total\" is the limit of the plan itself." example:"tv"`
	Limit   int    `json:"limit" example:"1"`
	Counted int    `json:"counted" doc:"What the user's streams count for toward this limit." example:"1"`
	Count   string `json:"count" doc:"What the limit counts." example:"streams"`
	Message string `json:"message,omitempty" doc:"A text for viewers." example:"Only one TV at a time"`
}
