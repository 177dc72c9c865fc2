package policy

// CheckWhere returns a [*PlanError] if the conditions are invalid, as [Plan.Validate] does for
// those of a limit. No condition is an error, because it would select every stream. The
// locations of the errors begin with "where".
func CheckWhere(where []Condition) error {
	e := new(PlanError)
	if len(where) == 0 {
		e.add("where", "needs at least one condition: without conditions it would select every stream")
	}
	e.checkWhere("where", where)
	if len(e.Fields) == 0 {
		return nil
	}
	return e
}

// Selects reports whether a stream with the attributes fulfils all conditions.
func Selects(where []Condition, as *Attributes) bool {
	for i := range where {
		if !where[i].matches(as) {
			return false
		}
	}
	return true
}
