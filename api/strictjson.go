package api

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

const (
	maxDepth = 8
	// maxKeys is far above what any object of ours has, and keeps the search
	// for duplicates short.
	maxKeys = 32
)

// checkJSON refuses what encoding/json reads silently in one of several ways:
// the last of duplicate keys, keys that differ in case alone, bytes that are not
// UTF-8, lone halves of surrogate pairs, null for nothing. What it lets through
// means the same to every reader.
func checkJSON(body []byte) *problem {
	switch {
	case bytes.HasPrefix(body, []byte("\xef\xbb\xbf")):
		return malformed.problem("The body begins with a byte order mark. Send plain UTF-8.")
	case !utf8.Valid(body):
		return malformed.problem("The body is not UTF-8.")
	case !json.Valid(body):
		return malformed.problem("The body is not one well-formed JSON document.")
	case bytes.TrimLeft(body, " \t\r\n")[0] != '{':
		return invalid.problem("The body is not an object.").at("body", "expected object")
	}
	w := walker{rest: body}
	return w.walk()
}

// A walker goes through the tokens of a document that is known to be valid.
type walker struct {
	rest []byte
	open []level
}

// A level is an open object or array.
type level struct {
	object  bool
	keyNext bool
	keys    []string // seen so far, folded
}

func (w *walker) walk() *problem {
	for len(w.rest) > 0 {
		var p *problem
		switch c := w.rest[0]; c {
		case '{', '[':
			p = w.push(c == '{')
		case '}', ']':
			w.open = w.open[:len(w.open)-1]
			w.rest = w.rest[1:]
		case ',':
			w.top().keyNext = w.top().object
			w.rest = w.rest[1:]
		case '"':
			p = w.str()
		case 'n':
			p = invalid.problem("The body has a null. Leave the field out instead.").
				at("body", "expected no null")
		case ' ', '\t', '\r', '\n', ':', 't', 'r', 'u', 'e', 'f', 'a', 'l', 's':
			w.rest = w.rest[1:]
		default:
			p = w.number()
		}
		if p != nil {
			return p
		}
	}
	return nil
}

func (w *walker) top() *level { return &w.open[len(w.open)-1] }

func (w *walker) push(object bool) *problem {
	if len(w.open) == maxDepth {
		return malformed.problem("The body is nested deeper than any call here needs.")
	}
	w.open = append(w.open, level{object: object, keyNext: object})
	w.rest = w.rest[1:]
	return nil
}

// number refuses what no float64 holds, before encoding/json fails on it with
// the number in its message.
func (w *walker) number() *problem {
	n := bytes.IndexAny(w.rest, ",}] \t\r\n")
	if _, err := strconv.ParseFloat(string(w.rest[:n]), 64); err != nil {
		return invalid.problem("The body has a number that is out of range.").at("body", "number out of range")
	}
	w.rest = w.rest[n:]
	return nil
}

// str takes a string, which may be a key.
func (w *walker) str() *problem {
	end := 1
	for w.rest[end] != '"' {
		if w.rest[end] == '\\' {
			end++
		}
		end++
	}
	raw := w.rest[:end+1]
	w.rest = w.rest[end+1:]
	if bytes.IndexByte(raw, '\\') >= 0 && !soundEscapes(raw) {
		return invalid.problem("A string has \\u0000 or half of a surrogate pair.").
			at("body", "expected text without NUL and lone surrogates")
	}
	if !w.top().keyNext {
		return nil
	}
	return w.key(raw)
}

func (w *walker) key(raw []byte) *problem {
	top := w.top()
	top.keyNext = false
	var name string
	if err := json.Unmarshal(raw, &name); err != nil {
		return malformed.problem("The body has a key that cannot be read.")
	}
	name = fold(name)
	if slices.Contains(top.keys, name) {
		return malformed.problem("An object in the body has the same key twice, be it in another case.")
	}
	if len(top.keys) == maxKeys {
		return invalid.problem("An object in the body has more fields than any here.").
			at("body", "too many properties")
	}
	top.keys = append(top.keys, name)
	return nil
}

// soundEscapes reports whether every \u escape of a valid string stands for a
// character other than NUL.
func soundEscapes(raw []byte) bool {
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		i++
		if raw[i] != 'u' {
			continue
		}
		r := hex4(raw[i+1:])
		i += 4
		switch {
		case r == 0:
			return false
		case !utf16.IsSurrogate(r):
		case i+6 >= len(raw) || raw[i+1] != '\\' || raw[i+2] != 'u':
			return false
		case utf16.DecodeRune(r, hex4(raw[i+3:])) == unicode.ReplacementChar:
			return false
		default:
			i += 6
		}
	}
	return true
}

func hex4(b []byte) rune {
	n, err := strconv.ParseUint(string(b[:4]), 16, 16)
	if err != nil {
		return 0 // not reached: the document is valid
	}
	return rune(n)
}

// fold maps names that encoding/json takes for the same to one string.
func fold(name string) string {
	out := []rune(name)
	for i, r := range out {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				out[i] = next
				break
			}
			r = next
		}
	}
	return string(out)
}
