package access

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"

	"streamcount/internal/yamlfile"
)

var issuerName = regexp.MustCompile(`^[a-z0-9-]{1,32}$`)

// readAuthFile reads an auth file. Files that it names are relative to dir.
func readAuthFile(content []byte, dir string) ([]providerConfig, error) {
	root, err := yamlfile.Read(content)
	if err != nil {
		return nil, fmt.Errorf("not an auth file: %w", err)
	}
	var list yamlfile.Node
	var entries []providerConfig
	err = root.Object(map[string]func(yamlfile.Node) error{"issuers": func(n yamlfile.Node) error { list = n; return nil }})
	if err == nil && list.Kind() == "nothing" {
		err = errors.New("no issuers: want a list; 'issuers: []' refuses all viewers")
	}
	var items []yamlfile.Node
	if err == nil {
		items, err = list.List()
	}
	if err != nil {
		return nil, err
	}
	for i, item := range items {
		entry, err := readIssuer(yamlfile.Node{Raw: item.Raw}, dir)
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

func readIssuer(n yamlfile.Node, dir string) (providerConfig, error) {
	c := newProviderConfig()
	file := func(into *string) func(yamlfile.Node) error {
		return func(n yamlfile.Node) error {
			err := n.Text(into)
			if *into != "" && !filepath.IsAbs(*into) {
				*into = filepath.Join(dir, *into)
			}
			return err
		}
	}
	// The name comes first, for the errors of the others.
	var all map[string]json.RawMessage
	if json.Unmarshal(n.Raw, &all) == nil && all["name"] != nil {
		if err := (yamlfile.Node{Name: "name", Raw: all["name"]}).Text(&c.name); err != nil {
			return c, err
		}
	}
	if !issuerName.MatchString(c.name) {
		c.name = ""
		return c, errors.New("name: want 1 to 32 letters a to z, digits and -")
	}
	err := n.Object(map[string]func(yamlfile.Node) error{
		"name":   func(yamlfile.Node) error { return nil },
		"issuer": func(n yamlfile.Node) error { return n.Texts(&c.issuers) },
		"jwks": func(n yamlfile.Node) error {
			err := n.Object(map[string]func(yamlfile.Node) error{
				"url":       func(n yamlfile.Node) error { return n.Text(&c.keys.url) },
				"file":      file(&c.keys.file),
				"ca":        file(&c.keys.ca),
				"plainHTTP": func(n yamlfile.Node) error { return n.Boolean(&c.keys.plainHTTP) },
			})
			if err == nil && c.keys.url == "" && c.keys.file == "" {
				return n.Wrong("url or file")
			}
			return err
		},
		"secretFile": file(&c.secretFile),
		"audience":   c.readAudience,
		"require":    c.readRequire,
		"user":       func(n yamlfile.Node) error { return claimPathIn(n, &c.user) },
		"plan":       func(n yamlfile.Node) error { return claimPathIn(n, &c.plan) },
		"limit":      func(n yamlfile.Node) error { return claimPathIn(n, &c.limit) },
		"labels":     c.readLabels,
		"profile":    func(n yamlfile.Node) error { return claimPathIn(n, &c.profile) },
		"priority":   func(n yamlfile.Node) error { return claimPathIn(n, &c.priority) },
		"userPrefix": func(n yamlfile.Node) error { return n.TextOrEmpty(&c.userPrefix) },
		"sameUsers":  func(n yamlfile.Node) error { return n.Boolean(&c.sameUsers) },
		"algorithms": func(n yamlfile.Node) error { return n.Texts(&c.algorithms) },
		"types":      func(n yamlfile.Node) error { return n.Texts(&c.types) },
		"leeway":     func(n yamlfile.Node) error { return n.Duration(&c.leeway) },
		"maxAge":     func(n yamlfile.Node) error { return n.Duration(&c.maxAge) },
	})
	return c, err
}

// readAudience reads "any", one rule or a list of rules.
func (c *providerConfig) readAudience(n yamlfile.Node) error {
	var text string
	if n.Kind() == "text" {
		if err := n.Text(&text); err != nil || text != "any" {
			return n.Wrong("{claim: aud, values: [...]}, a list of these, or any")
		}
		c.anyAudience = true
		return nil
	}
	items := []yamlfile.Node{n}
	if n.Kind() == "a list" {
		var err error
		if items, err = n.List(); err != nil {
			return err
		}
	}
	for _, item := range items {
		rule := audienceRule{claim: claimPath{"aud"}}
		err := item.Object(map[string]func(yamlfile.Node) error{
			"claim":  func(n yamlfile.Node) error { return claimPathIn(n, &rule.claim) },
			"values": func(n yamlfile.Node) error { return n.Texts(&rule.values) },
		})
		if err == nil && len(rule.values) == 0 {
			err = item.Wrong("values, with the audiences that tokens may have")
		}
		if err != nil {
			return err
		}
		c.audience = append(c.audience, rule)
	}
	return nil
}

func (c *providerConfig) readRequire(n yamlfile.Node) error {
	return n.Each(func(claim string, n yamlfile.Node) error {
		r := requirement{claim: claim}
		items := []yamlfile.Node{n}
		if n.Kind() == "a list" {
			var err error
			if items, err = n.List(); err != nil {
				return err
			}
		}
		for _, item := range items {
			var value any
			decoder := json.NewDecoder(strings.NewReader(string(item.Raw)))
			decoder.UseNumber()
			if err := decoder.Decode(&value); err != nil {
				return err
			}
			switch v := value.(type) {
			case string, bool:
			case json.Number:
				if !wholeNumber.MatchString(v.String()) {
					return item.Wrong("text, true, false or a whole number")
				}
			default:
				return item.Wrong("text, true, false or a whole number, or a list of these")
			}
			r.values = append(r.values, value)
		}
		if len(r.values) == 0 {
			return n.Wrong("a value or a list of values")
		}
		c.require = append(c.require, r)
		return nil
	})
}

// claimPathIn decodes the name of a claim, or the list of names that leads to it.
func claimPathIn(n yamlfile.Node, into *claimPath) error {
	var names []string
	err := n.Texts(&names)
	*into = names
	return err
}
