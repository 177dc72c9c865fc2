package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"streamcount/api/apitype"
	"streamcount/client"
)

func (a *app) startCommand() *cobra.Command {
	var req apitype.Start
	var dev apitype.Device
	var con apitype.Content
	var more startAttributes
	cmd := &cobra.Command{
		Use:   "start USER",
		Short: "Start a stream",
		Long: `Start a stream of a user and print its id. The stream expires without heartbeats (see
"streamcount heartbeat"). If a limit of the user is reached, the command prints the
active streams and exits with code 3. Under a plan with several limits, BLOCKS names
the limits that a stream counts for, and ENOUGH whether the end of that stream alone
is enough. To end streams in the same step, repeat the command with --replaces.

A user id is any text of 1 to 128 bytes. Quote characters that are special in the
shell, and put "--" before an id that begins with a hyphen: streamcount start -- -n`,
		Example: `  streamcount start maya --device-name "Living room TV"
  streamcount start 'CORP\ann'
  streamcount heartbeat maya "$(streamcount start maya --json | jq -r .stream.id)" --every`,
		Args: argRange(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if dev != (apitype.Device{}) {
				req.Device = &dev
			}
			if con.ID != "" || con.Title != "" || con.Type != "" || len(con.Labels) > 0 {
				req.Content = &con
			}
			if err := more.addTo(cmd, &req); err != nil {
				return err
			}
			err := call(a, cmd, func(c *client.Client) (apitype.User, error) {
				return c.StartStream(cmd.Context(), args[0], req)
			}, a.printStarted)
			if full, ok := errors.AsType[*client.LimitError](err); ok && !a.json && len(full.Active) > 0 {
				return errors.Join(a.printStreams(full.Active), err)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&req.Session, "session", "",
		"`id` of the playback; an active stream with the same session is replaced by this one")
	f.StringSliceVar((*[]string)(&req.Replaces), "replaces", nil,
		"`id` of a stream of the user that is ended in the same transaction; repeat it for several")
	f.StringVar(&req.OnLimit, "on-limit", "",
		"`policy` at the limit: deny or replace-oldest (default deny)")
	f.StringVar(&dev.Name, "device-name", "", "display `name` of the device")
	f.StringVar(&dev.ID, "device-id", "", "`id` of the device")
	f.StringVar(&dev.Type, "device-type", "", "`type` of the device, such as tv")
	f.StringVar(&con.ID, "content-id", "", "`id` of the content")
	f.StringVar(&con.Title, "content-title", "", "display `title` of the content")
	f.StringVar(&con.Type, "content-type", "", "`type` of the content, such as live, for limits of plans")
	f.StringSliceVar(&con.Labels, "content-label", nil, "`label` of the content, for limits of plans; repeat it for several")
	more.register(f, &req)
	f.StringVar(&req.Plan, "plan", "", "`plan` of the user; a limit or plan that is set for the user takes precedence")
	a.addClientFlags(cmd)
	return cmd
}

// startAttributes are the flags of the attributes for limits of plans that are neither those
// of the device nor of the content.
type startAttributes struct {
	labels   []string
	priority int
}

func (s *startAttributes) register(f *pflag.FlagSet, req *apitype.Start) {
	f.StringVar(&req.Profile, "profile", "", "`profile` of the account that watches")
	f.StringSliceVar(&s.labels, "label", nil, "a label of the stream as `key=value`; repeat it for several")
	f.IntVar(&s.priority, "priority", 5, "`number` from 0 to 9: how important the stream is")
	f.StringVar(&req.Network, "network", "", "a `text` that is the same for all devices on a network")
}

func (s *startAttributes) addTo(cmd *cobra.Command, req *apitype.Start) error {
	if cmd.Flags().Changed("priority") {
		req.Priority = &s.priority
	}
	for _, label := range s.labels {
		key, value, ok := strings.Cut(label, "=")
		if !ok || key == "" {
			return usageError{fmt.Errorf("label %q: want key=value", label)}
		}
		if req.Labels == nil {
			req.Labels = apitype.Labels{}
		}
		req.Labels[key] = value
	}
	return nil
}

func (a *app) printStarted(u apitype.User) error {
	s := u.Stream
	ttl, pace := time.Duration(s.TTLSeconds)*time.Second, time.Duration(s.HeartbeatSeconds)*time.Second
	return a.printf("stream      %s\n%s now has %d of %d streams\n"+
		"it expires in %v without a heartbeat; send one every %v: streamcount heartbeat --every %s\n",
		printable(s.ID), printable(u.UserID), u.Streams, u.Limit, ttl, pace, arguments(u.UserID, s.ID))
}
