package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
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

// printTable prints rows as aligned columns; the first row contains the headings. On a
// terminal the table fits the width; columns whose headings are in keep are not truncated.
func (a *app) printTable(rows [][]string, keep ...string) error {
	return a.print(display.Table{Rows: rows, NeverCut: keep})
}

func (a *app) print(t display.Table) error {
	for _, line := range t.Lines(a.screen) {
		if err := a.printf("%s\n", line); err != nil {
			return err
		}
	}
	return nil
}

// expiresSoon is the remaining time at which a stream is highlighted.
const expiresSoon = 15 * time.Second

// printStreams lists streams. If the credential has the scope read, streams have handles
// instead of ids.
func (a *app) printStreams(streams []apitype.Stream) error {
	rows := [][]string{{"STREAM", "STARTED", "EXPIRES IN", "REGION", "DEVICE", "CONTENT", "SESSION"}}
	for _, s := range streams {
		rows = append(rows, []string{
			cmp.Or(s.ID, s.Handle), a.formatStart(s.StartedAt), a.formatTimeLeft(s.ExpiresAt), orDash(s.Region),
			orDash(formatDevice(s.Device)), orDash(formatContent(s.Content)), orDash(s.Session),
		})
	}
	for _, c := range streamColumns {
		if slices.ContainsFunc(streams, func(s apitype.Stream) bool { return c.text(s) != "" }) {
			rows[0] = append(rows[0], c.heading)
			for i, s := range streams {
				rows[i+1] = append(rows[i+1], orDash(c.text(s)))
			}
		}
	}
	return a.print(display.Table{Rows: rows, NeverCut: []string{"STREAM"}, Tone: func(row, column int, _ string) display.Tone {
		expires := streams[row-1].ExpiresAt
		switch {
		case column == 0:
			return display.Good
		case column == 2 && expires != nil && time.Until(expires.Time) < expiresSoon:
			return display.Warn
		}
		return display.Plain
	}})
}

// streamColumns are the columns that are printed if a stream has a value for them.
var streamColumns = []struct {
	heading string
	text    func(apitype.Stream) string
}{
	{"VIA", func(s apitype.Stream) string { return s.Via }},
	{"PROFILE", func(s apitype.Stream) string { return s.Profile }},
	{"LABELS", func(s apitype.Stream) string {
		var labels []string
		for _, key := range slices.Sorted(maps.Keys(s.Labels)) {
			labels = append(labels, key+"="+s.Labels[key])
		}
		return strings.Join(labels, " ")
	}},
	{"PRIORITY", func(s apitype.Stream) string {
		if s.Priority == nil {
			return ""
		}
		return strconv.Itoa(*s.Priority)
	}},
	{"BLOCKS", func(s apitype.Stream) string { return strings.Join(s.Blocks, ", ") }},
	{"ENOUGH", func(s apitype.Stream) string {
		switch {
		case s.Enough == nil:
			return ""
		case *s.Enough:
			return "yes"
		}
		return "no"
	}},
}

// formatStart returns how long ago t is on a terminal, and the time otherwise.
func (a *app) formatStart(t *apitype.Time) string {
	if !a.screen.Terminal || t == nil {
		return formatTime(t)
	}
	return display.Age(time.Since(t.Time)) + " ago"
}

// formatTimeLeft returns the time until t, rounded on a terminal.
func (a *app) formatTimeLeft(t *apitype.Time) string {
	if !a.screen.Terminal || t == nil {
		return formatRemaining(t)
	}
	return display.Age(time.Until(t.Time))
}

func formatTime(t *apitype.Time) string {
	if t == nil {
		return "-"
	}
	return t.Local().Format(time.DateTime)
}

func formatRemaining(t *apitype.Time) string {
	if t == nil {
		return "-"
	}
	return max(time.Until(t.Time), 0).Round(time.Second).String()
}

func formatDevice(d *apitype.Device) string {
	if d == nil {
		return ""
	}
	return withDetails(d.Name, d.Type, d.ID)
}

func formatContent(c *apitype.Content) string {
	if c == nil {
		return ""
	}
	return withDetails(append([]string{c.Title, c.ID, c.Type}, c.Labels...)...)
}

// withDetails returns the first non-empty text followed by the others in parentheses.
func withDetails(parts ...string) string {
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

// joinNonEmpty joins the texts that are not empty.
func joinNonEmpty(sep string, parts ...string) string {
	return strings.Join(slices.DeleteFunc(parts, func(p string) bool { return p == "" }), sep)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
