package access

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"streamcount/internal/yamlfile"
)

// The auth file has its own decoder, because the YAML package accepts "Audience" for
// "audience", and 1e5 or no as text.

var issuerName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

// readAuthFile reads an auth file. Files that it names are relative to dir.
func readAuthFile(content []byte, dir string) ([]providerConfig, error) {
	text, err := yaml.YAMLToJSONStrict(content)
	if err == nil {
		err = yamlfile.CheckOneDocument(content)
	}
	if err != nil {
		return nil, fmt.Errorf("not an auth file: %s", strings.Join(strings.Fields(err.Error()), " "))
	}
	var list node
	var entries []providerConfig
	err = node{raw: text}.object(map[string]func(node) error{"issuers": func(n node) error { list = n; return nil }})
	if err == nil && list.kind() == "nothing" {
		err = errors.New("no issuers: want a list; 'issuers: []' refuses all viewers")
	}
	var items []node
	if err == nil {
		items, err = list.list()
	}
	if err != nil {
		return nil, err
	}
	for i, item := range items {
		entry, err := readIssuer(node{raw: item.raw}, dir)
		if err == nil {
			err = entry.check()
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", entryName(i, entry.name), err)
		}
		entries = append(entries, entry)
	}
	return entries, checkIssuers(entries)
}

func readIssuer(n node, dir string) (providerConfig, error) {
	c := newProviderConfig()
	file := func(into *string) func(node) error {
		return func(n node) error {
			err := n.text(into)
			if *into != "" && !filepath.IsAbs(*into) {
				*into = filepath.Join(dir, *into)
			}
			return err
		}
	}
	// The name comes first, for the errors of the others.
	var all map[string]json.RawMessage
	if json.Unmarshal(n.raw, &all) == nil && all["name"] != nil {
		if err := (node{"name", all["name"]}).text(&c.name); err != nil {
			return c, err
		}
	}
	if !issuerName.MatchString(c.name) {
		c.name = ""
		return c, errors.New("name: want 1 to 32 letters a to z, digits and -")
	}
	err := n.object(map[string]func(node) error{
		"name":   func(node) error { return nil },
		"issuer": func(n node) error { return n.texts(&c.issuers) },
		"jwks": func(n node) error {
			err := n.object(map[string]func(node) error{
				"url":       func(n node) error { return n.text(&c.keys.url) },
				"file":      file(&c.keys.file),
				"ca":        file(&c.keys.ca),
				"plainHTTP": func(n node) error { return n.boolean(&c.keys.plainHTTP) },
			})
			if err == nil && c.keys.url == "" && c.keys.file == "" {
				return n.wrong("url or file")
			}
			return err
		},
		"secretFile": file(&c.secretFile),
		"audience":   c.readAudience,
		"require":    c.readRequire,
		"user":       func(n node) error { return n.path(&c.user) },
		"plan":       func(n node) error { return n.path(&c.plan) },
		"limit":      func(n node) error { return n.path(&c.limit) },
		"labels":     c.readLabels,
		"profile":    func(n node) error { return n.path(&c.profile) },
		"priority":   func(n node) error { return n.path(&c.priority) },
		"userPrefix": func(n node) error { return n.text(&c.userPrefix) },
		"sameUsers":  func(n node) error { return n.boolean(&c.sameUsers) },
		"algorithms": func(n node) error { return n.texts(&c.algorithms) },
		"types":      func(n node) error { return n.texts(&c.types) },
		"leeway":     func(n node) error { return n.duration(&c.leeway) },
		"maxAge":     func(n node) error { return n.duration(&c.maxAge) },
	})
	return c, err
}

// readAudience reads "any", one rule or a list of rules.
func (c *providerConfig) readAudience(n node) error {
	var text string
	if n.kind() == "text" {
		if err := n.text(&text); err != nil || text != "any" {
			return n.wrong("{claim: aud, values: [...]}, a list of these, or any")
		}
		c.anyAudience = true
		return nil
	}
	items := []node{n}
	if n.kind() == "a list" {
		var err error
		if items, err = n.list(); err != nil {
			return err
		}
	}
	for _, item := range items {
		rule := audienceRule{claim: claimPath{"aud"}}
		err := item.object(map[string]func(node) error{
			"claim":  func(n node) error { return n.path(&rule.claim) },
			"values": func(n node) error { return n.texts(&rule.values) },
		})
		if err == nil && len(rule.values) == 0 {
			err = item.wrong("values, with the audiences that tokens may have")
		}
		if err != nil {
			return err
		}
		c.audience = append(c.audience, rule)
	}
	return nil
}

func (c *providerConfig) readRequire(n node) error {
	return n.each(func(claim string, n node) error {
		r := requirement{claim: claim}
		items := []node{n}
		if n.kind() == "a list" {
			var err error
			if items, err = n.list(); err != nil {
				return err
			}
		}
		for _, item := range items {
			var value any
			decoder := json.NewDecoder(strings.NewReader(string(item.raw)))
			decoder.UseNumber()
			if err := decoder.Decode(&value); err != nil {
				return err
			}
			switch v := value.(type) {
			case string, bool:
			case json.Number:
				if !wholeNumber.MatchString(v.String()) {
					return item.wrong("text, true, false or a whole number")
				}
			default:
				return item.wrong("text, true, false or a whole number, or a list of these")
			}
			r.values = append(r.values, value)
		}
		if len(r.values) == 0 {
			return n.wrong("a value or a list of values")
		}
		c.require = append(c.require, r)
		return nil
	})
}

// A node is a part of the file: its JSON, and its name in errors.
type node struct {
	at  string
	raw json.RawMessage
}

func (n node) errorf(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if n.at == "" {
		return err
	}
	return fmt.Errorf("%s: %w", n.at, err)
}

// kind names the JSON type of the value.
func (n node) kind() string {
	if len(n.raw) == 0 || string(n.raw) == "null" {
		return "nothing"
	}
	switch n.raw[0] {
	case '"':
		return "text"
	case '{':
		return "an object"
	case '[':
		return "a list"
	case 't', 'f':
		return "true or false"
	}
	return "a number"
}

func (n node) wrong(want string) error { return n.errorf("want %s", want) }

// object decodes an object, each member by the function of exactly its name.
func (n node) object(members map[string]func(node) error) error {
	return n.each(func(name string, member node) error {
		read, ok := members[name]
		if !ok {
			for known := range members {
				if strings.EqualFold(known, name) {
					return fmt.Errorf("unknown member %q: did you mean %q?", short(name), known)
				}
			}
			return fmt.Errorf("unknown member %q: the members are %s", short(name),
				strings.Join(slices.Sorted(maps.Keys(members)), ", "))
		}
		return read(member)
	})
}

// each decodes an object, whatever the names of its members.
func (n node) each(read func(name string, member node) error) error {
	var all map[string]json.RawMessage
	if n.kind() != "an object" || json.Unmarshal(n.raw, &all) != nil {
		return n.errorf("want members, this is %s", n.kind())
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := read(name, node{name, all[name]}); err != nil {
			if n.at != "" {
				return fmt.Errorf("%s: %w", n.at, err)
			}
			return err
		}
	}
	return nil
}

func (n node) list() ([]node, error) {
	var items []json.RawMessage
	if n.kind() != "a list" || json.Unmarshal(n.raw, &items) != nil {
		return nil, n.errorf("want a list, this is %s", n.kind())
	}
	out := make([]node, len(items))
	for i, item := range items {
		out[i] = node{n.at, item}
	}
	return out, nil
}

func (n node) text(into *string) error {
	if n.kind() != "text" || json.Unmarshal(n.raw, into) != nil {
		return n.errorf("want text in quotes, this is %s", n.kind())
	}
	if *into == "" && n.at != "userPrefix" {
		return n.errorf("it is empty")
	}
	return nil
}

// texts decodes a text or a list of texts.
func (n node) texts(into *[]string) error {
	items := []node{n}
	if n.kind() == "a list" {
		var err error
		if items, err = n.list(); err != nil {
			return err
		}
	}
	if len(items) == 0 {
		return n.errorf("the list is empty")
	}
	for _, item := range items {
		var text string
		if err := item.text(&text); err != nil {
			return err
		}
		*into = append(*into, text)
	}
	return nil
}

// path decodes the name of a claim, or the list of names that leads to it.
func (n node) path(into *claimPath) error {
	var names []string
	err := n.texts(&names)
	*into = names
	return err
}

func (n node) boolean(into *bool) error {
	if n.kind() != "true or false" || json.Unmarshal(n.raw, into) != nil {
		return n.errorf("want true or false, this is %s", n.kind())
	}
	return nil
}

func (n node) duration(into *time.Duration) error {
	var text string
	if n.kind() == "text" {
		if err := n.text(&text); err != nil {
			return err
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return n.errorf("want a duration with a unit, such as 30s or 24h")
	}
	*into = d
	return nil
}
