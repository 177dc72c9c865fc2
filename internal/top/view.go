package top

import (
	"fmt"
	"strings"

	"streamcount/api/apitype"
	"streamcount/internal/display"
)

const (
	wideAt  = 110 // columns from which all panels are shown
	tallAt  = 32  // lines from which the sparklines are higher
	divider = " │ "
)

// draw is the whole screen: as many lines as it has, none wider than it is.
func (m model) draw() string {
	lines := append(m.head(), m.sparks()...)
	lines = append(lines, m.notice())
	if m.help {
		lines = append(lines, m.helpText()...)
	} else {
		lines = append(lines, m.body()...)
	}
	lines = lines[:min(len(lines), max(m.height-1, 0))]
	for len(lines) < m.height-1 {
		lines = append(lines, "")
	}
	lines = append(lines, m.foot())
	for i, line := range lines {
		lines[i] = display.Cut(line, m.width)
	}
	return strings.Join(lines, "\n")
}

func (m model) paint(t display.Tone, s string) string { return m.cfg.Screen.Paint(t, s) }

// head says who answers, and the totals.
func (m model) head() []string {
	state := m.paint(display.Good, "live")
	switch age, stale := m.stale(); {
	case m.paused:
		state = m.paint(display.Warn, "PAUSED")
	case !m.known:
		state = m.paint(display.Warn, "connecting")
	case stale:
		state = m.paint(display.Bad, "STALE: "+display.Age(age)+" old")
	}
	s := m.data.Stats
	title := m.paint(display.Strong, "streamcount") + "  " + display.Printable(m.cfg.Server)
	if m.known {
		title += "  " + display.Printable(fmt.Sprintf("%s (%s, %s)", s.Node.ID, orDash(s.Node.Region), orDash(s.Node.Version)))
	}
	room := max(m.width-display.Width(state)-2, 0)
	return []string{
		display.Pad(title, room, false) + "  " + state,
		figures(m.cfg.Screen, totals(s)), perSecond(m.cfg.Screen, s.Rates), latencies(m.cfg.Screen, s.Latency),
	}
}

// figures is names and values on one line.
func figures(s display.Screen, list [][2]string) string {
	var parts []string
	for _, f := range list {
		parts = append(parts, s.Paint(display.Faint, f[0])+" "+s.Paint(display.Strong, f[1]))
	}
	return strings.Join(parts, "  ")
}

func totals(s apitype.Stats) [][2]string {
	return [][2]string{
		{"streams", display.Count(s.Streams)}, {"users", display.Count(s.Users)},
		{"at the limit", display.Count(s.UsersAtLimit)}, {"nodes", display.Count(len(s.Nodes))},
		{"refused here", display.Count(s.Refused)},
	}
}

func perSecond(s display.Screen, r apitype.Rates) string {
	return s.Paint(display.Faint, "a second:") + " " + figures(s, [][2]string{
		{"starts", display.Rate(r.Starts)}, {"stops", display.Rate(r.Stops)},
		{"expired", display.Rate(r.Expiries)}, {"refused", display.Rate(r.Refusals)},
		{"heartbeats", display.Rate(r.Heartbeats)},
	})
}

func latencies(s display.Screen, l apitype.Latency) string {
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
	return s.Paint(display.Faint, "p50/p99 ms:") + " " + figures(s, list)
}

// sparks shows how things went over the last hour.
func (m model) sparks() []string {
	rows := 1
	if m.height >= tallAt {
		rows = 3
	}
	var lines []string
	for _, c := range curves(m.data.History) {
		name := fmt.Sprintf("%-11s", c.name)
		peak := "  peak " + c.peak
		spark := display.Spark(c.values, m.width-len(name)-14, rows)
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

// A curve is one figure over time.
type curve struct {
	name   string
	values []float64
	peak   string
	tone   display.Tone
}

func curves(h apitype.History) []curve {
	list := []curve{
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
	list[0].peak = strings.TrimSuffix(list[0].peak, ".0") // there are no half streams
	return list
}

// notice is what is wrong, or over what time the sparklines go.
func (m model) notice() string {
	if m.lost != nil && !m.paused {
		return m.paint(display.Bad, display.Printable("no news: "+m.cfg.Explain(m.lost)))
	}
	n := len(m.data.History.Samples) * m.data.History.EverySeconds
	if n == 0 {
		return m.paint(display.Faint, strings.Repeat(" ", 11)+"the first sample is taken after some seconds")
	}
	return m.paint(display.Faint, fmt.Sprintf("%11sthe last %s, as this node saw them", "", minutes(n)))
}

func minutes(seconds int) string {
	if seconds < 120 {
		return fmt.Sprintf("%d seconds", seconds)
	}
	return fmt.Sprintf("%d minutes", seconds/60)
}

// room is how many lines the body has.
func (m model) room() int { return m.height - len(m.head()) - len(m.sparks()) - 2 }

// rows is how many rows of the panel fit.
func (m model) rows() int { return max(m.room()-2, 1) }

// body is the panels: the chosen one, and beside it the others where there is room.
func (m model) body() []string {
	if m.width < wideAt {
		return m.chosen(m.width)
	}
	left := m.width / 2
	a, b := m.chosen(left), m.others(m.width-left-len([]rune(divider)))
	var lines []string
	for i := range m.room() {
		lines = append(lines, display.Pad(at(a, i), left, false)+m.paint(display.Faint, divider)+at(b, i))
	}
	return lines
}

func at(lines []string, i int) string {
	if i >= len(lines) {
		return ""
	}
	return lines[i]
}

// chosen is the panel that the keys go to, below the names of all.
func (m model) chosen(width int) []string {
	var tabs []string
	for p := range panels {
		name := fmt.Sprintf("%d %s", p+1, p)
		if p == m.panel {
			tabs = append(tabs, m.paint(display.Strong, "["+name+"]"))
		} else {
			tabs = append(tabs, m.paint(display.Faint, " "+name+" "))
		}
	}
	all := m.list(m.panel)
	from := min(m.scroll[m.panel], max(len(all)-m.rows(), 0))
	to := min(from+m.rows(), len(all))
	title := strings.Join(tabs, " ")
	if which := m.which(from, to-from, len(all)); which != "" {
		title += "   " + m.paint(display.Faint, which)
	}
	table := m.lines(m.panel, all, width) // all of them, so that scrolling changes no column's width
	lines := []string{display.Cut(title, width), table[0]}
	return append(lines, table[1+from:1+to]...)
}

// which says which of the rows are shown.
func (m model) which(from, shown, all int) string {
	var parts []string
	if m.panel == users && m.prefix != "" {
		parts = append(parts, display.Printable(m.prefix)+"…")
	}
	switch {
	case all == 0 && m.known:
		parts = append(parts, "none")
	case shown < all:
		parts = append(parts, fmt.Sprintf("%d-%d of %d", from+1, from+shown, all))
	}
	if m.panel == users && m.data.Users.More {
		parts = append(parts, "and more")
	}
	return strings.Join(parts, ", ")
}

// others are the panels that are not chosen, as much of each as there is room for.
func (m model) others(width int) []string {
	var lines []string
	left, n := m.room(), int(panels)-1
	for p := range panels {
		if p == m.panel {
			continue
		}
		all := m.list(p)
		rows := min(len(all), max(left/n-3, 1))
		more := ""
		if rows < len(all) {
			more = fmt.Sprintf("   %d of %d", rows, len(all))
		}
		block := append([]string{m.paint(display.Faint, p.String()+more)}, m.lines(p, all[:rows], width)...)
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

// foot is the last line: the keys, or what is being typed.
func (m model) foot() string {
	if m.typing {
		return m.paint(display.Strong, "users that begin with: ") + display.Printable(m.prefix) + "█" +
			m.paint(display.Faint, "   enter: keep   esc: undo")
	}
	return m.paint(display.Faint, "q quit   ? help   tab panel   s sort   r reverse   / filter   p pause")
}
