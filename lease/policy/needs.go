package policy

import "slices"

// NeedLimits is the need of a plan with several limits.
const NeedLimits = "limits"

// SupportedNeeds returns the needs of rules that this version supports. A need names what a
// version must implement to apply a rule. A rule is stored with its needs, and a node is
// registered with those that it supports.
func SupportedNeeds() []string { return []string{NeedLimits} }

// Needs returns what a version must support to apply p; nil for a plan that every version
// can apply.
func (p Plan) Needs() []string {
	if p.HasSeveralLimits() {
		return []string{NeedLimits}
	}
	return nil
}

// Needs returns what a version must support to apply o, as [Plan.Needs] does.
func (o Override) Needs() []string { return nil }

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
