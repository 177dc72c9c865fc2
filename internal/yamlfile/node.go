package yamlfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// A Node is a part of a YAML file. The YAML package decodes "Audience" as "audience", and 1e5
// or no as text; a Node does not.
type Node struct {
	Name string          // in errors
	Raw  json.RawMessage // the value in JSON
}

// Read returns the only document of a YAML file.
func Read(content []byte) (Node, error) {
	text, err := yaml.YAMLToJSONStrict(content)
	if err == nil {
		err = CheckOneDocument(content)
	}
	if err != nil {
		return Node{}, errors.New(strings.Join(strings.Fields(err.Error()), " "))
	}
	return Node{Raw: text}, nil
}

// Errorf returns an error with the name of the node.
func (n Node) Errorf(format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	if n.Name == "" {
		return err
	}
	return fmt.Errorf("%s: %w", n.Name, err)
}

// Wrong returns an error that says what the value must be.
func (n Node) Wrong(want string) error { return n.Errorf("want %s", want) }

// Kind names the JSON type of the value.
func (n Node) Kind() string {
	if len(n.Raw) == 0 || string(n.Raw) == "null" {
		return "nothing"
	}
	switch n.Raw[0] {
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

// Object decodes an object, each member by the function of exactly its name.
func (n Node) Object(members map[string]func(Node) error) error {
	return n.Each(func(name string, member Node) error {
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

// short truncates text of a file for messages.
func short(text string) string {
	const maxShown = 80
	if len(text) > maxShown {
		return strings.ToValidUTF8(text[:maxShown], "") + "..."
	}
	return text
}

// Each decodes an object, whatever the names of its members.
func (n Node) Each(read func(name string, member Node) error) error {
	var all map[string]json.RawMessage
	if n.Kind() != "an object" || json.Unmarshal(n.Raw, &all) != nil {
		return n.Errorf("want members, this is %s", n.Kind())
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := read(name, Node{name, all[name]}); err != nil {
			if n.Name != "" {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
			return err
		}
	}
	return nil
}

// List returns the elements of a list, under the name of the list.
func (n Node) List() ([]Node, error) {
	var items []json.RawMessage
	if n.Kind() != "a list" || json.Unmarshal(n.Raw, &items) != nil {
		return nil, n.Errorf("want a list, this is %s", n.Kind())
	}
	out := make([]Node, len(items))
	for i, item := range items {
		out[i] = Node{n.Name, item}
	}
	return out, nil
}

// Text decodes text that is not empty.
func (n Node) Text(into *string) error {
	if err := n.TextOrEmpty(into); err != nil {
		return err
	}
	if *into == "" {
		return n.Errorf("it is empty")
	}
	return nil
}

// TextOrEmpty decodes text.
func (n Node) TextOrEmpty(into *string) error {
	if n.Kind() != "text" || json.Unmarshal(n.Raw, into) != nil {
		return n.Errorf("want text in quotes, this is %s", n.Kind())
	}
	return nil
}

// Texts decodes a text or a list of texts, and appends them.
func (n Node) Texts(into *[]string) error {
	items := []Node{n}
	if n.Kind() == "a list" {
		var err error
		if items, err = n.List(); err != nil {
			return err
		}
	}
	if len(items) == 0 {
		return n.Errorf("the list is empty")
	}
	for _, item := range items {
		var text string
		if err := item.Text(&text); err != nil {
			return err
		}
		*into = append(*into, text)
	}
	return nil
}

// Boolean decodes true or false.
func (n Node) Boolean(into *bool) error {
	if n.Kind() != "true or false" || json.Unmarshal(n.Raw, into) != nil {
		return n.Errorf("want true or false, this is %s", n.Kind())
	}
	return nil
}

// Duration decodes a duration with a unit.
func (n Node) Duration(into *time.Duration) error {
	var text string
	if n.Kind() == "text" {
		if err := n.Text(&text); err != nil {
			return err
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return n.Errorf("want a duration with a unit, such as 30s or 24h")
	}
	*into = d
	return nil
}
