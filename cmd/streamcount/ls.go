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
	var most int
	var prefix string
	cmd := &cobra.Command{
		Use:   "ls [USER]",
		Short: "List a user's streams, the busiest users, or the totals of all",
		Example: `  streamcount ls
  streamcount ls --most 20
  streamcount ls maya
  streamcount ls maya --json | jq -r '.active[].id'`,
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			busiest := cmd.Flags().Changed("most") || cmd.Flags().Changed("prefix")
			switch {
			case busiest && len(args) > 0:
				return errMostOfOne
			case busiest:
				return call(a, cmd, func(c *client.Client) (apitype.BusiestUsers, error) {
					return c.BusiestUsers(cmd.Context(), prefix, most)
				}, a.showBusiest)
			case len(args) == 0:
				return call(a, cmd, func(c *client.Client) (apitype.Stats, error) {
					return c.Stats(cmd.Context())
				}, a.showStats)
			}
			return call(a, cmd, func(c *client.Client) (apitype.User, error) {
				return c.List(cmd.Context(), args[0])
			}, a.showUser)
		},
	}
	cmd.Flags().IntVar(&most, "most", 20, "list so many of the busiest users, up to 1000")
	cmd.Flags().StringVar(&prefix, "prefix", "", "list the busiest users whose ids begin with this")
	a.addClientFlags(cmd)
	return cmd
}

func (a *app) showUser(u apitype.User) error {
	if err := a.printf("%s has %d of %d streams\n", printable(u.UserID), u.Streams, u.Limit); err != nil {
		return err
	}
	return a.printStreams(u.Active)
}

func (a *app) showStats(s apitype.Stats) error {
	rows := [][]string{
		{"streams", fmt.Sprint(s.Streams)},
		{"users", fmt.Sprint(s.Users)},
		{"users at the limit", fmt.Sprint(s.UsersAtLimit)},
		{"admitted here", fmt.Sprint(s.Admitted)},
		{"refused here", fmt.Sprint(s.Refused)},
		{"expired", fmt.Sprint(s.Expired)},
	}
	for _, region := range slices.Sorted(maps.Keys(s.Regions)) {
		rows = append(rows, []string{"streams in " + region, fmt.Sprint(s.Regions[region])})
	}
	rows = append(rows,
		[]string{"node", fmt.Sprintf("%s (%s, %s)", s.Node.ID, orDash(s.Node.Region), orDash(s.Node.Version))},
		[]string{"etcd leader", orDash(s.Leader)})
	return a.print(display.Table{Rows: rows, Bare: true})
}
