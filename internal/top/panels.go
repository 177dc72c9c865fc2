package top

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"streamcount/api/apitype"
	"streamcount/internal/display"
)

// headings are the column headings of the panels.
var headings = [panelCount][]string{
	users:   {"USER", "STREAMS", "LIMIT", "FREE"},
	regions: {"REGION", "STREAMS", "SHARE"},
	nodes:   {"NODE", "REGION", "VERSION", "UP", "ADMITTED", "REFUSED", "REPORTED"},
	members: {"MEMBER", "ROLE", "STATE", "LAG", "SIZE", "IN USE", "SHARD", "VERSION"},
	limits:  {"REFUSED BY", "LIMIT", "USERS", "STARTS"},
}

// A cell is a text and, for numeric columns, the number it is sorted by in descending order.
type cell struct {
	text   string
	number float64
	tone   display.Tone
}

func textCell(s string) cell { return cell{text: s} }

func numberCell[N int | int64 | uint64](n N) cell {
	return cell{text: display.Count(n), number: float64(n)}
}

// sortedRows returns the rows of a panel in its order.
func (m model) sortedRows(p panel) [][]cell {
	var rows [][]cell
	switch p {
	case users:
		rows = userRows(m.data.Users.Users)
	case regions:
		rows = regionRows(m.data.Stats)
	case nodes:
		rows = nodeRows(m.data.Stats, m.now())
	case members:
		rows = memberRows(m.data.Stats.Shards)
	case limits:
		rows = limitRows(m.data.Refused)
	}
	by := m.sortOrders[p]
	slices.SortStableFunc(rows, func(a, b []cell) int {
		c := compare(a[by.column], b[by.column])
		if by.reverse {
			c = -c
		}
		return cmp.Or(c, compare(a[0], b[0]))
	})
	return rows
}

func compare(a, b cell) int {
	if a.number != b.number {
		return cmp.Compare(b.number, a.number)
	}
	if a.number != 0 {
		return 0
	}
	return strings.Compare(a.text, b.text)
}

func userRows(list []apitype.TopUser) [][]cell {
	var rows [][]cell
	for _, u := range list {
		row := []cell{textCell(u.UserID), numberCell(u.Streams), numberCell(u.Limit), numberCell(max(u.Limit-u.Streams, 0))}
		switch {
		case u.Streams > u.Limit: // lowering a limit does not end streams
			row[1].tone = display.Bad
		case u.Streams == u.Limit:
			row[1].tone = display.Warn
		}
		rows = append(rows, row)
	}
	return rows
}

func regionRows(s apitype.Stats) [][]cell {
	var rows [][]cell
	for name, n := range s.Regions {
		share := 100 * float64(n) / float64(max(s.Streams, 1))
		rows = append(rows, []cell{textCell(name), numberCell(n), {text: fmt.Sprintf("%.1f%%", share), number: share}})
	}
	return rows
}

func nodeRows(s apitype.Stats, now time.Time) [][]cell {
	var rows [][]cell
	for _, n := range s.Nodes {
		name := textCell(n.ID)
		if n.ID == s.Node.ID {
			name.tone = display.Strong // the node that serves the requests
		}
		reported := agoCell(n.ReportedAt, now)
		if n.ReportedAt != nil && now.Sub(n.ReportedAt.Time) > 30*time.Second {
			reported.tone = display.Warn
		}
		rows = append(rows, []cell{
			name, textCell(orDash(n.Region)), textCell(orDash(n.Version)), ageCell(n.StartedAt, now),
			numberCell(n.Admitted), numberCell(n.Refused), reported,
		})
	}
	return rows
}

func ageCell(t *apitype.Time, now time.Time) cell {
	if t == nil {
		return textCell("-")
	}
	d := now.Sub(t.Time)
	return cell{text: display.Age(d), number: d.Seconds()}
}

func agoCell(t *apitype.Time, now time.Time) cell {
	c := ageCell(t, now)
	if t != nil {
		c.text += " ago"
	}
	return c
}

func memberRows(shards []apitype.Shard) [][]cell {
	var rows [][]cell
	for _, s := range shards {
		if s.Error != "" && len(s.Etcd) == 0 {
			rows = append(rows, failedMember("-", s.Name, s.Error))
		}
		for _, e := range s.Etcd {
			rows = append(rows, memberRow(s.Name, e))
		}
	}
	return rows
}

func memberRow(shard string, e apitype.EtcdMember) []cell {
	role := "follower"
	if e.Leader {
		role = "leader"
	}
	state := cell{text: "healthy", tone: display.Good}
	if len(e.Alarms) > 0 {
		state = cell{text: strings.Join(e.Alarms, ", "), tone: display.Bad}
	}
	if e.Error != "" {
		return failedMember(e.Name, shard, e.Error)
	}
	return []cell{
		textCell(e.Name), textCell(role), state, numberCell(e.Lag),
		{text: display.Size(e.DBSize), number: float64(e.DBSize)},
		{text: display.Size(e.DBInUse), number: float64(e.DBInUse)},
		textCell(shard), textCell(orDash(e.Version)),
	}
}

// limitRows returns the rows of the limits that the responding node has refused starts by since
// the beginning of the day.
func limitRows(refused []apitype.RefusedCount) [][]cell {
	var rows [][]cell
	for _, r := range refused {
		rows = append(rows, []cell{textCell(cmp.Or(r.Name, "total")), numberCell(r.Limit), numberCell(r.Users), numberCell(r.Starts)})
	}
	return rows
}

// failedMember returns the row of a member whose status is not available.
func failedMember(name, shard, reason string) []cell {
	none := textCell("-")
	return []cell{textCell(name), none, {text: reason, tone: display.Bad}, none, none, none, textCell(shard), none}
}

func orDash(s string) string { return cmp.Or(s, "-") }

// panelTable formats rows of a panel below its headings.
func (m model) panelTable(p panel, rows [][]cell, width int) []string {
	return tableLines(m.cfg.Screen, width, headings[p], rows, m.sortOrders[p])
}

// tableLines formats rows as one line for the headings and one per row.
func tableLines(s display.Screen, width int, heads []string, rows [][]cell, by sortOrder) []string {
	head := slices.Clone(heads)
	if by.column >= 0 {
		arrow := "↓"
		if by.reverse {
			arrow = "↑"
		}
		head[by.column] += arrow
	}
	t := display.Table{Rows: [][]string{head}, OneLine: true, Tone: func(row, column int, _ string) display.Tone {
		return rows[row-1][column].tone
	}}
	for _, row := range rows {
		var texts []string
		for _, c := range row {
			texts = append(texts, c.text)
		}
		t.Rows = append(t.Rows, texts)
	}
	s.Width = width
	return t.Lines(s)
}
