package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"streamcount/api/apitype"
	"streamcount/client"
)

func (a *app) usersCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "users", Short: "Export and erase everything that is stored about a user", Args: argRange(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.usersExportCommand(), a.usersEraseCommand())
	return cmd
}

func (a *app) usersExportCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "export USER", Short: "Print everything that is stored about a user, as JSON", Args: argRange(1, 1),
		Long: `Print everything that is stored about a user, as one JSON document: the streams, the
limit or plan of the user, and their cool-downs. It does not contain logs, audit lines
and the history of events in the memory of nodes.`,
		Example: `  streamcount users export maya
  streamcount users export maya | jq ".streams[].device"`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return call(a, cmd, func(c *client.Client) (apitype.UserData, error) {
				return c.ExportUserData(cmd.Context(), args[0])
			}, func(d apitype.UserData) error { return a.printJSON(d) })
		},
	}
	a.addClientFlags(cmd)
	return cmd
}

func (a *app) usersEraseCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "erase USER", Short: "End the streams of a user and erase everything that is stored about them", Args: argRange(1, 1),
		Long: `End the streams of a user and erase everything that is stored about them: their
streams, their limit or plan, and their cool-downs. The command asks for confirmation,
unless --yes is given. It is safe to repeat. It does not erase logs and audit lines, and
writes an audit line with the id of the user.`,
		Example: `  streamcount users erase maya
  streamcount users erase maya --yes`,
		RunE: func(cmd *cobra.Command, args []string) error {
			question := "end the streams of " + printable(args[0]) + " and erase everything that is stored about them?"
			if err := a.confirm(yes, true, question, "pass --yes to erase"); err != nil {
				return err
			}
			return call(a, cmd, func(c *client.Client) (apitype.ErasedData, error) {
				return c.EraseUserData(cmd.Context(), args[0])
			}, a.printErased)
		},
	}
	cmd.Flags().BoolVar(&yes, "yes", false, "erase without a prompt")
	a.addClientFlags(cmd)
	return cmd
}

func (a *app) printErased(e apitype.ErasedData) error {
	parts := []string{fmt.Sprintf("%d streams", e.Streams)}
	if e.Override {
		parts = append(parts, "the limit or plan")
	}
	parts = append(parts, fmt.Sprintf("%d cool-downs", e.Cooldowns))
	if e.Other > 0 {
		parts = append(parts, fmt.Sprintf("%d other keys", e.Other))
	}
	if err := a.printf("erased of user %s: %s\n", printable(e.UserID), strings.Join(parts, ", ")); err != nil || !e.MarkKept {
		return err
	}
	return a.printf("one key with the id of the user remains until the move of users between shards is complete\n")
}
