package policy

import "slices"

// The needs of rules.
const (
	NeedLimits     = "limits"      // of a plan with several limits
	NeedUserLimits = "user-limits" // of an override with limits by name
	NeedUntil      = "until"       // of an override that ends
)

// SupportedNeeds returns the needs of rules that this version supports. A need names what a
// version must implement to apply a rule. A rule is stored with its needs, and a node is
// registered with those that it supports.
func SupportedNeeds() []string { return []string{NeedLimits, NeedUserLimits, NeedUntil} }

// Needs returns what a version must support to apply p; nil for a plan that every version
// can apply.
func (p Plan) Needs() []string {
	if p.HasSeveralLimits() {
		return []string{NeedLimits}
	}
	return nil
}

// Needs returns what a version must support to apply o, as [Plan.Needs] does.
func (o Override) Needs() []string {
	var needs []string
	if len(o.Limits) > 0 {
		needs = append(needs, NeedUserLimits)
	}
	if !o.Until.IsZero() {
		needs = append(needs, NeedUntil)
	}
	return needs
}

// MissingNeeds returns the needs that supported does not contain.
func MissingNeeds(needs, supported []string) []string {
	var missing []string
	for _, need := range needs {
		if !slices.Contains(supported, need) {
			missing = append(missing, need)
		}
	}
	return missing
}
