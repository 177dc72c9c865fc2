package policy

import (
	"errors"
	"fmt"
	"unicode"
	"unicode/utf8"
)

// Maximum sizes of the attributes of a start. They are stored in etcd and in the memory of
// every node.
const (
	MaxLabels     = 8   // labels, and labels of the content
	MaxLabelValue = 64  // characters of a label, of a label of the content, and of a content type
	MaxLabelBytes = 512 // of all labels together, with their keys
	MaxProfile    = 200 // characters of a profile, and of a network
)

var (
	// ErrBadAttributes means that an attribute of a start is invalid. The error is an
	// [*AttributeError].
	ErrBadAttributes = errors.New("lease: bad attribute of a start")
	// ErrMissingAttributes means that the user's plan requires attributes that the start
	// does not state. The error is a [*MissingAttributesError].
	ErrMissingAttributes = errors.New("lease: the plan requires attributes that the start does not state")
)

// An AttributeError says which attribute of a start is invalid. It is an
// [ErrBadAttributes].
type AttributeError struct {
	Member  string // for example "labels.tier"
	Problem string
}

func (e *AttributeError) Error() string {
	return fmt.Sprintf("%v: %s: %s", ErrBadAttributes, e.Member, e.Problem)
}

// Unwrap makes an AttributeError an [ErrBadAttributes].
func (e *AttributeError) Unwrap() error { return ErrBadAttributes }

// A MissingAttributesError names the attributes that a start must state. It is an
// [ErrMissingAttributes].
type MissingAttributesError struct{ Missing []Attribute }

func (e *MissingAttributesError) Error() string {
	return fmt.Sprintf("%v: %q", ErrMissingAttributes, e.Missing)
}

// Unwrap makes a MissingAttributesError an [ErrMissingAttributes].
func (e *MissingAttributesError) Unwrap() error { return ErrMissingAttributes }

// StartAttributes are the attributes that a start states for plans with several limits, in addition to
// the device and the id of the content. All fields are optional. They are stored under any
// plan, because a plan with several limits may apply later.
type StartAttributes struct {
	Profile       string
	Network       string // an opaque text that is the same for all devices on a network
	ContentType   string
	ContentLabels []string
	Labels        map[string]string // by the calling service
	Priority      *int              // 0 to [MaxPriority]; nil means [DefaultPriority]
}

// Empty reports whether no field is set.
func (as *StartAttributes) Empty() bool {
	return as.Profile == "" && as.Network == "" && as.ContentType == "" && len(as.ContentLabels) == 0 &&
		len(as.Labels) == 0 && as.Priority == nil
}

// Validate returns an [*AttributeError] if an attribute is invalid.
func (as *StartAttributes) Validate() error {
	for _, text := range []struct {
		member, value string
		limit         int
	}{
		{"profile", as.Profile, MaxProfile}, {"network", as.Network, MaxProfile}, {"content.type", as.ContentType, MaxLabelValue},
	} {
		if text.value != "" {
			if err := checkText(text.member, text.value, text.limit); err != nil {
				return err
			}
		}
	}
	if as.Priority != nil && (*as.Priority < 0 || *as.Priority > MaxPriority) {
		return &AttributeError{"priority", fmt.Sprintf("%d is not between 0 and %d", *as.Priority, MaxPriority)}
	}
	return as.validateLabels()
}

func (as *StartAttributes) validateLabels() error {
	size := 0
	if len(as.ContentLabels) > MaxLabels {
		return &AttributeError{"content.labels", fmt.Sprintf("more than %d labels", MaxLabels)}
	}
	for i, label := range as.ContentLabels {
		if err := checkText(fmt.Sprintf("content.labels[%d]", i), label, MaxLabelValue); err != nil {
			return err
		}
		size += len(label)
	}
	if len(as.Labels) > MaxLabels {
		return &AttributeError{"labels", fmt.Sprintf("more than %d labels", MaxLabels)}
	}
	for key, value := range as.Labels {
		if !ValidLabelKey(key) {
			return &AttributeError{"labels", fmt.Sprintf("a key has 1 to %d characters of A-Z a-z 0-9 . _ -", MaxLabelKey)}
		}
		if err := checkText("labels."+key, value, MaxLabelValue); err != nil {
			return err
		}
		size += len(key) + len(value)
	}
	if size > MaxLabelBytes {
		return &AttributeError{"labels", fmt.Sprintf("all labels together have %d bytes, more than %d", size, MaxLabelBytes)}
	}
	return nil
}

// checkText returns an [*AttributeError] unless value has 1 to limit characters, and no
// control characters.
func checkText(member, value string, limit int) error {
	if !utf8.ValidString(value) {
		return &AttributeError{member, "not UTF-8"}
	}
	if n := utf8.RuneCountInString(value); n == 0 || n > limit {
		return &AttributeError{member, fmt.Sprintf("does not have 1 to %d characters", limit)}
	}
	for _, c := range value {
		if unicode.IsControl(c) {
			return &AttributeError{member, "contains a control character"}
		}
	}
	return nil
}
