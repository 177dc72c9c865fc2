package main

import (
	"errors"

	"github.com/spf13/cobra"

	"streamcount/api/apitype"
	"streamcount/client"
)

func (a *app) stopCommand() *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "stop USER [ID]",
		Short: "Stop a stream of a user, or all of them",
		Long: `Stop one of a user's streams and give its slot back. Without an id it is the one
least recently heard from. With --all it is all of them.`,
		Example: `  streamcount stop maya
  streamcount stop maya AQAAcBpUJZZl5lXcA__2Zq66wvS_rTcb9C4z4CUXPKuxSpRG0FYF
  streamcount stop maya --all`,
		Args: between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case all && len(args) == 2:
				return usageError{errors.New("stop takes an id or --all, not both")}
			case all:
				return a.remove(cmd, args[0])
			}
			return a.stop(cmd, args)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "stop all of the user's streams")
	a.addClientFlags(cmd)
	return cmd
}

func (a *app) stop(cmd *cobra.Command, args []string) error {
	return call(a, cmd, func(c *client.Client) (apitype.User, error) {
		if len(args) == 1 {
			return c.StopQuietest(cmd.Context(), args[0])
		}
		return c.StopStream(cmd.Context(), args[0], args[1])
	}, func(u apitype.User) error {
		return a.printf("stopped: %s now has %d of %d streams\n", printable(u.UserID), u.Streams, u.Limit)
	})
}

func (a *app) remove(cmd *cobra.Command, user string) error {
	return call(a, cmd, func(c *client.Client) (apitype.Removed, error) {
		return c.Remove(cmd.Context(), user)
	}, func(r apitype.Removed) error {
		return a.printf("stopped all streams of %s\n", printable(r.UserID))
	})
}
