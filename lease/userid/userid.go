// Package userid has the rule for user ids, which servers and clients share.
package userid

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Max is the maximum number of bytes in a user id.
const Max = 128

// Rule describes a valid user id.
const Rule = "1 to 128 bytes of UTF-8 without control characters"

// Valid reports whether user is a valid user id. See [Rule].
func Valid(user string) bool { return Fault(user) == "" }

// Fault returns why user is not a valid user id, or "" if it is valid.
func Fault(user string) string {
	if user == "" {
		return "it is empty"
	}
	return PrefixFault(user)
}

// PrefixFault returns why no user id begins with prefix, or "" if one can.
func PrefixFault(prefix string) string {
	if len(prefix) > Max {
		return fmt.Sprintf("it has %d bytes, and may have %d", len(prefix), Max)
	}
	if !strings.ContainsFunc(prefix, func(r rune) bool { return r < ' ' || r > '~' }) {
		return ""
	}
	if !utf8.ValidString(prefix) {
		return "it is not UTF-8"
	}
	for i, r := range prefix {
		if unicode.IsControl(r) {
			return fmt.Sprintf("it has a control character, U+%04X, at byte %d", r, i)
		}
	}
	return ""
}
