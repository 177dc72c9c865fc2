package main

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"streamcount/api/apitype"
	"streamcount/client"
)

func (a *app) startCommand() *cobra.Command {
	var req apitype.Start
	var dev apitype.Device
	var con apitype.Content
	cmd := &cobra.Command{
		Use:   "start USER",
		Short: "Start a stream of a user",
		Long: `Start a stream: take one of the user's slots and print the stream's id. The
stream lapses unless heartbeats follow (see "streamcount heartbeat"). When all
slots are taken, the streams that hold them are printed, with exit code 3.`,
		Example: `  streamcount start maya --device-name "Living room TV"
  streamcount heartbeat maya "$(streamcount start maya --json | jq -r .stream.id)" --every`,
		Args: between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if dev != (apitype.Device{}) {
				req.Device = &dev
			}
			if con != (apitype.Content{}) {
				req.Content = &con
			}
			err := call(a, cmd, func(c *client.Client) (apitype.User, error) {
				return c.StartStream(cmd.Context(), args[0], req)
			}, a.showStarted)
			if full, ok := errors.AsType[*client.LimitError](err); ok && !a.json && len(full.Active) > 0 {
				return errors.Join(a.printStreams(full.Active), err)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Session, "session", "",
		"`id` of the playback: a start with that of a live stream takes over its slot")
	f.StringVar(&req.Replaces, "replaces", "", "`id` of a stream to end in favour of this one")
	f.StringVar(&req.OnLimit, "on-limit", "",
		"what to `do` when all slots are taken: deny or replace-oldest (default deny)")
	f.StringVar(&dev.Name, "device-name", "", "the device's `name`, for people")
	f.StringVar(&dev.ID, "device-id", "", "the device's own `id`")
	f.StringVar(&dev.Type, "device-type", "", "what `kind` of device it is")
	f.StringVar(&con.ID, "content-id", "", "`id` of what is playing")
	f.StringVar(&con.Title, "content-title", "", "its `title`, for people")
	f.StringVar(&req.Plan, "plan", "", "the user's `plan`, as the calling service knows it")
	a.addClientFlags(cmd)
	return cmd
}

func (a *app) showStarted(u apitype.User) error {
	s := u.Stream
	ttl, pace := time.Duration(s.TTLSeconds)*time.Second, time.Duration(s.HeartbeatSeconds)*time.Second
	return a.printf("stream      %s\n%s now has %d of %d streams\n"+
		"it lapses in %v unless a heartbeat comes (every %v): streamcount heartbeat %s %s --every\n",
		printable(s.ID), printable(u.UserID), u.Streams, u.Limit, ttl, pace, printable(u.UserID), printable(s.ID))
}
