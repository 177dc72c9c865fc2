package config

import (
	"strings"
	"unicode"

	"github.com/spf13/pflag"
)

// listFlag is the value of a flag that is a list. Elements are separated by commas, white
// space or both, and cannot contain them. Empty elements are dropped. A repeated flag adds
// elements.
type listFlag []string

var _ pflag.SliceValue = (*listFlag)(nil)

// listVar defines a flag that is a list, empty by default.
func listVar(fs *pflag.FlagSet, list *[]string, name, usage string) {
	fs.Var((*listFlag)(list), name, usage)
}

func isSeparator(r rune) bool { return r == ',' || unicode.IsSpace(r) }

// Set adds the elements of text.
func (l *listFlag) Set(text string) error { return l.Append(text) }

// Append adds the elements of text.
func (l *listFlag) Append(text string) error {
	*l = append(*l, strings.FieldsFunc(text, isSeparator)...)
	return nil
}

// Replace sets the list to the elements of texts.
func (l *listFlag) Replace(texts []string) error {
	*l = nil
	for _, text := range texts {
		_ = l.Append(text) // Append returns no error
	}
	return nil
}

// GetSlice returns the elements.
func (l *listFlag) GetSlice() []string { return *l }

func (l *listFlag) String() string { return strings.Join(*l, ",") }

// Type returns the name of the type for help texts.
func (l *listFlag) Type() string { return "list" }
