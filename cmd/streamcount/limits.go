package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"streamcount/api/apitype"
	"streamcount/client"
)

func (a *app) limitsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "limits", Short: "Show and change what users have of their own: a limit or a plan", Args: between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.limitsGetCommand(), a.limitsSetCommand(), a.limitsRemoveCommand())
	return cmd
}

func (a *app) limitsGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get USER", Short: "Show what a user has of their own", Args: between(1, 1),
		Example: `  streamcount limits get maya`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return call(a, cmd, func(c *client.Client) (apitype.UserLimit, error) {
				return c.UserLimit(cmd.Context(), args[0])
			}, a.showLimit)
		},
	}
	a.addClientFlags(cmd)
	return cmd
}

func (a *app) limitsRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rm USER", Short: "Take a user's own limit or plan away", Args: between(1, 1),
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
		Short: "Give a user a limit or plan of their own, or apply all plans and limits of a file at once",
		Long:  fileHelp,
		Example: `  streamcount limits set maya --limit 5
  streamcount limits set maya --plan family
  streamcount limits set --file limits.yaml --dry-run`,
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file.path != "" {
				return a.applyFile(cmd, args, file, "limit", "plan")
			}
			limited := cmd.Flags().Changed("limit")
			if len(args) == 0 || limited == (plan != "") {
				return usageError{fmt.Errorf("want %s (see %s --help)", cmd.UseLine(), cmd.CommandPath())}
			}
			set := apitype.LimitRule{Plan: plan}
			if limited {
				set.Limit = &limit
			}
			return call(a, cmd, func(c *client.Client) (apitype.UserLimit, error) {
				return c.SetUserLimit(cmd.Context(), args[0], set)
			}, a.showLimit)
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "how many streams, 0 to 60; 0 blocks")
	cmd.Flags().StringVar(&plan, "plan", "", "the `name` of a plan")
	file.register(cmd.Flags())
	a.addClientFlags(cmd)
	return cmd
}

func (a *app) showLimit(u apitype.UserLimit) error {
	return a.printf("user %s: %s\n", printable(u.UserID), limitText(u.LimitRule))
}

func limitText(l apitype.LimitRule) string {
	if l.Limit != nil {
		return fmt.Sprintf("limit %d", *l.Limit)
	}
	return "plan " + printable(l.Plan)
}
