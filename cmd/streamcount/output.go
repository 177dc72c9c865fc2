package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"streamcount/api/apitype"
)

// printable is s on one line with every character that could act on a terminal
// shown as an escape. Device names and titles come from viewers.
func printable(s string) string {
	var b strings.Builder
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		s = s[size:]
	}
	return b.String()
}

// printableJSON does the same for JSON, which escapes only what is below space.
// Such characters occur in its strings alone, where an escape means the same.
func printableJSON(doc []byte) string {
	var b strings.Builder
	for _, r := range string(doc) {
		switch {
		case r == '\n' || unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			hi, lo := (r-0x10000)>>10+0xd800, (r-0x10000)&0x3ff+0xdc00
			fmt.Fprintf(&b, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

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
	return a.printf("%s\n", printableJSON(b))
}

// printTable aligns rows in columns, the first row being the heading.
func (a *app) printTable(rows [][]string) error {
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			if i > 0 {
				write(w, "\t")
			}
			write(w, printable(cell))
		}
		write(w, "\n")
	}
	if err := w.Flush(); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// write leaves errors to the Flush of w.
func write(w *tabwriter.Writer, s string) { _, _ = io.WriteString(w, s) }

// printStreams lists what a user watches.
func (a *app) printStreams(streams []apitype.Stream) error {
	rows := [][]string{{"STREAM", "STARTED", "LAPSES IN", "REGION", "DEVICE", "PLAYING", "SESSION"}}
	for _, s := range streams {
		rows = append(rows, []string{
			s.ID, clock(s.StartedAt), remaining(s.ExpiresAt), orDash(s.Region),
			orDash(device(s.Device)), orDash(content(s.Content)), orDash(s.Session),
		})
	}
	return a.printTable(rows)
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

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
