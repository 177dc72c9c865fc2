package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"streamcount/api/apitype"
	"streamcount/client"
)

// stopTimeout limits how long the command waits after Ctrl-C until the stream is stopped.
const stopTimeout = 10 * time.Second

func (a *app) heartbeatCommand() *cobra.Command {
	var every heartbeatInterval
	cmd := &cobra.Command{
		Use:   "heartbeat USER ID",
		Short: "Send one heartbeat of a stream, or keep the stream alive",
		Long: `Send one heartbeat of a stream. With --every, send heartbeats until Ctrl-C and then
stop the stream. If the stream ends for another reason, print the reason and exit
with code 4. --every without a value uses the interval of the server; --every 10s
sends heartbeats every 10 seconds.`,
		Example: `  streamcount heartbeat maya AQAAcBpUJZZl5lXcA__2Zq66wvS_rTcb9C4z4CUXPKuxSpRG0FYF
  streamcount heartbeat maya AQAAcBpUJZZl5lXcA__2Zq66wvS_rTcb9C4z4CUXPKuxSpRG0FYF --every`,
		Args: argRange(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("every") {
				return a.heartbeatOnce(cmd, args[0], args[1])
			}
			return a.keepAlive(cmd, args[0], args[1], time.Duration(every))
		},
	}
	cmd.Flags().Var(&every, "every",
		"keep the stream alive with a heartbeat every `duration`, 100ms or more (without a value: the interval of the server)")
	cmd.Flags().Lookup("every").NoOptDefVal = serverInterval
	a.addClientFlags(cmd)
	return cmd
}

func (a *app) heartbeatOnce(cmd *cobra.Command, user, id string) error {
	return call(a, cmd, func(c *client.Client) (apitype.Stream, error) {
		return c.Heartbeat(cmd.Context(), user, id)
	}, func(s apitype.Stream) error {
		if s.Degraded {
			return a.printf("the server could not write the heartbeat to etcd: continue playing, and send another one soon\n")
		}
		return a.printf("alive: expires in %s without another heartbeat\n", formatRemaining(s.ExpiresAt))
	})
}

// keepAlive sends heartbeats until the context of the command ends, and then stops the stream.
func (a *app) keepAlive(cmd *cobra.Command, user, id string, every time.Duration) (err error) {
	ctx := cmd.Context()
	c, err := a.client(cmd, every)
	if err != nil {
		return err
	}
	stopContext := func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	}
	defer func() {
		ctx, cancel := stopContext()
		defer cancel()
		err = errors.Join(err, c.Close(ctx))
	}()
	s, err := c.Resume(ctx, user, id)
	if err != nil {
		return err
	}
	if err := a.printKeepAlive(s, every); err != nil {
		return err
	}
	select {
	case <-s.Done():
		return s.Err()
	case <-ctx.Done():
	}
	stopCtx, cancel := stopContext()
	defer cancel()
	if err := s.Stop(stopCtx); err != nil {
		return fmt.Errorf("%w: the stream will expire", err)
	}
	if s.Err() != nil { // the stream had already ended
		return s.Err()
	}
	if a.json {
		return nil
	}
	return a.printf("stopped\n")
}

func (a *app) printKeepAlive(s *client.Stream, every time.Duration) error {
	info := s.Info()
	if a.json {
		return a.printJSON(info)
	}
	wanted := time.Duration(info.HeartbeatSeconds) * time.Second
	if every > wanted {
		if err := a.printf("--every %v is longer than the interval of the server, which is used: %v\n", every, wanted); err != nil {
			return err
		}
	}
	if every == 0 || every > wanted {
		every = wanted
	}
	return a.printf("keeping the stream alive with a heartbeat every %v; press Ctrl-C to stop it\n", every)
}

// serverInterval is the value of --every without a value.
const serverInterval = "server"

// heartbeatInterval is the value of --every; 0 for the interval of the server.
type heartbeatInterval time.Duration

// String returns the value in the form that Set parses.
func (p *heartbeatInterval) String() string {
	if *p == 0 {
		return ""
	}
	return time.Duration(*p).String()
}

// Type returns the name of the type for help texts.
func (p *heartbeatInterval) Type() string { return "interval" }

// Set parses a duration.
func (p *heartbeatInterval) Set(text string) error {
	if text == serverInterval {
		*p = 0
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 100*time.Millisecond {
		return errors.New("a duration of 100ms or more, such as 10s")
	}
	*p = heartbeatInterval(d)
	return nil
}

// joinEveryFlag turns "--every 10s" into one argument, because pflag accepts an optional value
// only after "=".
func joinEveryFlag(args []string) []string {
	joined := make([]string, 0, len(args))
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if arg == "--" {
			return append(joined, args[i:]...)
		}
		if arg == "--every" && i+1 < len(args) && looksLikeDuration(args[i+1]) {
			i++
			arg += "=" + args[i]
		}
		joined = append(joined, arg)
	}
	return joined
}

// looksLikeDuration reports whether text is a duration. A user id that is one, such as "10s",
// must come before --every.
func looksLikeDuration(text string) bool {
	_, err := time.ParseDuration(text)
	return err == nil && !strings.HasPrefix(text, "-")
}
