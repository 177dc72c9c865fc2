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

// stopTime bounds how long a Ctrl-C may take.
const stopTime = 10 * time.Second

func (a *app) heartbeatCommand() *cobra.Command {
	var every pace
	cmd := &cobra.Command{
		Use:   "heartbeat USER ID",
		Short: "Renew a stream once, or keep it alive",
		Long: `Renew a stream once. With --every, keep it alive until Ctrl-C and then stop it;
when it is ended by something else, say why and exit with code 4. --every alone
beats at the pace that the server asks for; --every 10s beats more often.`,
		Example: `  streamcount heartbeat maya AQAAcBpUJZZl5lXcA__2Zq66wvS_rTcb9C4z4CUXPKuxSpRG0FYF
  streamcount heartbeat maya AQAAcBpUJZZl5lXcA__2Zq66wvS_rTcb9C4z4CUXPKuxSpRG0FYF --every`,
		Args: between(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("every") {
				return a.beatOnce(cmd, args[0], args[1])
			}
			return a.keepAlive(cmd, args[0], args[1], time.Duration(every))
		},
	}
	cmd.Flags().Var(&every, "every",
		"keep the stream alive, with a heartbeat at the server's pace or every `duration`")
	cmd.Flags().Lookup("every").NoOptDefVal = serversPace
	a.addClientFlags(cmd)
	return cmd
}

func (a *app) beatOnce(cmd *cobra.Command, user, id string) error {
	return call(a, cmd, func(c *client.Client) (apitype.Stream, error) {
		return c.Heartbeat(cmd.Context(), user, id)
	}, func(s apitype.Stream) error {
		if s.Degraded {
			return a.printf("the server could not reach its store: play on, and beat again soon\n")
		}
		return a.printf("alive: lapses in %s unless another heartbeat comes\n", remaining(s.ExpiresAt))
	})
}

// keepAlive beats until the command's context ends, and then stops the stream.
func (a *app) keepAlive(cmd *cobra.Command, user, id string, every time.Duration) (err error) {
	ctx := cmd.Context()
	c, err := a.client(cmd, every)
	if err != nil {
		return err
	}
	stopping := func() (context.Context, context.CancelFunc) {
		return context.WithTimeout(context.WithoutCancel(ctx), stopTime)
	}
	defer func() {
		ctx, cancel := stopping()
		defer cancel()
		err = errors.Join(err, c.Close(ctx))
	}()
	s, err := c.Resume(ctx, user, id)
	if err != nil {
		return err
	}
	if err := a.showKeeping(s, every); err != nil {
		return err
	}
	select {
	case <-s.Done():
		return s.Err()
	case <-ctx.Done():
	}
	stopCtx, cancel := stopping()
	defer cancel()
	if err := s.Stop(stopCtx); err != nil {
		return fmt.Errorf("%w: the stream lapses by itself", err)
	}
	if s.Err() != nil { // it ended just before
		return s.Err()
	}
	if a.json {
		return nil
	}
	return a.printf("stopped\n")
}

func (a *app) showKeeping(s *client.Stream, every time.Duration) error {
	info := s.Info()
	if a.json {
		return a.printJSON(info)
	}
	asked := time.Duration(info.HeartbeatSeconds) * time.Second
	if every > asked {
		if err := a.printf("--every %v is too slow: the server asks for %v\n", every, asked); err != nil {
			return err
		}
	}
	if every == 0 || every > asked {
		every = asked
	}
	return a.printf("keeping the stream alive, a heartbeat every %v; Ctrl-C stops it\n", every)
}

// serversPace is the value of a bare --every.
const serversPace = "server"

// pace is the value of --every: 0 for the server's own.
type pace time.Duration

// String is the value as it is given.
func (p *pace) String() string {
	if *p == 0 {
		return ""
	}
	return time.Duration(*p).String()
}

// Type names the values in --help.
func (p *pace) Type() string { return "pace" }

// Set reads a duration.
func (p *pace) Set(text string) error {
	if text == serversPace {
		*p = 0
		return nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 100*time.Millisecond {
		return errors.New("a duration of 100ms or more, such as 10s")
	}
	*p = pace(d)
	return nil
}

// joinEvery makes "--every 10s" one argument: pflag takes the value of a flag
// that may stand alone only after "=".
func joinEvery(args []string) []string {
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

// looksLikeDuration is strict enough to leave most user ids alone; one such as
// "10s" must come before --every.
func looksLikeDuration(text string) bool {
	_, err := time.ParseDuration(text)
	return err == nil && !strings.HasPrefix(text, "-")
}
