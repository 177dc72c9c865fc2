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
		Short: "Stop a stream, or all streams of a user",
		Long: `Stop a stream of a user. Without an id, stop the stream whose last heartbeat is the
oldest. With --all, stop all streams of the user.`,
		Example: `  streamcount stop maya
  streamcount stop maya AQAAcBpUJZZl5lXcA__2Zq66wvS_rTcb9C4z4CUXPKuxSpRG0FYF
  streamcount stop maya --all`,
		Args: argRange(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case all && len(args) == 2:
				return usageError{errors.New("--all cannot be combined with a stream id")}
			case all:
				return a.remove(cmd, args[0])
			}
			return a.stop(cmd, args)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "stop all streams of the user")
	a.addClientFlags(cmd)
	return cmd
}

func (a *app) stop(cmd *cobra.Command, args []string) error {
	return call(a, cmd, func(c *client.Client) (apitype.User, error) {
		if len(args) == 1 {
			return c.StopOldestHeartbeat(cmd.Context(), args[0])
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
