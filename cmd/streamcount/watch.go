package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"streamcount/api/apitype"
	"streamcount/client"
	"streamcount/internal/display"
)

func (a *app) watchCommand() *cobra.Command {
	var w client.EventOptions
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Print events of streams as they happen",
		Long: `Print each start, stop, expiry and refusal as one line until Ctrl-C. Refusals are those
of the node that serves the connection. If the connection is lost, the command
reconnects and resumes after the last event; if events were missed, it prints a line
with the event "gap". With --json each event is one line of JSON with its cursor,
which can be passed to --after.`,
		Example: `  streamcount watch
  streamcount watch --user maya
  streamcount watch --json | jq -r 'select(.type == "refusal") | .userId'`,
		Args: argRange(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.watch(cmd, w) },
	}
	cmd.Flags().StringVar(&w.User, "user", "", "print only events of this `user`")
	cmd.Flags().StringVar(&w.After, "after", "", "resume after the event with this `cursor`")
	a.addClientFlags(cmd)
	return cmd
}

// watch prints events until the command is interrupted.
func (a *app) watch(cmd *cobra.Command, w client.EventOptions) (err error) {
	ctx := cmd.Context()
	c, err := a.client(cmd, 0)
	if err != nil {
		return err
	}
	defer func() { err = cmp.Or(err, c.Close(ctx)) }()
	w.OnConnection = a.connectionNotice()
	if !a.json {
		if err := a.printf(watchLine, "TIME", "EVENT", "STREAMS", "USER", "REGION", "DEVICE, CONTENT, ORIGIN, REASON"); err != nil {
			return err
		}
	}
	for e, err := range c.Events(ctx, w) {
		if ctx.Err() != nil { // interrupted by the user
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

// connectionNotice returns a function that reports on the error output that the connection is
// lost, once, and that it is restored.
func (a *app) connectionNotice() func(error) {
	lost := false
	return func(err error) {
		var text string
		switch {
		case err != nil && !lost:
			text = fmt.Sprintf("connection lost, reconnecting: %s", a.explain(err))
		case err == nil && lost:
			text = "reconnected"
		default:
			return
		}
		lost = err != nil
		_, _ = fmt.Fprintf(a.errOut, "streamcount: %s\n", printable(text)) // an error of stderr cannot be reported
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
		return a.printf(watchLine, formatTime(e.At), e.Type, "-", "-", "-", printable(e.Detail))
	}
	var s apitype.Stream
	if e.Stream != nil {
		s = *e.Stream
	}
	via := ""
	if s.Via != "" {
		via = "via " + s.Via
	}
	about := joinNonEmpty(", ", formatDevice(s.Device), formatContent(s.Content), via, eventDetail(e.Event))
	return a.printf(watchLine, formatTime(e.At), printable(e.Type), fmt.Sprintf("%d/%d", e.Streams, e.Limit),
		printable(e.UserID), printable(orDash(s.Region)), printable(orDash(about)))
}

// eventDetail returns the reason of an event, the device that replaced the stream, and the
// limits that the event is about.
func eventDetail(e apitype.Event) string {
	text := e.Reason
	if e.By != nil && e.By.Device != nil {
		text += " by " + formatDevice(e.By.Device)
	}
	if e.Type == apitype.EventExpiry && e.Stream != nil && e.Stream.StartedAt != nil && e.At != nil {
		text = "after " + e.At.Sub(e.Stream.StartedAt.Time).Round(time.Second).String()
	}
	if len(e.Limits) == 0 {
		return text
	}
	limits := "limit " + strings.Join(e.Limits, ", ")
	if text == "" {
		return limits
	}
	return text + " for " + limits
}

// printTopUsers prints the output of ls --max.
func (a *app) printTopUsers(b apitype.TopUsers) error {
	rows := [][]string{{"USER", "STREAMS", "LIMIT"}}
	for _, u := range b.Users {
		rows = append(rows, []string{u.UserID, fmt.Sprint(u.Streams), fmt.Sprint(u.Limit)})
	}
	if err := a.printTable(rows); err != nil || !b.More {
		return err
	}
	return a.printf("(and others)\n")
}

var errTopUsersOfUser = usageError{errors.New("--max and --prefix cannot be combined with a user")}
