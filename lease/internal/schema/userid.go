package schema

import (
	"errors"
	"strconv"
	"strings"

	"streamcount/lease/userid"
)

// ErrBadUserID means that a user id is not valid. See [userid.Rule].
var ErrBadUserID = errors.New("lease: malformed user id")

// unescapedByte says which bytes of a user id are the same in keys. Every other byte
// becomes %XX, so that no id contains a slash in a key and no user's prefix contains
// another's. The percent sign is escaped too.
var unescapedByte = func() (plain [256]bool) {
	for c := range plain {
		plain[c] = 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("._~@:|+=-", byte(c)) >= 0
	}
	return plain
}()

// escapeUserID returns the form of a user id in keys.
func escapeUserID(user string) string {
	odd := 0
	for i := range len(user) {
		if !unescapedByte[user[i]] {
			odd++
		}
	}
	if odd == 0 {
		return user
	}
	const digits = "0123456789ABCDEF"
	out := make([]byte, 0, len(user)+2*odd)
	for i := range len(user) {
		if c := user[i]; unescapedByte[c] {
			out = append(out, c)
		} else {
			out = append(out, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(out)
}

// UnescapeUserID is the inverse of escapeUserID. It reports false for a text that
// escapeUserID does not return: such a key belongs to no user.
func UnescapeUserID(part string) (user string, ok bool) {
	plain := true
	for i := range len(part) {
		plain = plain && unescapedByte[part[i]]
	}
	if plain {
		return part, true
	}
	out := make([]byte, 0, len(part))
	for i := 0; i < len(part); i++ {
		c := part[i]
		if c == '%' && i+2 < len(part) {
			n, err := strconv.ParseUint(part[i+1:i+3], 16, 8)
			if err != nil {
				return "", false
			}
			c = byte(n)
			i += 2
		}
		out = append(out, c)
	}
	user = string(out)
	return user, userid.Valid(user) && escapeUserID(user) == part // not %41, %2f or a lone percent sign
}
