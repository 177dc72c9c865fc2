package main

import (
	"errors"

	"streamcount/internal/config"

	"github.com/spf13/cobra"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Print the configuration of serve",
		Args:  argRange(0, 0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.configPrintCommand())
	return cmd
}

func (a *app) configPrintCommand() *cobra.Command {
	var cfg config.Config
	flags := cfg.Flags()
	cmd := &cobra.Command{
		Use:   "print",
		Short: "Print each value and its source",
		Long: `Print each value of the configuration of "streamcount serve" and its source: the
command line, an environment variable, the config file, or the default. The command
has the same flags as serve. Values that serve rejects are printed as well, and then
reported with exit code 2.`,
		Example: `  streamcount config print --limit 5
  streamcount config print --config streamcount.yaml --json`,
		Args: argRange(0, 0),
		RunE: func(*cobra.Command, []string) error {
			err := cfg.Load(flags, a.environ)
			if !cfg.Resolved() {
				return err
			}
			return errors.Join(a.printConfig(cfg.Values(flags)), err)
		},
	}
	cmd.Flags().AddFlagSet(flags)
	a.addJSONFlag(cmd)
	return cmd
}

func (a *app) printConfig(values []config.Value) error {
	if a.json {
		return a.printJSON(values)
	}
	rows := [][]string{{"KEY", "VALUE", "FROM"}}
	for _, v := range values {
		rows = append(rows, []string{v.Key, orDash(v.Text), v.Source})
	}
	return a.printTable(rows, "KEY")
}
