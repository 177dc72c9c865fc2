// Package formats makes playback tokens in the formats of certain edges: Akamai EdgeAuth, nginx
// secure_link and the signed cookies of CloudFront.
package formats

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"streamcount/internal/yamlfile"
)

// Formats are the configured formats; each is nil if it is not configured.
type Formats struct {
	Akamai     *Akamai     `json:"akamai,omitempty"`
	SecureLink *SecureLink `json:"secureLink,omitempty"`
	CloudFront *CloudFront `json:"cloudFront,omitempty"`
}

// Parse reads a YAML file with the members of [Formats]. Errors contain no secret.
func Parse(content []byte) (*Formats, error) {
	var f Formats
	if err := yaml.UnmarshalStrict(content, &f); err != nil {
		return nil, describe(err)
	}
	if err := yamlfile.CheckOneDocument(content); err != nil {
		return nil, fmt.Errorf("not a file of token formats: %w", err)
	}
	for _, each := range []struct {
		name       string
		configured bool
		complete   func() error
	}{
		{"akamai", f.Akamai != nil, func() error { return f.Akamai.complete() }},
		{"secureLink", f.SecureLink != nil, func() error { return f.SecureLink.complete() }},
		{"cloudFront", f.CloudFront != nil, func() error { return f.CloudFront.complete() }},
	} {
		if !each.configured {
			continue
		}
		if err := each.complete(); err != nil {
			return nil, fmt.Errorf("%s: %w", each.name, err)
		}
	}
	if f == (Formats{}) {
		return nil, errors.New("no formats: want akamai, secureLink or cloudFront")
	}
	return &f, nil
}

var unknownMember = regexp.MustCompile(`unknown field "([A-Za-z0-9_.-]{1,60})"`)

// describe returns an error of package yaml without its values, which may be secrets.
func describe(err error) error {
	if m := unknownMember.FindStringSubmatch(err.Error()); m != nil {
		return fmt.Errorf("not a file of token formats: unknown member %s", m[1])
	}
	return errors.New("not a file of token formats: want YAML with the members akamai, secureLink and cloudFront, whose members are text")
}

// Values are what a token is made for.
type Values struct {
	User    string
	Stream  string // opaque
	Content string
	Expires time.Time
}

// A pattern is a text with placeholders.
type pattern string

var placeholder = regexp.MustCompile(`\{[^{}]*\}`)

// check returns an error if p has other placeholders than {user}, {stream}, {content} and more, or a
// brace of no placeholder.
func (p pattern) check(more ...string) error {
	known := append([]string{"{user}", "{stream}", "{content}"}, more...)
	for _, name := range placeholder.FindAllString(string(p), -1) {
		ok := false
		for _, k := range known {
			ok = ok || name == k
		}
		if !ok {
			return fmt.Errorf("unknown placeholder %s: want %s", name, strings.Join(known, ", "))
		}
	}
	if strings.ContainsAny(placeholder.ReplaceAllString(string(p), ""), "{}") {
		return fmt.Errorf("a brace that belongs to no placeholder: want %s", strings.Join(known, ", "))
	}
	return nil
}

// ErrNoContent means that a pattern needs the id of the content or of the user, and that the stream has
// no such id, or an id that cannot be a part of a path.
var ErrNoContent = errors.New("formats: the stream has no content id or user id that can be part of a path")

// fits reports whether the content and the user can be parts of the path in p, if it has them.
func (p pattern) fits(v Values) bool {
	return (!strings.Contains(string(p), "{content}") || canBePath(v.Content)) && (!strings.Contains(string(p), "{user}") || canBePath(v.User))
}

// canBePath reports whether an id stays below the directory in front of it. Slashes are percent-encoded,
// but some servers decode them, resolve the parts "." and "..", and merge slashes.
func canBePath(id string) bool {
	for part := range strings.SplitSeq(strings.ReplaceAll(id, `\`, "/"), "/") {
		if strings.Trim(part, ".") == "" {
			return false
		}
	}
	return true
}

// fill replaces the placeholders. Values are percent-encoded, so that clients, who state them,
// cannot insert separators and wildcards. more are pairs of a placeholder and its text.
func (p pattern) fill(v Values, more ...string) (string, error) {
	if !p.fits(v) {
		return "", ErrNoContent
	}
	pairs := append([]string{"{user}", escape(v.User), "{stream}", escape(v.Stream), "{content}", escape(v.Content)}, more...)
	return strings.NewReplacer(pairs...).Replace(string(p)), nil
}

// escape encodes all but letters, digits and - _ . in a text.
func escape(text string) string {
	return strings.NewReplacer("+", "%20", "~", "%7E").Replace(url.QueryEscape(text))
}

// unpadded is base64url without padding.
var unpadded = base64.RawURLEncoding
