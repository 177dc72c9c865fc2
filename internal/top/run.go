package top

import (
	"context"
	"fmt"
	"io"
	"strings"

	tea "charm.land/bubbletea/v2"

	"streamcount/internal/display"
)

// Run shows a service on the terminal that in and out are, until a key or the end of
// ctx ends it.
func Run(ctx context.Context, cfg Config, in io.Reader, out io.Writer, environ []string) error {
	asking, stop := context.WithCancel(ctx)
	defer stop()
	p := tea.NewProgram(newModel(asking, cfg), tea.WithInput(in), tea.WithOutput(out),
		tea.WithEnvironment(environ), tea.WithoutSignalHandler())
	// By tea.WithContext it would close its input while it still reads there.
	defer context.AfterFunc(ctx, p.Quit)()
	if _, err := p.Run(); err != nil {
		return fmt.Errorf("show the terminal: %w", err)
	}
	return nil
}

// Text is a snapshot in plain words, for whoever does not look at a terminal.
func Text(s Snapshot, cfg Config) string {
	m := newModel(context.Background(), cfg)
	m.data, m.known, m.prefix = s, true, cfg.Prefix
	node := s.Stats.Node
	lines := []string{
		display.Printable(fmt.Sprintf("%s  %s (%s, %s)", cfg.Server, node.ID, orDash(node.Region), orDash(node.Version))),
		figures(cfg.Screen, totals(s.Stats)), perSecond(cfg.Screen, s.Stats.Rates),
		latencies(cfg.Screen, s.Stats.Latency),
	}
	for _, c := range curves(s.History) {
		if len(c.values) > 0 {
			lines = append(lines, fmt.Sprintf("%-11s%s  peak %s", c.name, display.Spark(c.values, 60, 1)[0], c.peak))
		}
	}
	for p := range panels {
		rows := m.list(p)
		if len(rows) == 0 {
			continue
		}
		lines = append(lines, "")
		lines = append(lines, tableLines(cfg.Screen, cfg.Screen.Width, heads[p], rows, order{column: -1})...)
		if p == users && s.Users.More {
			lines = append(lines, "(and more)")
		}
	}
	return strings.Join(lines, "\n") + "\n"
}
