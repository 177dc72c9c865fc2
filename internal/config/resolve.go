package config

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"

	"streamcount/internal/yamlfile"
)

// EnvPrefix is the prefix of all environment variables of the program.
const EnvPrefix = "STREAMCOUNT_"

// sources maps the name of each flag to the source of its value.
type sources map[string]string

// The sources of values besides the environment and files.
const (
	FromDefault = "default"
	fromFlag    = "the command line"
)

// EnvName returns the name of the environment variable for a flag.
func EnvName(flag string) string {
	return EnvPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// Resolve sets each flag that is not on the command line from the environment, or else from
// the file that --config names. An empty variable is ignored, because compose files cannot
// leave a variable out.
func Resolve(fs *pflag.FlagSet, environ []string) (sources, error) {
	env := environment(environ)
	if f := fs.Lookup("config"); f != nil && !f.Changed {
		if path := env[EnvName("config")]; path != "" {
			if err := f.Value.Set(path); err != nil {
				return nil, valueError(f, path, EnvName("config"), err)
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
		from[f.Name] = FromDefault
		if value, ok := file[f.Name]; ok {
			from[f.Name] = fmt.Sprintf("%s in %s", f.Name, path)
			if !f.Changed && env[EnvName(f.Name)] == "" {
				errs = append(errs, setFromFile(f, value, from[f.Name]))
			}
		}
		if value := env[EnvName(f.Name)]; value != "" {
			from[f.Name] = EnvName(f.Name)
			if !f.Changed {
				if err := f.Value.Set(value); err != nil {
					errs = append(errs, valueError(f, value, from[f.Name], err))
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
		if name, value, ok := strings.Cut(e, "="); ok && strings.HasPrefix(name, EnvPrefix) {
			env[name] = value
		}
	}
	return env
}

// readFile returns the keys and values of the file that --config names, and its path.
func readFile(fs *pflag.FlagSet) (map[string]any, string, error) {
	f := fs.Lookup("config")
	if f == nil || f.Value.String() == "" {
		return nil, "", nil
	}
	path := f.Value.String()
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, path, Errorf("config file: %w", err)
	}
	values := make(map[string]any)
	useNumber := func(d *json.Decoder) *json.Decoder { d.UseNumber(); return d }
	err = cmp.Or(yaml.UnmarshalStrict(text, &values, useNumber), yamlfile.CheckOneDocument(text))
	if err != nil {
		why := strings.Join(strings.Fields(err.Error()), " ") // the error has several lines
		return nil, path, Errorf("config file %s: want one \"key: value\" per line: %s", path, why)
	}
	for key := range values {
		if known := fs.Lookup(key); known == nil || key == "config" || key == "help" {
			return nil, path, Errorf("config file %s: unknown key %q%s: "+
				"the keys are the names of the flags in \"streamcount serve --help\"",
				path, key, didYouMean(key, FlagNames(fs)))
		}
	}
	return values, path, nil
}

// FlagNames returns the names of the flags that are settings.
func FlagNames(fs *pflag.FlagSet) []string {
	var names []string
	fs.VisitAll(func(f *pflag.Flag) {
		if f.Name != "config" && f.Name != "help" {
			names = append(names, f.Name)
		}
	})
	return names
}

// setFromFile sets f to a value of the config file. The YAML type must match the type of the
// flag: a quoted number is an error for a numeric flag.
func setFromFile(f *pflag.Flag, value any, source string) error {
	wrong := valueError(f, fmt.Sprint(value), source, errors.New("wrong type"))
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

// valueError returns an error that names the flag, its value, the source and the values that
// are accepted.
func valueError(f *pflag.Flag, value, source string, err error) error {
	want := map[string]string{
		"int":      "a whole number, such as 3",
		"float64":  "a number, such as 0.01",
		"bool":     "true or false",
		"duration": "a duration with a unit, such as 90s or 5m",
		"string":   "a string, in quotes if YAML would read it as a number or boolean",
		"list":     "a list, such as a,b,c",
	}[f.Value.Type()]
	if want == "" {
		want = RedactURLs(err.Error())
	}
	return Errorf("%s %q (from %s): want %s", f.Name, RedactURLs(value), source, want)
}

// FlagError rewords an error of pflag about the command line of command, which has the flags
// in fs.
func FlagError(command string, fs *pflag.FlagSet, err error) error {
	if bad, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return valueError(bad.GetFlag(), bad.GetValue(), fromFlag, bad.Unwrap())
	}
	hint := ""
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		hint = didYouMean(unknown.GetSpecifiedName(), FlagNames(fs))
	}
	return Errorf("%w%s (see %s --help)", err, hint, command)
}

// checkEnvironment rejects unknown variables with the prefix of the program, so that a
// misspelt variable is not silently ignored.
func checkEnvironment(environ []string, flags []string) error {
	var known []string
	for _, f := range append(flags, "config", "server", "key-file", "plaintext-key") {
		known = append(known, EnvName(f))
	}
	env := environment(environ)
	links := serviceLinks(env)
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if !slices.Contains(known, name) && !links[name] {
			return Errorf("unknown environment variable %s%s: "+
				"unset it, or see \"streamcount serve --help\"", name, didYouMean(name, known))
		}
	}
	return nil
}

// didYouMean returns a hint with the word in known that is most similar to word, or "" if
// none is similar.
func didYouMean(word string, known []string) string {
	var words cobra.Command // cobra suggests among the subcommands of a command
	for _, k := range known {
		words.AddCommand(&cobra.Command{Use: k, Run: func(*cobra.Command, []string) {}})
	}
	const maxDistance = 2 // insertions, deletions and substitutions
	for words.SuggestionsMinimumDistance = 1; words.SuggestionsMinimumDistance <= maxDistance; words.SuggestionsMinimumDistance++ {
		if similar := words.SuggestionsFor(word); len(similar) > 0 {
			return fmt.Sprintf(" (did you mean %s?)", similar[0])
		}
	}
	return ""
}
