package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"streamcount/api/apitype"
	"streamcount/client"
)

func (a *app) plansCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "plans", Short: "Show and change plans, which are named limits", Args: argRange(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.plansListCommand(), a.plansGetCommand(), a.plansSetCommand(), a.plansRemoveCommand(),
		a.plansTryCommand(), a.plansExplainCommand())
	return cmd
}

func (a *app) plansListCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "ls", Short: "List the plans", Args: argRange(0, 0),
		Example: `  streamcount plans ls`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return call(a, cmd, func(c *client.Client) ([]apitype.Plan, error) {
				return c.Plans(cmd.Context())
			}, func(all []apitype.Plan) error {
				rows := [][]string{{"PLAN", "LIMIT", "ON LIMIT", "COUNTS", "FURTHER LIMITS"}}
				for _, p := range all {
					rows = append(rows, []string{p.Name, fmt.Sprint(totalLimit(p.PlanRule)), p.OnLimit, p.Count, limitNames(p.PlanRule)})
				}
				return a.printTable(rows, "PLAN")
			})
		},
	}
	a.addClientFlags(cmd)
	return cmd
}

func (a *app) plansGetCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "get PLAN", Aliases: []string{"show"}, Short: "Show a plan with all of its limits", Args: argRange(1, 1),
		Example: `  streamcount plans get family`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return call(a, cmd, func(c *client.Client) (apitype.Plan, error) {
				return c.Plan(cmd.Context(), args[0])
			}, a.printPlan)
		},
	}
	a.addClientFlags(cmd)
	return cmd
}

func (a *app) plansRemoveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "rm PLAN", Short: "Remove a plan; its users then have the default plan", Args: argRange(1, 1),
		Example: `  streamcount plans rm family`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return call(a, cmd, func(c *client.Client) (apitype.Plan, error) {
				return c.RemovePlan(cmd.Context(), args[0])
			}, func(p apitype.Plan) error {
				return a.printf("removed plan %s: %s\n", printable(p.Name), planText(p.PlanRule))
			})
		},
	}
	a.addClientFlags(cmd)
	return cmd
}

func (a *app) plansSetCommand() *cobra.Command {
	var set apitype.PlanRule
	var file fileFlags
	cmd := &cobra.Command{
		Use:   "set PLAN --limit N | set PLAN --file FILE | set --file FILE",
		Short: "Create or change a plan, or apply a file with plans and limits",
		Long: "Create or change a plan. With a name and --file, the file contains the members of this plan,\n" +
			"as YAML or JSON.\n\n" + fileHelp,
		Example: `  streamcount plans set family --limit 4 --on-limit replace-oldest
  streamcount plans set student --limit 1 --count devices
  streamcount plans set family --file family.yaml
  streamcount plans set --file rules.yaml --yes`,
		Args: argRange(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file.path != "" {
				return a.applyFile(cmd, args, file, []string{"limit", "on-limit", "count"}, planInFile)
			}
			if len(args) == 0 || !cmd.Flags().Changed("limit") {
				return usageError{fmt.Errorf("usage: %s (see %s --help)", cmd.UseLine(), cmd.CommandPath())}
			}
			return call(a, cmd, func(c *client.Client) (apitype.Plan, error) {
				return c.SetPlan(cmd.Context(), args[0], set)
			}, a.printPlan)
		},
	}
	set.Limit = new(int)
	cmd.Flags().IntVar(set.Limit, "limit", 0, "maximum `number` of concurrent streams, 0 to 60; 0 blocks")
	cmd.Flags().StringVar(&set.OnLimit, "on-limit", "deny", "`policy` at the limit: deny, or replace-oldest or replace-lowest, which a start may then request")
	cmd.Flags().StringVar(&set.Count, "count", "streams", "`unit` that is counted: streams, content or devices")
	file.register(cmd.Flags())
	a.addClientFlags(cmd)
	return cmd
}

// planText returns a plan in one line.
func planText(p apitype.PlanRule) string {
	text := totalText(p)
	if names := limitNames(p); names != "-" {
		text += ", further limits " + names
	}
	return text
}

// totalText returns the members of a plan that are not further limits.
func totalText(p apitype.PlanRule) string {
	text := fmt.Sprintf("limit %d", totalLimit(p))
	if p.OnLimit != "" && p.OnLimit != "deny" {
		text += ", starts may request " + printable(p.OnLimit)
	}
	if p.Count != "" && p.Count != "streams" {
		text += ", counts " + printable(p.Count)
	}
	return text
}

// totalLimit returns the limit of all streams. A service always states it.
func totalLimit(p apitype.PlanRule) int {
	if p.Limit == nil {
		return maxLimit
	}
	return *p.Limit
}

// maxLimit is the limit of a plan that states only further limits.
const maxLimit = 60

// limitNames returns the further limits of a plan, as "tv 1, kids 2", or "-".
func limitNames(p apitype.PlanRule) string {
	var names []string
	for _, l := range p.Limits {
		names = append(names, fmt.Sprintf("%s %d", printable(l.Name), l.Limit))
	}
	return orDash(strings.Join(names, ", "))
}

// fileFlags are the flags for applying a file.
type fileFlags struct {
	path        string
	yes, dryRun bool
}

func (f *fileFlags) register(fs *pflag.FlagSet) {
	fs.StringVar(&f.path, "file", "", "YAML `file` with plans and limits; - is the standard input")
	fs.BoolVar(&f.yes, "yes", false, "with --file: apply the changes without a prompt")
	fs.BoolVar(&f.dryRun, "dry-run", false, "with --file: only show the changes")
}
