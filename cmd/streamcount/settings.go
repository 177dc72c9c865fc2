package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// envPrefix starts the name of every environment variable that is ours.
const envPrefix = "STREAMCOUNT_"

// sources says where the value of each flag came from.
type sources map[string]string

const (
	fromDefault = "default"
	fromFlag    = "the command line"
)

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// resolve gives every flag that is not on the command line its value from the
// environment, or else from the file that --config names. An empty variable
// counts as none, because compose files cannot leave one out.
func resolve(fs *pflag.FlagSet, environ []string) (sources, error) {
	env := environment(environ)
	if f := fs.Lookup("config"); f != nil && !f.Changed {
		if path := env[envName("config")]; path != "" {
			if err := f.Value.Set(path); err != nil {
				return nil, badValue(f, path, envName("config"), err)
			}
		}
	}
	file, path, err := readFile(fs)
	if err != nil {
		return nil, err
	}
	from := make(sources)
	var errs []error
	fs.VisitAll(func(f *pflag.Flag) {
		from[f.Name] = fromDefault
		if value, ok := file[f.Name]; ok {
			from[f.Name] = fmt.Sprintf("%s in %s", f.Name, path)
			if !f.Changed && env[envName(f.Name)] == "" {
				errs = append(errs, setFromFile(f, value, from[f.Name]))
			}
		}
		if value := env[envName(f.Name)]; value != "" {
			from[f.Name] = envName(f.Name)
			if !f.Changed {
				if err := f.Value.Set(value); err != nil {
					errs = append(errs, badValue(f, value, from[f.Name], err))
				}
			}
		}
		if f.Changed {
			from[f.Name] = fromFlag
		}
	})
	return from, cmp.Or(errs...)
}

func environment(environ []string) map[string]string {
	env := make(map[string]string)
	for _, e := range environ {
		if name, value, ok := strings.Cut(e, "="); ok && strings.HasPrefix(name, envPrefix) {
			env[name] = value
		}
	}
	return env
}

// readFile returns the keys and values of the file that --config names, if any.
func readFile(fs *pflag.FlagSet) (map[string]any, string, error) {
	f := fs.Lookup("config")
	if f == nil || f.Value.String() == "" {
		return nil, "", nil
	}
	path := f.Value.String()
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, path, usageError{fmt.Errorf("config file: %w", err)}
	}
	values := make(map[string]any)
	useNumber := func(d *json.Decoder) *json.Decoder { d.UseNumber(); return d }
	if err := yaml.UnmarshalStrict(text, &values, useNumber); err != nil {
		why := strings.Join(strings.Fields(err.Error()), " ") // yaml's has several lines
		return nil, path, usageError{fmt.Errorf("config file %s: want one \"key: value\" a line: %s", path, why)}
	}
	for key := range values {
		if known := fs.Lookup(key); known == nil || key == "config" || key == "help" {
			return nil, path, usageError{fmt.Errorf("config file %s: there is no key %q%s: "+
				"the keys are the flags of \"streamcount serve --help\", without dashes in front",
				path, key, suggest(key, flagNames(fs)))}
		}
	}
	return values, path, nil
}

func flagNames(fs *pflag.FlagSet) []string {
	var names []string
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Name != "config" && f.Name != "help" {
			names = append(names, f.Name)
		}
	})
	return names
}

// setFromFile wants the YAML type that fits the flag: a number in quotes is as
// wrong as a word.
func setFromFile(f *pflag.Flag, value any, source string) error {
	wrong := badValue(f, fmt.Sprint(value), source, errors.New("wrong type"))
	switch v := value.(type) {
	case string:
		if slices.Contains([]string{"int", "float64", "bool"}, f.Value.Type()) || f.Value.Set(v) != nil {
			return wrong
		}
	case bool:
		if f.Value.Type() != "bool" || f.Value.Set(fmt.Sprint(v)) != nil {
			return wrong
		}
	case json.Number:
		if t := f.Value.Type(); t != "int" && t != "float64" || f.Value.Set(v.String()) != nil {
			return wrong
		}
	case []any:
		return setList(f, v, wrong)
	default:
		return wrong
	}
	return nil
}

func setList(f *pflag.Flag, list []any, wrong error) error {
	slice, ok := f.Value.(pflag.SliceValue)
	if !ok {
		return wrong
	}
	var texts []string
	for _, item := range list {
		text, ok := item.(string)
		if !ok {
			return wrong
		}
		texts = append(texts, text)
	}
	if slice.Replace(texts) != nil {
		return wrong
	}
	return nil
}

// badValue names the key, the value, where it came from, and what is wanted.
func badValue(f *pflag.Flag, value, source string, err error) error {
	want := map[string]string{
		"int":         "a whole number, such as 3",
		"float64":     "a number, such as 0.01",
		"bool":        "true or false",
		"duration":    "a duration with a unit, such as 90s or 5m",
		"string":      "a text, in quotes if it looks like a number or yes or no",
		"stringSlice": "a list, such as a,b,c",
	}[f.Value.Type()]
	if want == "" {
		want = err.Error()
	}
	return usageError{fmt.Errorf("%s %q (from %s): want %s", f.Name, value, source, want)}
}

// flagError rewords what pflag says of a command line.
func flagError(cmd *cobra.Command, err error) error {
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return badValue(bad.GetFlag(), bad.GetValue(), fromFlag, bad.Unwrap())
	}
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		near := suggest(unknown.GetSpecifiedName(), flagNames(cmd.Flags()))
		return usageError{fmt.Errorf("%w%s (see %s --help)", err, near, cmd.CommandPath())}
	}
	return usageError{fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
}

// checkEnvironment refuses variables with our prefix that mean nothing: a
// misspelt limit must not silently be the default.
func checkEnvironment(environ []string, flags []string) error {
	var known []string
	for _, f := range append(flags, "config", "server", "key-file") {
		known = append(known, envName(f))
	}
	for name := range environment(environ) {
		if !slices.Contains(known, name) && !isServiceLink(name) {
			return usageError{fmt.Errorf("environment variable %s means nothing%s: "+
				"unset it, or see \"streamcount serve --help\"", printable(name), suggest(name, known))}
		}
	}
	return nil
}

// isServiceLink recognises the variables that Kubernetes and Docker set in
// every container beside a service called "streamcount".
func isServiceLink(name string) bool {
	rest := strings.TrimPrefix(name, envPrefix)
	return rest == "PORT" || rest == "NAME" ||
		strings.HasPrefix(rest, "PORT_") || strings.HasPrefix(rest, "SERVICE_")
}

// suggest names what is nearest to a misspelt word, if anything is near.
func suggest(word string, known []string) string {
	best, at := "", 4 // more changes than that are another word
	for _, k := range known {
		if d := distance(strings.ToLower(word), strings.ToLower(k)); d < at {
			best, at = k, d
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %s?)", best)
}

// distance is how many letters must be put in, taken out or changed to make b
// of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
