package profile

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A template is a pattern of normalised paths, such as /vod/{content}/{file...}.
type template []segment

// A segment is a literal or a variable. A variable matches one segment that is not empty; the
// rest matches everything to the end of the path, which may be nothing.
type segment struct {
	literal string
	name    string // of the variable; "" for a literal
	rest    bool
}

var variable = regexp.MustCompile(`^\{([A-Za-z_][A-Za-z0-9_]*)(\.\.\.)?\}$`)

func parseTemplate(text string) (template, error) {
	switch {
	case !strings.HasPrefix(text, "/"):
		return nil, errors.New("want a path that begins with /")
	case strings.ContainsAny(text, "?#%\\"):
		return nil, errors.New(`want a path without ? # % \: write the characters themselves in place of %XX`)
	case strings.ContainsFunc(text, unicode.IsControl) || !utf8.ValidString(text):
		return nil, errors.New("it has a character that no path may have")
	}
	parts := strings.Split(text[1:], "/")
	var t template
	for i, part := range parts {
		s := segment{literal: part}
		last := i == len(parts)-1
		if m := variable.FindStringSubmatch(part); m != nil {
			s = segment{name: m[1], rest: m[2] != ""}
		}
		switch {
		case s.name == "" && strings.ContainsAny(part, "{}"):
			return nil, fmt.Errorf("%q: want {name} or {name...}, alone between two slashes", part)
		case part == "." || part == ".." || part == "" && !last:
			return nil, errors.New("it has an empty segment, . or .., which are never in the path that is compared")
		case s.rest && !last:
			return nil, fmt.Errorf("{%s...} must be at the end", s.name)
		case s.name != "" && t.has(s.name):
			return nil, fmt.Errorf("{%s} is there twice", s.name)
		}
		t = append(t, s)
	}
	return t, nil
}

// has reports whether t has a variable of that name.
func (t template) has(name string) bool {
	return slices.ContainsFunc(t, func(s segment) bool { return s.name == name })
}

// match reports whether a normalised path matches t.
func (t template) match(path string) bool {
	left, more := path[1:], true
	for _, s := range t {
		if !more {
			return false
		}
		if s.rest {
			return true
		}
		var part string
		part, left, more = strings.Cut(left, "/")
		if s.name == "" && part != s.literal || s.name != "" && part == "" {
			return false
		}
	}
	return !more
}

// value returns the value of a variable in a path that matches t; "" if t does not have it.
func (t template) value(path, name string) string {
	left := path[1:]
	for _, s := range t {
		if s.rest {
			if s.name == name {
				return left
			}
			break
		}
		var part string
		part, left, _ = strings.Cut(left, "/")
		if s.name == name {
			return part
		}
	}
	return ""
}

// normalise decodes the percent-encoding of a path, merges slashes and resolves dot segments,
// as web servers do before they choose a file. It returns why a path cannot be read, or "".
//
// A path with an encoded separator or a control character is not read, because servers differ
// in what they make of it.
func normalise(raw string) (path, fault string) {
	if !strings.HasPrefix(raw, "/") {
		return "", "it does not begin with /"
	}
	decoded, fault := unescape(raw)
	switch {
	case fault != "":
		return "", fault
	case !utf8.ValidString(decoded):
		return "", "it is not UTF-8"
	case !strings.Contains(decoded, "//") && !strings.Contains(decoded, "/."):
		return decoded, ""
	}
	out := make([]byte, 0, len(decoded))
	left, more := decoded[1:], true
	for more {
		var part string
		part, left, more = strings.Cut(left, "/")
		switch part {
		case "", ".":
		case "..":
			out = out[:max(0, bytes.LastIndexByte(out, '/'))]
		default:
			out = append(append(out, '/'), part...)
			continue
		}
		if !more {
			out = append(out, '/')
		}
	}
	return string(out), ""
}

// unescape decodes the percent-encoding of a path.
func unescape(raw string) (decoded, fault string) {
	if fault := faultOf(raw); fault != "" || !strings.Contains(raw, "%") {
		return raw, fault
	}
	out := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c == '%' {
			if i+2 >= len(raw) || !isHex(raw[i+1]) || !isHex(raw[i+2]) {
				return "", "it has a % that is not followed by two hexadecimal digits"
			}
			c = fromHex(raw[i+1])<<4 | fromHex(raw[i+2])
			if c == '/' || c == '\\' || c < ' ' || c == 0x7f {
				return "", fmt.Sprintf("it has %%%02X: encoded slashes, backslashes and control characters are not allowed", c)
			}
			i += 2
		}
		out = append(out, c)
	}
	return string(out), ""
}

// faultOf returns which character that is not encoded may not be in a path, or "".
func faultOf(raw string) string {
	for i := range len(raw) {
		if c := raw[i]; c <= ' ' || c == 0x7f || c == '\\' {
			return "it has a space, a backslash or a control character that is not encoded"
		}
	}
	return ""
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

func fromHex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}

// matchGlob reports whether text matches a pattern in which * is any text, also with slashes.
func matchGlob(pattern, text string) bool {
	first, left, more := strings.Cut(pattern, "*")
	if !more {
		return pattern == text
	}
	if !strings.HasPrefix(text, first) {
		return false
	}
	text = text[len(first):]
	for {
		var part string
		part, left, more = strings.Cut(left, "*")
		if !more {
			return strings.HasSuffix(text, part)
		}
		at := strings.Index(text, part)
		if at < 0 {
			return false
		}
		text = text[at+len(part):]
	}
}
