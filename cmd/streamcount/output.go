package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"streamcount/api/apitype"
	"streamcount/internal/display"
)

func printable(s string) string { return display.Printable(s) }

func (a *app) addJSONFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&a.json, "json", false, "print JSON")
}

func (a *app) printf(format string, args ...any) error {
	if _, err := fmt.Fprintf(a.out, format, args...); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

func (a *app) printJSON(v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return fmt.Errorf("encode output: %w", err)
	}
	return a.printf("%s\n", display.PrintableJSON(b))
}

// printTable aligns rows in columns, the first row being the heading. On a terminal
// it fits the width; columns named by keep are never cut for that.
func (a *app) printTable(rows [][]string, keep ...string) error {
	return a.print(display.Table{Rows: rows, Keep: keep})
}

func (a *app) print(t display.Table) error {
	for _, line := range t.Lines(a.screen) {
		if err := a.printf("%s\n", line); err != nil {
			return err
		}
	}
	return nil
}

// soon is when a stream that lapses deserves a look.
const soon = 15 * time.Second

// printStreams lists what a user watches.
func (a *app) printStreams(streams []apitype.Stream) error {
	rows := [][]string{{"STREAM", "STARTED", "LAPSES IN", "REGION", "DEVICE", "PLAYING", "SESSION"}}
	for _, s := range streams {
		rows = append(rows, []string{
			s.ID, a.since(s.StartedAt), a.left(s.ExpiresAt), orDash(s.Region),
			orDash(device(s.Device)), orDash(content(s.Content)), orDash(s.Session),
		})
	}
	return a.print(display.Table{Rows: rows, Keep: []string{"STREAM"}, Tone: func(row, column int, _ string) display.Tone {
		expires := streams[row-1].ExpiresAt
		switch {
		case column == 0:
			return display.Good
		case column == 2 && expires != nil && time.Until(expires.Time) < soon:
			return display.Warn
		}
		return display.Plain
	}})
}

// since is when t was: for people how long ago, for others the clock.
func (a *app) since(t *apitype.Time) string {
	if !a.screen.Terminal || t == nil {
		return clock(t)
	}
	return display.Age(time.Since(t.Time)) + " ago"
}

// left is the time until t: for people in the largest unit that says enough.
func (a *app) left(t *apitype.Time) string {
	if !a.screen.Terminal || t == nil {
		return remaining(t)
	}
	return display.Age(time.Until(t.Time))
}

func clock(t *apitype.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

func remaining(t *apitype.Time) string {
	if t == nil {
		return "-"
	}
	return max(time.Until(t.Time), 0).Round(time.Second).String()
}

func device(d *apitype.Device) string {
	if d == nil {
		return ""
	}
	return joined(d.Name, d.Type, d.ID)
}

func content(c *apitype.Content) string {
	if c == nil {
		return ""
	}
	return joined(c.Title, c.ID)
}

// joined is the first text with the others in brackets, as far as they exist.
func joined(parts ...string) string {
	var some []string
	for _, p := range parts {
		if p != "" {
			some = append(some, p)
		}
	}
	if len(some) < 2 {
		return strings.Join(some, "")
	}
	return fmt.Sprintf("%s (%s)", some[0], strings.Join(some[1:], ", "))
}

// joinedBy is the texts that are not empty.
func joinedBy(sep string, parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), sep)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
