package main

import (
	"time"

	"github.com/spf13/cobra"

	"streamcount/api/apitype"
	"streamcount/client"
)

func (a *app) tokensCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "tokens",
		Short: "Show and rotate the keys of playback tokens",
		Args:  argRange(0, 0),
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.tokenKeysCommand(), a.rotateTokenKeyCommand())
	return cmd
}

func (a *app) tokenKeysCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "keys",
		Short:   "Show the keys of playback tokens",
		Example: "  streamcount tokens keys",
		Args:    argRange(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return call(a, cmd, func(c *client.Client) (apitype.TokenKeys, error) { return c.TokenKeys(cmd.Context()) }, a.printTokenKeys)
		},
	}
	a.addClientFlags(cmd)
	return cmd
}

func (a *app) rotateTokenKeyCommand() *cobra.Command {
	var now bool
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Create the next key of playback tokens",
		Long: `Create the next key of playback tokens. It is published for one hour before it signs,
so that edges that cache the keys have it. Tokens of the previous key remain valid
until they expire. Nodes rotate the key every 30 days without this command. It is
safe to repeat.

With --now the next key signs after 20 seconds, when all nodes have published it.
Edges that have cached the keys reject its tokens until they fetch the keys again.`,
		Example: `  streamcount tokens rotate
  streamcount tokens rotate --now`,
		Args: argRange(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return call(a, cmd, func(c *client.Client) (apitype.TokenKeys, error) { return c.RotateTokenKey(cmd.Context(), now) }, a.printTokenKeys)
		},
	}
	cmd.Flags().BoolVar(&now, "now", false, "sign with the next key as soon as all nodes have published it")
	a.addClientFlags(cmd)
	return cmd
}

func (a *app) printTokenKeys(k apitype.TokenKeys) error {
	rows := [][]string{{"KEY", "ALGORITHM", "STATE", "SIGNS FROM", "REMOVED"}}
	for _, key := range k.Keys {
		rows = append(rows, []string{key.KID, key.Algorithm, key.State, timeText(key.SignsFrom), timeText(key.RemovedAt)})
	}
	return a.printTable(rows)
}

// timeText returns a time, or "-" for none.
func timeText(t *apitype.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}
