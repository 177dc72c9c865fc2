package bulkend

import (
	"bytes"
	"strings"

	"streamcount/lease/policy"
)

// parts are texts of which a record must contain one of each list to fulfil the conditions.
// To search for them is much faster than to decode each record of a million streams.
type parts [][][]byte

// necessaryParts returns the parts of the conditions whose values are stored as they are.
func necessaryParts(where []policy.Condition) parts {
	var out parts
	for _, c := range where {
		var values [][]byte
		for _, v := range c.In {
			if !storedAsIs(v) {
				values = nil
				break
			}
			values = append(values, []byte(v))
		}
		if values != nil {
			out = append(out, values)
		}
	}
	return out
}

// storedAsIs reports whether no version writes an escape sequence for a character of the
// value. The empty value stands for a missing attribute, which is not stored.
func storedAsIs(value string) bool {
	return value != "" && !strings.ContainsFunc(value, func(c rune) bool {
		return c < ' ' || c > '~' || strings.ContainsRune(`"\<>&`, c)
	})
}

// in reports whether a record may fulfil the conditions.
func (p parts) in(record []byte) bool {
	for _, values := range p {
		found := false
		for _, v := range values {
			if found = bytes.Contains(record, v); found {
				break
			}
		}
		if !found {
			return false
		}
	}
	return true
}
