package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"streamcount/api/apitype"
	"streamcount/client"
	"streamcount/internal/display"
)

func (a *app) watchCommand() *cobra.Command {
	var w client.Watch
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Follow what happens to streams",
		Long: `Follow what happens to streams until Ctrl-C: each start, stop, expiry and refusal is a
line as it happens. Refusals are those of the node that is asked. A connection that is
lost is made again, and goes on where it was; where something was missed there is a
line that says gap. --json prints each event as one line of JSON, with its cursor,
which --after takes.`,
		Example: `  streamcount watch
  streamcount watch --user maya
  streamcount watch --json | jq -r 'select(.type == "refusal") | .userId'`,
		Args: between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.watch(cmd, w) },
	}
	cmd.Flags().StringVar(&w.User, "user", "", "only what happens to this `user`")
	cmd.Flags().StringVar(&w.After, "after", "", "begin after the event with this `cursor`")
	a.addClientFlags(cmd)
	return cmd
}

// watch prints events until the command is interrupted.
func (a *app) watch(cmd *cobra.Command, w client.Watch) (err error) {
	ctx := cmd.Context()
	c, err := a.client(cmd, 0)
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, c.Close(ctx)) }()
	w.Notice = a.connectionNotice()
	if !a.json {
		if err := a.printf(watchLine, "TIME", "EVENT", "STREAMS", "USER", "REGION", "DEVICE, PLAYING, WHY"); err != nil {
			return err
		}
	}
	for e, err := range c.Events(ctx, w) {
		if ctx.Err() != nil { // interrupted: nothing is wrong
			return nil
		}
		if err == nil {
			err = a.printEvent(e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// connectionNotice says on the error output that the connection was lost, once, and
// that it is there again.
func (a *app) connectionNotice() func(error) {
	lost := false
	return func(err error) {
		var text string
		switch {
		case err != nil && !lost:
			text = fmt.Sprintf("not connected, will keep trying: %s", a.explain(err))
		case err == nil && lost:
			text = "connected again"
		default:
			return
		}
		lost = err != nil
		_, _ = fmt.Fprintf(a.errOut, "streamcount: %s\n", printable(text)) // nobody is left to tell
	}
}

const watchLine = "%-19s  %-7s  %7s  %-20s  %-10s  %s\n"

func (a *app) printEvent(e client.Event) error {
	if a.json {
		b, err := json.Marshal(struct {
			apitype.Event
			Cursor string `json:"cursor"`
		}{e.Event, e.Cursor})
		if err != nil {
			return fmt.Errorf("encode output: %w", err)
		}
		return a.printf("%s\n", display.PrintableJSON(b))
	}
	if e.Type == apitype.EventGap {
		return a.printf(watchLine, clock(e.At), e.Type, "-", "-", "-", printable(e.Detail))
	}
	var s apitype.Stream
	if e.Stream != nil {
		s = *e.Stream
	}
	about := joinedBy(", ", device(s.Device), content(s.Content), why(e.Event))
	return a.printf(watchLine, clock(e.At), printable(e.Type), fmt.Sprintf("%d/%d", e.Streams, e.Limit),
		printable(e.UserID), printable(orDash(s.Region)), printable(orDash(about)))
}

// why is the reason of an event, and what took the stream's place.
func why(e apitype.Event) string {
	text := e.Reason
	if e.By != nil && e.By.Device != nil {
		text += " by " + device(e.By.Device)
	}
	if e.Type == apitype.EventExpiry && e.Stream != nil && e.Stream.StartedAt != nil && e.At != nil {
		text = "after " + e.At.Sub(e.Stream.StartedAt.Time).Round(time.Second).String()
	}
	return text
}

// showBusiest is what ls shows with --most.
func (a *app) showBusiest(b apitype.BusiestUsers) error {
	rows := [][]string{{"USER", "STREAMS", "LIMIT"}}
	for _, u := range b.Users {
		rows = append(rows, []string{u.UserID, fmt.Sprint(u.Streams), fmt.Sprint(u.Limit)})
	}
	if err := a.printTable(rows); err != nil || !b.More {
		return err
	}
	return a.printf("... and others\n")
}

var errMostOfOne = usageError{errors.New("--most lists users: leave the user out")}
