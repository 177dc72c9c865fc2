package main

import (
	"github.com/spf13/cobra"

	"streamcount/access"
)

func (a *app) keysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Create API keys",
		Args:  argRange(0, 0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.newKeyCommand())
	return cmd
}

func (a *app) newKeyCommand() *cobra.Command {
	var name, scope string
	cmd := &cobra.Command{
		Use:   "new",
		Short: "Create an API key",
		Long: `Create an API key. The command prints the key and its entry for the file that serve
reads (--auth-keys-file). The key is not stored: give it to the service that will
use it. To replace a key, add the new entry, change the callers, and then remove
the old entry. Running nodes reload the file when it changes.`,
		Example: `  streamcount keys new --name billing --scope read
  streamcount keys new --name prometheus --scope metrics
  streamcount keys new --name nginx --scope edge`,
		Args: argRange(0, 0),
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
			return a.printf("%s\n\nEntry for the list \"keys:\" in the keys file:\n\n"+
				"  - name: %q\n    scope: %s\n    sha256: %q\n", key, entry.Name, entry.Scope, entry.SHA256)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "`name` of the caller that will use the key, for logs")
	cmd.Flags().StringVar(&scope, "scope", "all",
		"`scope` of the key: all, operator (everything except starts), read, metrics (only /metrics), or edge (a proxy; only --edge-listen)")
	a.addJSONFlag(cmd)
	return cmd
}
