// Package strictjson checks JSON bodies against their schemas before encoding/json decodes
// them. It rejects what readers of JSON take in different ways: duplicate names, names that
// differ only in case, bytes that are not UTF-8, and unpaired surrogates. It counts the
// items of lists and the members of maps before anything is allocated for them, so that a
// body costs no more than its schema allows. What it leaves to the validation of the
// schema, such as the length of strings, costs no more than the value itself.
package strictjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/go-json-experiment/json/jsontext"
)

// ByteOrderMark is what some editors and libraries put before UTF-8 text.
const ByteOrderMark = "\xef\xbb\xbf"

// An Error is the first fault that [Check] finds in a body.
type Error struct {
	// Malformed says why the body is not one JSON document with one meaning. It is "" if
	// the body is, but does not match the schema.
	Malformed string
	Location  string // where in the body, such as body.device.name; it may contain names of the client's choice
	Message   string // what is expected there
}

// Check checks a body against its schema, and returns what to decode: the body without
// members that have no effect, which are null members, and unknown members of objects that
// may have them.
func Check(body []byte, schema *huma.Schema, schemas huma.Registry) ([]byte, *Error) {
	body = bytes.TrimPrefix(body, []byte(ByteOrderMark))
	switch {
	case !utf8.Valid(body):
		return nil, &Error{"The body is not UTF-8.", "body", "expected UTF-8"}
	case !json.Valid(body):
		return nil, &Error{"The body is not one well-formed JSON document.", "body", "expected JSON"}
	}
	c := checker{
		// The checker compares names itself, and some strings may have unpaired surrogates.
		dec: jsontext.NewDecoder(bytes.NewBuffer(body), jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true)),
		out: make([]byte, 0, len(body)), schemas: schemas, path: []string{"body"},
	}
	if err := c.value(schema); err != nil {
		return nil, err
	}
	return c.out, nil
}

// A checker reads a valid document, and writes what is to be decoded of it.
type checker struct {
	dec     *jsontext.Decoder
	out     []byte
	schemas huma.Registry
	path    []string // of the value that is being read
}

func (c *checker) value(schema *huma.Schema) *Error {
	for schema.Ref != "" {
		schema = c.schemas.SchemaFromRef(schema.Ref)
	}
	kind := c.dec.PeekKind()
	if schema.OneOf != nil {
		form := formOf(schema, kind)
		if form == nil {
			return c.invalid("expected " + formNames(schema))
		}
		schema = form
	}
	switch {
	case kind == '{' && schema.Type == huma.TypeObject:
		return c.object(schema)
	case kind == '[' && schema.Type == huma.TypeArray:
		return c.array(schema)
	case kind == '{', kind == '[', kind == 'n', schema.Type == huma.TypeObject, schema.Type == huma.TypeArray:
		return c.invalid("expected " + schema.Type)
	}
	raw, err := c.dec.ReadValue()
	switch {
	case err != nil:
		return c.malformed()
	case kind == '"' && !isLabel(schema):
		if _, ok := unquote(raw); !ok {
			return c.invalid(badText)
		}
	case kind == '0': // any number
		if _, err := strconv.ParseFloat(string(raw), 64); err != nil {
			return c.invalid("number out of range")
		}
	}
	c.out = append(c.out, raw...)
	return nil
}

// formOf returns the schema for a value of that kind out of one with several forms, each of
// another type; nil if there is none.
func formOf(schema *huma.Schema, kind jsontext.Kind) *huma.Schema {
	types := map[jsontext.Kind]string{'{': huma.TypeObject, '[': huma.TypeArray, '"': huma.TypeString}
	for _, form := range schema.OneOf {
		if form.Type == types[kind] {
			return form
		}
	}
	return nil
}

func formNames(schema *huma.Schema) string {
	var names []string
	for _, form := range schema.OneOf {
		names = append(names, form.Type)
	}
	return strings.Join(names, " or ")
}

// isLabel reports whether a schema is that of a text for people. Such a text has neither a
// maximum nor a list of values, as all others have: the handler shortens and cleans it.
func isLabel(schema *huma.Schema) bool {
	return schema.Type == huma.TypeString && schema.MaxLength == nil && len(schema.Enum) == 0
}

func (c *checker) array(schema *huma.Schema) *Error {
	last := len(c.path) - 1
	name := c.path[last]
	defer func() { c.path[last] = name }()
	if _, err := c.dec.ReadToken(); err != nil {
		return c.malformed()
	}
	c.out = append(c.out, '[')
	for n := 0; c.dec.PeekKind() != ']'; n++ {
		if schema.MaxItems != nil && n == *schema.MaxItems {
			c.path[last] = name
			return c.invalid(fmt.Sprintf("expected array length <= %d", n))
		}
		if n > 0 {
			c.out = append(c.out, ',')
		}
		c.path[last] = fmt.Sprintf("%s[%d]", name, n)
		if err := c.value(schema.Items); err != nil {
			return err
		}
	}
	return c.end(']')
}

// object reads an object with the members of a schema, or a map, whose members have names
// of the client's choice.
func (c *checker) object(schema *huma.Schema) *Error {
	values, isMap := schema.AdditionalProperties.(*huma.Schema)
	seen := map[string]bool{}
	if _, err := c.dec.ReadToken(); err != nil {
		return c.malformed()
	}
	c.out = append(c.out, '{')
	for begin := len(c.out); c.dec.PeekKind() != '}'; {
		raw, err := c.dec.ReadValue()
		if err != nil {
			return c.malformed()
		}
		name, ok := unquote(raw)
		if !ok && schema.AdditionalProperties != true {
			return c.invalid(badText)
		}
		before := len(c.out)
		if before > begin {
			c.out = append(c.out, ',')
		}
		c.out = append(append(c.out, raw...), ':')
		member := schema.Properties[name]
		if isMap {
			member = values
		}
		if err := c.checkName(schema, isMap, name, seen); err != nil {
			return err
		}
		if member == nil || !isMap && c.dec.PeekKind() == 'n' {
			c.out = c.out[:before]
			if err := c.dec.SkipValue(); err != nil {
				return c.malformed()
			}
			continue
		}
		c.path = append(c.path, name)
		if err := c.value(member); err != nil {
			return err
		}
		c.path = c.path[:len(c.path)-1]
	}
	return c.end('}')
}

// checkName rejects a name that the object already has, one that the schema does not allow,
// and one too many.
func (c *checker) checkName(schema *huma.Schema, isMap bool, name string, seen map[string]bool) *Error {
	key, known := name, true
	if !isMap {
		key = fold(name)
		known = schema.Properties[name] != nil
	}
	if known || hasFolded(schema, key) {
		if seen[key] {
			return &Error{"An object in the body has the same name twice, or twice but for its case.", c.where(), "expected each name once"}
		}
		seen[key] = true
	}
	switch {
	case isMap && schema.MaxProperties != nil && len(seen) > *schema.MaxProperties:
		return c.invalid(fmt.Sprintf("expected object with at most %d properties", *schema.MaxProperties))
	case !known && schema.AdditionalProperties != true:
		c.path = append(c.path, name)
		return c.invalid("unexpected property")
	}
	return nil
}

// hasFolded reports whether some readers take a folded name for that of a member.
func hasFolded(schema *huma.Schema, folded string) bool {
	for known := range schema.Properties {
		if fold(known) == folded {
			return true
		}
	}
	return false
}

// end reads the end of an object or array.
func (c *checker) end(bracket byte) *Error {
	if _, err := c.dec.ReadToken(); err != nil {
		return c.malformed()
	}
	c.out = append(c.out, bracket)
	return nil
}

// malformed is not reached: Check has found the document to be valid.
func (c *checker) malformed() *Error {
	return &Error{"The body is not one well-formed JSON document.", c.where(), "expected JSON"}
}

func (c *checker) invalid(message string) *Error { return &Error{"", c.where(), message} }

// where returns the path as huma writes it. It ends before a part that is too long to be
// the name of a member.
func (c *checker) where() string {
	for i, part := range c.path {
		if len(part) > 50 {
			return strings.Join(c.path[:i], ".")
		}
	}
	return strings.Join(c.path, ".")
}

const badText = "expected text without NUL and lone surrogates"

// unquote returns the text of a JSON string. It reports false if the text has a NUL or an
// unpaired surrogate, which readers take in different ways.
func unquote(raw []byte) (string, bool) {
	if bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1]), true
	}
	text, err := jsontext.AppendUnquote(nil, raw)
	return string(text), err == nil && bytes.IndexByte(text, 0) < 0
}

// fold maps all names that encoding/json matches to the same member to one string.
func fold(name string) string {
	return strings.Map(func(r rune) rune {
		for {
			next := unicode.SimpleFold(r)
			if next <= r {
				return next
			}
			r = next
		}
	}, name)
}
