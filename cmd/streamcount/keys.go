package main

import (
	"github.com/spf13/cobra"

	"streamcount/access"
)

func (a *app) keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Make API keys",
		Args:  between(0, 0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.newKeyCommand())
	return cmd
}

func (a *app) newKeyCommand() *cobra.Command {
	var name, scope string
	cmd := &cobra.Command{
		Use:   "new",
		Short: "Make an API key",
		Long: `Make an API key, and print it with its entry for the file that serve reads by
--auth-keys-file. The key itself is stored nowhere: give it to the service that
is to use it. Several keys may be in the file at once, so that a new one can be
in use before the old is removed; a running node notices changes by itself.`,
		Example: `  streamcount keys new --name billing --scope read`,
		Args:    between(0, 0),
		RunE: func(*cobra.Command, []string) error {
			key, entry, err := access.NewKey(name, scope)
			if err != nil {
				return usageError{err}
			}
			if a.json {
				return a.printJSON(struct {
					Key   string          `json:"key"`
					Entry access.KeyEntry `json:"entry"`
				}{key, entry})
			}
			return a.printf("%s\n\nIts entry, below \"keys:\" in the keys file:\n\n"+
				"  - name: %q\n    scope: %s\n    sha256: %q\n", key, entry.Name, entry.Scope, entry.SHA256)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "`name` of whoever gets the key, for logs")
	cmd.Flags().StringVar(&scope, "scope", "all",
		"all, read, or operator: everything but starts")
	a.addJSONFlag(cmd)
	return cmd
}
