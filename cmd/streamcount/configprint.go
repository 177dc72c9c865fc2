package main

import (
	"encoding/json"
	"errors"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Show the configuration that serve would use",
		Args:  between(0, 0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.configPrintCommand())
	return cmd
}

func (a *app) configPrintCommand() *cobra.Command {
	var cfg Config
	flags := cfg.flags()
	cmd := &cobra.Command{
		Use:   "print",
		Short: "Print each value and where it came from",
		Long: `Print each value of the configuration and where it came from: the command line,
an environment variable, the config file, or the default. It takes the flags of
"streamcount serve". Values that serve would refuse are printed too, and then
reported with exit code 2.`,
		Example: `  streamcount config print --limit 5
  streamcount config print --config streamcount.yaml --json`,
		Args: between(0, 0),
		RunE: func(*cobra.Command, []string) error {
			err := cfg.load(flags, a.environ)
			if cfg.from == nil {
				return err
			}
			return errors.Join(a.printConfig(flags, cfg.from), err)
		},
	}
	cmd.Flags().AddFlagSet(flags)
	a.addJSONFlag(cmd)
	return cmd
}

// A setting is one line of config print.
type setting struct {
	Key    string          `json:"key"`
	Value  json.RawMessage `json:"value"`
	Source string          `json:"source"`
}

// printConfig shows paths of secrets but no secret: there is none among the
// values.
func (a *app) printConfig(fs *pflag.FlagSet, from sources) error {
	rows := [][]string{{"KEY", "VALUE", "FROM"}}
	var all []setting
	fs.VisitAll(func(f *pflag.Flag) {
		value := shown(f)
		rows = append(rows, []string{f.Name, orDash(value), from[f.Name]})
		text, _ := json.Marshal(value) // a string always can be
		if t := f.Value.Type(); t == "int" || t == "bool" {
			text = []byte(value)
		}
		all = append(all, setting{f.Name, text, from[f.Name]})
	})
	if a.json {
		return a.printJSON(all)
	}
	return a.printTable(rows, "KEY")
}

func shown(f *pflag.Flag) string {
	switch value := f.Value.String(); {
	case f.Name == "node" && value == "":
		return hostName() + "-(random)"
	case f.Value.Type() == "stringSlice":
		value = value[1 : len(value)-1] // without the brackets
		if strings.Contains(value, "@") {
			return "(hidden: it has a user in it)"
		}
		return value
	case strings.HasSuffix(f.Name, "-url") && strings.Contains(value, "@"):
		return "(hidden: it has a user in it)"
	default:
		return value
	}
}
