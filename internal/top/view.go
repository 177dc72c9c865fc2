package top

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"streamcount/api/apitype"
	"streamcount/internal/display"
)

const (
	wideWidth  = 110 // columns at which all panels are shown
	tallHeight = 32  // lines at which the sparklines are higher
	divider    = " │ "
)

// draw returns the screen: exactly as many lines as it has, none wider than it.
func (m model) draw() string {
	lines := append(m.header(), m.sparklines()...)
	lines = append(lines, m.statusLine())
	if m.help {
		lines = append(lines, m.helpText()...)
	} else {
		lines = append(lines, m.body()...)
	}
	lines = lines[:min(len(lines), max(m.height-1, 0))]
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	lines = append(lines, m.footer())
	for i, line := range lines {
		lines[i] = display.Truncate(line, m.width)
	}
	return strings.Join(lines, "\n")
}

func (m model) paint(t display.Tone, s string) string { return m.cfg.Screen.Paint(t, s) }

// header returns the lines with the server, the state of the connection and the totals.
func (m model) header() []string {
	state := m.paint(display.Good, "live")
	switch age, stale := m.stale(); {
	case m.paused:
		state = m.paint(display.Warn, "PAUSED")
	case !m.loaded:
		state = m.paint(display.Warn, "connecting")
	case stale:
		state = m.paint(display.Bad, "STALE: "+display.Age(age)+" old")
	}
	s := m.data.Stats
	title := m.paint(display.Strong, "streamcount") + "  " + display.Printable(m.cfg.Server)
	if m.loaded {
		title += "  " + display.Printable(fmt.Sprintf("%s (%s, %s)", s.Node.ID, orDash(s.Node.Region), orDash(s.Node.Version)))
	}
	room := max(m.width-display.Width(state)-2, 0)
	return []string{
		display.Pad(title, room, false) + "  " + state,
		labelledValues(m.cfg.Screen, totals(s)), ratesLine(m.cfg.Screen, s.Rates), latencyLine(m.cfg.Screen, s.Latency),
	}
}

// labelledValues formats names and values on one line.
func labelledValues(s display.Screen, list [][2]string) string {
	var parts []string
	for _, f := range list {
		parts = append(parts, s.Paint(display.Faint, f[0])+" "+s.Paint(display.Strong, f[1]))
	}
	return strings.Join(parts, "  ")
}

func totals(s apitype.Stats) [][2]string {
	list := [][2]string{
		{"streams", display.Count(s.Streams)}, {"users", display.Count(s.Users)},
		{"at the limit", display.Count(s.UsersAtLimit)}, {"nodes", display.Count(len(s.Nodes))},
		{"refused here", display.Count(s.Refused)},
	}
	for _, via := range slices.Sorted(maps.Keys(s.Via)) {
		list = append(list, [2]string{"via " + via, display.Count(s.Via[via])})
	}
	return list
}

func ratesLine(s display.Screen, r apitype.Rates) string {
	return s.Paint(display.Faint, "per second:") + " " + labelledValues(s, [][2]string{
		{"starts", display.Rate(r.Starts)}, {"stops", display.Rate(r.Stops)},
		{"expired", display.Rate(r.Expiries)}, {"refused", display.Rate(r.Refusals)},
		{"heartbeats", display.Rate(r.Heartbeats)},
	})
}

func latencyLine(s display.Screen, l apitype.Latency) string {
	var list [][2]string
	for _, c := range []struct {
		name string
		p    apitype.Percentiles
	}{{"start", l.Start}, {"heartbeat", l.Heartbeat}, {"stop", l.Stop}} {
		value := "-"
		if c.p.Count > 0 {
			value = fmt.Sprintf("%.1f/%.1f", c.p.P50, c.p.P99)
		}
		list = append(list, [2]string{c.name, value})
	}
	return s.Paint(display.Faint, "p50/p99 ms:") + " " + labelledValues(s, list)
}

// sparklines draws the history of the last hour.
func (m model) sparklines() []string {
	rows := 1
	if m.height >= tallHeight {
		rows = 3
	}
	var lines []string
	for _, c := range seriesOf(m.data.History) {
		name := fmt.Sprintf("%-11s", c.name)
		peak := "  peak " + c.peak
		spark := display.Sparkline(c.values, m.width-len(name)-14, rows)
		for i, bars := range spark {
			left, right := strings.Repeat(" ", len(name)), ""
			if i == len(spark)-1 {
				left, right = m.paint(display.Faint, name), m.paint(display.Faint, peak)
			}
			lines = append(lines, left+m.paint(c.tone, bars)+right)
		}
	}
	return lines
}

// A series is one value over time.
type series struct {
	name   string
	values []float64
	peak   string
	tone   display.Tone
}

func seriesOf(h apitype.History) []series {
	list := []series{
		{name: "streams", tone: display.Good}, {name: "starts/s", tone: display.Plain},
		{name: "refusals/s", tone: display.Warn},
	}
	every := float64(max(h.EverySeconds, 1))
	for _, s := range h.Samples {
		for i, v := range []float64{float64(s.Streams), float64(s.Starts) / every, float64(s.Refusals) / every} {
			list[i].values = append(list[i].values, v)
		}
	}
	for i := range list {
		peak := 0.0
		for _, v := range list[i].values {
			peak = max(peak, v)
		}
		list[i].peak = display.Rate(peak)
	}
	list[0].peak = strings.TrimSuffix(list[0].peak, ".0") // streams are whole numbers
	return list
}

// statusLine returns the error of the last request, or the period of the sparklines.
func (m model) statusLine() string {
	if m.fetchErr != nil && !m.paused {
		return m.paint(display.Bad, display.Printable("unavailable: "+m.cfg.Explain(m.fetchErr)))
	}
	n := len(m.data.History.Samples) * m.data.History.EverySeconds
	if n == 0 {
		return m.paint(display.Faint, strings.Repeat(" ", 11)+"no samples yet")
	}
	return m.paint(display.Faint, fmt.Sprintf("%11slast %s on this node", "", formatSeconds(n)))
}

func formatSeconds(seconds int) string {
	if seconds < 120 {
		return fmt.Sprintf("%d seconds", seconds)
	}
	return fmt.Sprintf("%d minutes", seconds/60)
}

// body returns the selected panel and, on a wide screen, the other panels beside it.
func (m model) bodyHeight() int { return m.height - len(m.header()) - len(m.sparklines()) - 2 }

// visibleRows returns the number of rows of the panel that fit.
func (m model) visibleRows() int { return max(m.bodyHeight()-2, 1) }

// body is the panels: the chosen one, and beside it the others where there is room.
func (m model) body() []string {
	if m.width < wideWidth {
		return m.selectedPanel(m.width)
	}
	left := m.width / 2
	a, b := m.selectedPanel(left), m.otherPanels(m.width-left-len([]rune(divider)))
	var lines []string
	for i := range m.bodyHeight() {
		lines = append(lines, display.Pad(lineAt(a, i), left, false)+m.paint(display.Faint, divider)+lineAt(b, i))
	}
	return lines
}

func lineAt(lines []string, i int) string {
	if i >= len(lines) {
		return ""
	}
	return lines[i]
}

// selectedPanel returns the names of the panels and the rows of the selected one.
func (m model) selectedPanel(width int) []string {
	var tabs []string
	for p := range panelCount {
		name := fmt.Sprintf("%d %s", p+1, p)
		if p == m.panel {
			tabs = append(tabs, m.paint(display.Strong, "["+name+"]"))
		} else {
			tabs = append(tabs, m.paint(display.Faint, " "+name+" "))
		}
	}
	all := m.sortedRows(m.panel)
	from := min(m.scroll[m.panel], max(len(all)-m.visibleRows(), 0))
	to := min(from+m.visibleRows(), len(all))
	title := strings.Join(tabs, " ")
	if which := m.rangeText(from, to-from, len(all)); which != "" {
		title += "   " + m.paint(display.Faint, which)
	}
	table := m.panelTable(m.panel, all, width) // all rows, so that scrolling does not change the widths of columns
	lines := []string{display.Truncate(title, width), table[0]}
	return append(lines, table[1+from:1+to]...)
}

// rangeText describes which rows are shown.
func (m model) rangeText(from, shown, all int) string {
	var parts []string
	if m.panel == users && m.prefix != "" {
		parts = append(parts, display.Printable(m.prefix)+"…")
	}
	switch {
	case all == 0 && m.loaded:
		parts = append(parts, "none")
	case shown < all:
		parts = append(parts, fmt.Sprintf("%d-%d of %d", from+1, from+shown, all))
	}
	if m.panel == users && m.data.Users.More {
		parts = append(parts, "and others")
	}
	return strings.Join(parts, ", ")
}

// otherPanels returns the panels that are not selected, as far as they fit.
func (m model) otherPanels(width int) []string {
	var lines []string
	left, n := m.bodyHeight(), int(panelCount)-1
	for p := range panelCount {
		if p == m.panel {
			continue
		}
		all := m.sortedRows(p)
		rows := min(len(all), max(left/n-3, 1))
		more := ""
		if rows < len(all) {
			more = fmt.Sprintf("   %d of %d", rows, len(all))
		}
		block := append([]string{m.paint(display.Faint, p.String()+more)}, m.panelTable(p, all[:rows], width)...)
		lines = append(append(lines, block...), "")
		left, n = left-len(block)-1, max(n-1, 1)
	}
	return lines
}

func (m model) helpText() []string {
	lines := []string{m.paint(display.Strong, "Keys")}
	for _, h := range helpLines {
		lines = append(lines, fmt.Sprintf("  %-16s %s", h[0], h[1]))
	}
	return lines
}

// footer returns the last line: the main keys, or the prefix while it is edited.
func (m model) footer() string {
	if m.editing {
		return m.paint(display.Strong, "user ids that begin with: ") + display.Printable(m.prefix) + "█" +
			m.paint(display.Faint, "   enter: apply   esc: cancel")
	}
	return m.paint(display.Faint, "q quit   ? help   tab panel   s sort   r reverse   / filter   p pause")
}
