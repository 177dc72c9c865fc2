package main

import (
	"fmt"
	"maps"
	"slices"

	"github.com/spf13/cobra"

	"streamcount/api/apitype"
	"streamcount/client"
	"streamcount/internal/display"
)

func (a *app) lsCommand() *cobra.Command {
	var limit int
	var prefix string
	cmd := &cobra.Command{
		Use:   "ls [USER]",
		Short: "List the streams of a user, the users with the most streams, or the totals",
		Example: `  streamcount ls
  streamcount ls --max 20
  streamcount ls maya
  streamcount ls maya --json | jq -r '.active[].id'`,
		Args: argRange(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			topUsers := cmd.Flags().Changed("max") || cmd.Flags().Changed("prefix")
			switch {
			case topUsers && len(args) > 0:
				return errTopUsersOfUser
			case topUsers:
				return call(a, cmd, func(c *client.Client) (apitype.TopUsers, error) {
					return c.TopUsers(cmd.Context(), prefix, limit)
				}, a.printTopUsers)
			case len(args) == 0:
				return call(a, cmd, func(c *client.Client) (apitype.Stats, error) {
					return c.Stats(cmd.Context())
				}, a.printStats)
			}
			return call(a, cmd, func(c *client.Client) (apitype.User, error) {
				return c.List(cmd.Context(), args[0])
			}, a.printUser)
		},
	}
	cmd.Flags().IntVar(&limit, "max", 20, "list this `number` of users with the most streams, 1 to 1000")
	cmd.Flags().StringVar(&prefix, "prefix", "", "list the users with the most streams whose ids begin with this `text`")
	a.addClientFlags(cmd)
	return cmd
}

func (a *app) printUser(u apitype.User) error {
	if err := a.printf("%s has %d of %d streams\n", printable(u.UserID), u.Streams, u.Limit); err != nil {
		return err
	}
	return a.printStreams(u.Active)
}

func (a *app) printStats(s apitype.Stats) error {
	rows := [][]string{
		{"streams", fmt.Sprint(s.Streams)},
		{"users", fmt.Sprint(s.Users)},
		{"users at the limit", fmt.Sprint(s.UsersAtLimit)},
		{"admitted by this node", fmt.Sprint(s.Admitted)},
		{"refused by this node", fmt.Sprint(s.Refused)},
		{"expired", fmt.Sprint(s.Expired)},
	}
	for _, region := range slices.Sorted(maps.Keys(s.Regions)) {
		rows = append(rows, []string{"streams in " + region, fmt.Sprint(s.Regions[region])})
	}
	rows = append(rows,
		[]string{"node", fmt.Sprintf("%s (%s, %s)", s.Node.ID, orDash(s.Node.Region), orDash(s.Node.Version))},
		[]string{"etcd leader", orDash(s.Leader)})
	return a.print(display.Table{Rows: rows, NoHeadings: true})
}
