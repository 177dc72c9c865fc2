package policy

import (
	"slices"
	"strings"
)

// An Attribute is the name of a property of a stream that limits may refer to: one of the
// constants, or "labels." and the key of a label.
type Attribute string

// The attributes, except labels.
const (
	AttrDeviceID      Attribute = "device.id"
	AttrDeviceType    Attribute = "device.type"
	AttrContentID     Attribute = "content.id"
	AttrContentType   Attribute = "content.type"
	AttrContentLabels Attribute = "content.labels" // the only one with several values
	AttrProfile       Attribute = "profile"
	AttrNetwork       Attribute = "network"
	AttrRegion        Attribute = "region"
)

var allAttributes = []Attribute{
	AttrDeviceID, AttrDeviceType, AttrContentID, AttrContentType, AttrContentLabels, AttrProfile, AttrNetwork, AttrRegion,
}

const labelPrefix = "labels."

// The priorities of streams. A higher number is more important.
const (
	MaxPriority     = 9
	DefaultPriority = 5
)

// MaxLabelKey is the maximum length of the key of a label.
const MaxLabelKey = 32

// ValidLabelKey reports whether key is a valid key of a label: 1 to [MaxLabelKey]
// characters of A-Z a-z 0-9 . _ -.
func ValidLabelKey(key string) bool { return len(key) <= MaxLabelKey && ValidPlan(key) }

// valid reports whether a is an attribute.
func (a Attribute) valid() bool {
	if key, ok := strings.CutPrefix(string(a), labelPrefix); ok {
		return ValidLabelKey(key)
	}
	return slices.Contains(allAttributes, a)
}

// Attributes are the properties of a stream that limits may refer to. They do not change
// while the stream runs. An empty text means that the attribute is missing.
type Attributes struct {
	DeviceID, DeviceType   string
	ContentID, ContentType string
	ContentLabels          []string
	Profile                string
	Network                string
	Region                 string
	Labels                 map[string]string
	Priority               int // 0 to [MaxPriority]
}

// noAttributes are those of a key that streamcount did not write.
var noAttributes = Attributes{Priority: DefaultPriority}

// value returns the value of an attribute with a single value.
func (as *Attributes) value(a Attribute) string {
	switch a {
	case AttrDeviceID:
		return as.DeviceID
	case AttrDeviceType:
		return as.DeviceType
	case AttrContentID:
		return as.ContentID
	case AttrContentType:
		return as.ContentType
	case AttrProfile:
		return as.Profile
	case AttrNetwork:
		return as.Network
	case AttrRegion:
		return as.Region
	}
	return as.Labels[strings.TrimPrefix(string(a), labelPrefix)]
}

// has reports whether the attribute is present.
func (as *Attributes) has(a Attribute) bool {
	if a == AttrContentLabels {
		return len(as.ContentLabels) > 0
	}
	return as.value(a) != ""
}

// A Condition selects streams by one attribute. Exactly one of In and Not is not empty.
// The text "" in a list stands for a missing attribute.
type Condition struct {
	Attribute Attribute
	In        []string // the value is one of these; one of several values is enough
	Not       []string // the value is not one of these; with several values, no value may be
}

func (c Condition) equal(d Condition) bool {
	return c.Attribute == d.Attribute && slices.Equal(c.In, d.In) && slices.Equal(c.Not, d.Not)
}

// matches reports whether a stream with the attributes fulfils the condition.
func (c Condition) matches(as *Attributes) bool {
	list, want := c.In, true
	if len(list) == 0 {
		list, want = c.Not, false
	}
	if c.Attribute != AttrContentLabels {
		return slices.Contains(list, as.value(c.Attribute)) == want
	}
	if len(as.ContentLabels) == 0 {
		return slices.Contains(list, "") == want
	}
	return slices.ContainsFunc(as.ContentLabels, func(label string) bool { return slices.Contains(list, label) }) == want
}
