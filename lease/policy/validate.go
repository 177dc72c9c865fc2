package policy

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A PlanError says which members of a plan or an override are invalid. It is an
// [ErrBadRule].
type PlanError struct{ Fields []FieldError }

// A FieldError says what is wrong with one member.
type FieldError struct {
	Location string // in the rule, for example "limits[1].where.device.typ"
	Problem  string
}

// maxFieldErrors is the maximum number of members in a PlanError.
const maxFieldErrors = 20

func (e *PlanError) Error() string {
	var b strings.Builder
	b.WriteString(ErrBadRule.Error())
	for i, f := range e.Fields {
		b.WriteString([]string{": ", "; "}[min(i, 1)])
		fmt.Fprintf(&b, "%s: %s", f.Location, f.Problem)
	}
	return b.String()
}

// Unwrap makes a PlanError an [ErrBadRule].
func (e *PlanError) Unwrap() error { return ErrBadRule }

func (e *PlanError) add(location, format string, args ...any) {
	if len(e.Fields) < maxFieldErrors {
		e.Fields = append(e.Fields, FieldError{location, fmt.Sprintf(format, args...)})
	}
}

// validateLimits returns a [*PlanError] if Limits or Require are invalid.
func (p Plan) validateLimits() error {
	e := new(PlanError)
	if len(p.Limits) > MaxLimits {
		e.add("limits", "%d limits are more than %d", len(p.Limits), MaxLimits)
	}
	if len(p.Require) > MaxLimits {
		e.add("require", "%d attributes are more than %d", len(p.Require), MaxLimits)
	}
	for i, a := range p.Require[:min(len(p.Require), MaxLimits)] {
		location := fmt.Sprintf("require[%d]", i)
		e.checkAttribute(location, a)
		if slices.Contains(p.Require[:i], a) {
			e.add(location, "%q is in the list twice", a)
		}
	}
	names := make(map[string]bool)
	text := 0
	for i, l := range p.Limits[:min(len(p.Limits), MaxLimits)] {
		location := fmt.Sprintf("limits[%d]", i)
		if names[l.Name] {
			e.add(location+".name", "another limit has the name %q", l.Name)
		}
		names[l.Name] = true
		e.checkLimit(location, l)
		text += l.textSize()
	}
	if text > maxPlanText {
		e.add("limits", "the texts have %d bytes, more than %d", text, maxPlanText)
	}
	return e.orNil()
}

// textSize returns the number of bytes of the limit's texts.
func (l Limit) textSize() int {
	n := len(l.Message)
	for _, c := range l.Where {
		for _, v := range slices.Concat(c.In, c.Not) {
			n += len(v)
		}
	}
	return n
}

func (e *PlanError) checkLimit(at string, l Limit) {
	switch {
	case l.Name == TotalLimit:
		e.add(at+".name", "%q is the limit of the plan itself", TotalLimit)
	case !validLimitName(l.Name):
		e.add(at+".name", "a name has 1 to %d characters of a-z 0-9 -", MaxLimitName)
	}
	if l.Limit < 0 || l.Limit > MaxLimit {
		e.add(at+".limit", "%d is not between 0 and %d", l.Limit, MaxLimit)
	}
	switch l.OnLimit {
	case "", Deny:
	case ReplaceOldest, ReplaceLowest:
		if l.Limit == 0 {
			e.add(at+".onLimit", "a limit of 0 cannot replace a stream: use %s", Deny)
		}
	default:
		e.add(at+".onLimit", "none of %s, %s, %s", Deny, ReplaceOldest, ReplaceLowest)
	}
	switch l.Count {
	case "", CountStreams, CountContent, CountDevices, CountProfiles, CountNetworks:
	default:
		e.add(at+".count", "none of %s, %s, %s, %s, %s", CountStreams, CountDevices, CountContent, CountProfiles, CountNetworks)
	}
	if l.Per != "" {
		e.checkAttribute(at+".per", l.Per)
		switch {
		case l.Per == AttrContentLabels:
			e.add(at+".per", "%s may have several values", AttrContentLabels)
		case l.Per == l.Count.attribute():
			e.add(at+".per", "the limit counts %s, of which each value of %s has one", l.Count, l.Per)
		}
	}
	if utf8.RuneCountInString(l.Message) > MaxMessage {
		e.add(at+".message", "more than %d characters", MaxMessage)
	} else if !printable(l.Message) {
		e.add(at+".message", "contains a control character, or is not UTF-8")
	}
	e.checkWhere(at+".where", l.Where)
}

func (e *PlanError) checkWhere(at string, where []Condition) {
	if len(where) > MaxConditions {
		e.add(at, "%d conditions are more than %d", len(where), MaxConditions)
		return
	}
	for i, c := range where {
		at := at + "." + string(c.Attribute)
		e.checkAttribute(at, c.Attribute)
		if slices.ContainsFunc(where[:i], func(d Condition) bool { return d.Attribute == c.Attribute }) {
			e.add(at, "two conditions have this attribute")
		}
		values := slices.Concat(c.In, c.Not)
		switch {
		case len(c.In) > 0 && len(c.Not) > 0:
			e.add(at, "has values and not: use one of them")
		case len(values) == 0:
			e.add(at, "the list is empty")
		case len(values) > MaxValues:
			e.add(at, "%d values are more than %d", len(values), MaxValues)
		}
		if slices.ContainsFunc(values, func(v string) bool { return utf8.RuneCountInString(v) > MaxValue || !printable(v) }) {
			e.add(at, "a value has at most %d characters, and no control characters", MaxValue)
		}
	}
}

func (e *PlanError) checkAttribute(at string, a Attribute) {
	if a.valid() {
		return
	}
	if near := a.suggestion(); near != "" {
		e.add(at, "no such attribute; %s?", near)
		return
	}
	e.add(at, "no such attribute; the attributes are %s and labels.KEY", joinAttributes(allAttributes))
}

func joinAttributes(as []Attribute) string {
	var texts []string
	for _, a := range as {
		texts = append(texts, string(a))
	}
	return strings.Join(texts, ", ")
}

// suggestion returns the attribute that an author may have meant, or "".
func (a Attribute) suggestion() Attribute {
	const maxChanges = 2
	best, changes := Attribute(""), maxChanges+1
	if len(a) > 2*MaxLabelKey {
		return ""
	}
	for _, b := range allAttributes {
		if n := editDistance(strings.ToLower(string(a)), string(b)); n < changes {
			best, changes = b, n
		}
	}
	if prefix, key, ok := strings.Cut(string(a), "."); ok && best == "" && ValidLabelKey(key) &&
		editDistance(strings.ToLower(prefix)+".", labelPrefix) <= maxChanges {
		return Attribute(labelPrefix + key)
	}
	return best
}

// editDistance returns the number of bytes to insert, remove or replace to make a equal
// to b.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			n := diagonal
			if a[i] != b[j] {
				n = 1 + min(diagonal, row[j], row[j+1])
			}
			diagonal, row[j+1] = row[j+1], n
		}
	}
	return row[len(b)]
}

func validLimitName(name string) bool {
	return name != "" && len(name) <= MaxLimitName && strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == ""
}

func printable(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}
