package top

import (
	"context"
	"fmt"
	"io"
	"strings"

	tea "charm.land/bubbletea/v2"

	"streamcount/internal/display"
)

// Run displays the service on the terminal of in and out until the user quits or ctx ends.
func Run(ctx context.Context, cfg Config, in io.Reader, out io.Writer, environ []string) error {
	requests, stop := context.WithCancel(ctx)
	defer stop()
	p := tea.NewProgram(newModel(requests, cfg), tea.WithInput(in), tea.WithOutput(out),
		tea.WithEnvironment(environ), tea.WithoutSignalHandler())
	// tea.WithContext is not used: it closes the input while it is being read.
	defer context.AfterFunc(ctx, p.Quit)()
	if _, err := p.Run(); err != nil {
		return fmt.Errorf("show the terminal: %w", err)
	}
	return nil
}

// Text formats a snapshot as plain text.
func Text(s Snapshot, cfg Config) string {
	m := newModel(context.Background(), cfg)
	m.data, m.loaded, m.prefix = s, true, cfg.Prefix
	node := s.Stats.Node
	lines := []string{
		display.Printable(fmt.Sprintf("%s  %s (%s, %s)", cfg.Server, node.ID, orDash(node.Region), orDash(node.Version))),
		labelledValues(cfg.Screen, totals(s.Stats)), ratesLine(cfg.Screen, s.Stats.Rates),
		latencyLine(cfg.Screen, s.Stats.Latency),
	}
	for _, c := range seriesOf(s.History) {
		if len(c.values) > 0 {
			lines = append(lines, fmt.Sprintf("%-11s%s  peak %s", c.name, display.Sparkline(c.values, 60, 1)[0], c.peak))
		}
	}
	for p := range panelCount {
		rows := m.sortedRows(p)
		if len(rows) == 0 {
			continue
		}
		lines = append(lines, "")
		lines = append(lines, tableLines(cfg.Screen, cfg.Screen.Width, headings[p], rows, sortOrder{column: -1})...)
		if p == users && s.Users.More {
			lines = append(lines, "(and others)")
		}
	}
	return strings.Join(lines, "\n") + "\n"
}
