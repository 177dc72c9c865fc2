package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

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
	var set limitFlags
	var file fileFlags
	cmd := &cobra.Command{
		Use:   "set USER [--limit N | --plan PLAN] [--limits NAME=N,...] [--until TIME] | set --file FILE",
		Short: "Set the limit or plan of a user, or apply a file with plans and limits",
		Long: `Set the limit or plan of a user, and the numbers of single limits of the user's plan.
What was set before is replaced. With --until, it ends by itself.

` + fileHelp,
		Example: `  streamcount limits set maya --limit 5
  streamcount limits set maya --plan family
  streamcount limits set maya --plan one-tv --limits tv=2 --until 2027-01-31T00:00:00Z
  streamcount limits set --file limits.yaml --dry-run`,
		Args: argRange(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file.path != "" {
				return a.applyFile(cmd, args, file, []string{"limit", "plan", "limits", "until"}, nil)
			}
			rule, err := set.rule(cmd.Flags())
			if err != nil {
				return err
			}
			if len(args) == 0 || rule.Limit == nil && rule.Plan == "" && len(rule.Limits) == 0 || rule.Limit != nil && rule.Plan != "" {
				return usageError{fmt.Errorf("usage: %s (see %s --help)", cmd.UseLine(), cmd.CommandPath())}
			}
			return call(a, cmd, func(c *client.Client) (apitype.UserLimit, error) {
				return c.SetUserLimit(cmd.Context(), args[0], rule)
			}, a.printLimit)
		},
	}
	set.register(cmd.Flags())
	file.register(cmd.Flags())
	a.addClientFlags(cmd)
	return cmd
}

// limitFlags are the flags for what is set for a user.
type limitFlags struct {
	limit       int
	plan, until string
	limits      map[string]int
}

func (f *limitFlags) register(fs *pflag.FlagSet) {
	fs.IntVar(&f.limit, "limit", 0, "maximum `number` of concurrent streams, 0 to 60; 0 blocks")
	fs.StringVar(&f.plan, "plan", "", "`name` of a plan")
	fs.StringToIntVar(&f.limits, "limits", nil, "`numbers` of limits of the user's plan by name, such as tv=2,kids=1")
	fs.StringVar(&f.until, "until", "", "`time` at which all this ends, in whole seconds, such as 2027-01-31T00:00:00Z")
}

func (f *limitFlags) rule(fs *pflag.FlagSet) (apitype.LimitRule, error) {
	rule := apitype.LimitRule{Plan: f.plan, Limits: f.limits}
	if fs.Changed("limit") {
		rule.Limit = &f.limit
	}
	if f.until != "" {
		rule.Until = new(apitype.Time)
		if err := rule.Until.UnmarshalText([]byte(f.until)); err != nil {
			return rule, usageError{fmt.Errorf("--until: %q is not a time such as 2027-01-31T00:00:00Z", f.until)}
		}
	}
	return rule, nil
}

func (a *app) printLimit(u apitype.UserLimit) error {
	return a.printf("user %s: %s\n", printable(u.UserID), limitText(u.LimitRule))
}

// limitText describes what is set for a user, as "plan one-tv, limits kids=1,tv=2, until
// 2027-01-31T00:00:00Z".
func limitText(l apitype.LimitRule) string {
	var parts []string
	if l.Limit != nil {
		parts = append(parts, fmt.Sprintf("limit %d", *l.Limit))
	}
	if l.Plan != "" {
		parts = append(parts, "plan "+printable(l.Plan))
	}
	var numbers []string
	for _, name := range slices.Sorted(maps.Keys(l.Limits)) {
		numbers = append(numbers, fmt.Sprintf("%s=%d", printable(name), l.Limits[name]))
	}
	if len(numbers) > 0 {
		parts = append(parts, "limits "+strings.Join(numbers, ","))
	}
	if l.Until != nil {
		parts = append(parts, "until "+l.Until.UTC().Format(time.RFC3339))
	}
	return strings.Join(parts, ", ")
}
