package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"streamcount/api/apitype"
	"streamcount/client"
)

func (a *app) limitsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "limits", Short: "Show and change the limits and plans of single users", Args: argRange(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.limitsGetCommand(), a.limitsSetCommand(), a.limitsRemoveCommand())
	return cmd
}

func (a *app) limitsGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get USER", Short: "Show the limit or plan of a user", Args: argRange(1, 1),
		Example: `  streamcount limits get maya`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return call(a, cmd, func(c *client.Client) (apitype.UserLimit, error) {
				return c.UserLimit(cmd.Context(), args[0])
			}, a.printLimit)
		},
	}
	a.addClientFlags(cmd)
	return cmd
}

func (a *app) limitsRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rm USER", Short: "Remove the limit or plan of a user", Args: argRange(1, 1),
		Example: `  streamcount limits rm maya`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return call(a, cmd, func(c *client.Client) (apitype.UserLimit, error) {
				return c.RemoveUserLimit(cmd.Context(), args[0])
			}, func(u apitype.UserLimit) error {
				return a.printf("removed from user %s: %s\n", printable(u.UserID), limitText(u.LimitRule))
			})
		},
	}
	a.addClientFlags(cmd)
	return cmd
}

func (a *app) limitsSetCommand() *cobra.Command {
	var limit int
	var plan string
	var file fileFlags
	cmd := &cobra.Command{
		Use:   "set USER --limit N | set USER --plan PLAN | set --file FILE",
		Short: "Set the limit or plan of a user, or apply a file with plans and limits",
		Long:  "Set the limit or plan of a user.\n\n" + fileHelp,
		Example: `  streamcount limits set maya --limit 5
  streamcount limits set maya --plan family
  streamcount limits set --file limits.yaml --dry-run`,
		Args: argRange(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file.path != "" {
				return a.applyFile(cmd, args, file, []string{"limit", "plan"}, nil)
			}
			limited := cmd.Flags().Changed("limit")
			if len(args) == 0 || limited == (plan != "") {
				return usageError{fmt.Errorf("usage: %s (see %s --help)", cmd.UseLine(), cmd.CommandPath())}
			}
			set := apitype.LimitRule{Plan: plan}
			if limited {
				set.Limit = &limit
			}
			return call(a, cmd, func(c *client.Client) (apitype.UserLimit, error) {
				return c.SetUserLimit(cmd.Context(), args[0], set)
			}, a.printLimit)
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "maximum `number` of concurrent streams, 0 to 60; 0 blocks")
	cmd.Flags().StringVar(&plan, "plan", "", "`name` of a plan")
	file.register(cmd.Flags())
	a.addClientFlags(cmd)
	return cmd
}

func (a *app) printLimit(u apitype.UserLimit) error {
	return a.printf("user %s: %s\n", printable(u.UserID), limitText(u.LimitRule))
}

func limitText(l apitype.LimitRule) string {
	if l.Limit != nil {
		return fmt.Sprintf("limit %d", *l.Limit)
	}
	return "plan " + printable(l.Plan)
}
