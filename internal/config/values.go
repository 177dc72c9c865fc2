package config

import (
	"encoding/json"
	"strings"

	"github.com/spf13/pflag"
)

// A Value is the value of one flag, without secrets.
type Value struct {
	Key    string          `json:"key"`
	JSON   json.RawMessage `json:"value"`
	Source string          `json:"source"` // where the value came from
	Text   string          `json:"-"`
}

// Resolved reports whether load has read all sources, even if it rejected a value.
func (c *Config) Resolved() bool { return c.from != nil }

// Values returns the value of each flag in fs and its source. It removes users, passwords
// and queries from URLs. Other secrets are in files, of which it returns the path.
func (c *Config) Values(fs *pflag.FlagSet) []Value {
	var all []Value
	fs.VisitAll(func(f *pflag.Flag) {
		text := displayValue(f)
		value, _ := json.Marshal(text) // a string can always be encoded
		if t := f.Value.Type(); t == "int" || t == "bool" {
			value = []byte(text)
		}
		all = append(all, Value{f.Name, value, c.from[f.Name], text})
	})
	return all
}

// displayValue returns the value of f without secrets.
func displayValue(f *pflag.Flag) string {
	value := f.Value.String()
	switch {
	case f.Name == "node" && value == "":
		return HostName() + "-(random)"
	case holdsAddresses(f):
		return redactAddress(value)
	}
	return RedactURLs(value)
}

// holdsAddresses reports whether the values of f are URLs or addresses.
func holdsAddresses(f *pflag.Flag) bool {
	_, list := f.Value.(pflag.SliceValue)
	return list || strings.HasSuffix(f.Name, "-url") || strings.HasSuffix(f.Name, "-endpoint")
}
