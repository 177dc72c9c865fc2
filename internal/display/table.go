package display

import (
	"regexp"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

const (
	gap      = 2 // columns between cells
	narrow   = 8 // no cell is cut to less
	minWidth = 20
)

// Width is how many columns text takes.
func Width(text string) int { return ansi.StringWidth(text) }

// Cut is text in at most width columns; where something is missing it ends with "…".
func Cut(text string, width int) string {
	if width <= 0 {
		return ""
	}
	return ansi.Truncate(text, width, "…")
}

// Pad is text cut or filled up to width columns; right has it end there.
func Pad(text string, width int, right bool) string {
	text = Cut(text, width)
	fill := strings.Repeat(" ", max(width-Width(text), 0))
	if right {
		return fill + text
	}
	return text + fill
}

// numeric matches what lines up at its right end.
var numeric = regexp.MustCompile(`^[+-]?[0-9][0-9,]*(\.[0-9]+)?(x|%| ([KMGT]i)?B)?$`)

// A Table is rows of cells, the first being the headings. Columns that hold numbers
// stand to the right by themselves.
type Table struct {
	Rows [][]string
	// Keep are the headings of columns that are never cut, ids above all: what was
	// cut cannot be pasted.
	Keep []string
	// OneLine has rows that do not fit cut off at the end, and not laid out over two lines.
	OneLine bool
	Bare    bool // there are no headings
	// Tone tells how a cell is drawn; it may be nil.
	Tone func(row, column int, cell string) Tone
}

// Lines is the table, line by line, as wide as s is where that is known. Cells that
// are too wide are cut; where that is not enough the first column gets lines of its
// own.
func (t Table) Lines(s Screen) []string {
	rows := make([][]string, len(t.Rows))
	for i, row := range t.Rows {
		for _, cell := range row {
			rows[i] = append(rows[i], Printable(cell))
		}
	}
	if len(rows) == 0 {
		return nil
	}
	widths := widest(rows)
	if s.Width == 0 {
		return t.draw(s, rows, widths, 0)
	}
	width := max(s.Width, minWidth)
	if t.fit(widths, rows[0], width) || len(widths) < 3 || t.OneLine {
		return t.draw(s, rows, widths, 0)
	}
	rest := widest(rows)
	rest[0] = 0
	t.fit(rest, rows[0], width) // or as near to it as can be
	return t.draw(s, rows, rest, 1)
}

func widest(rows [][]string) []int {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], Width(cell))
		}
	}
	return widths
}

// fit takes columns from the widest cells that may be cut until all fit into width,
// and reports whether they do.
func (t Table) fit(widths []int, heads []string, width int) bool {
	for {
		sum, at := -gap, -1
		for i, w := range widths {
			sum += w + gap
			if t.mayCut(heads[i]) && w > max(narrow, Width(heads[i])) && (at < 0 || w > widths[at]) {
				at = i
			}
		}
		if sum <= width {
			return true
		}
		if at < 0 {
			return false
		}
		widths[at]--
	}
}

func (t Table) mayCut(head string) bool {
	for _, k := range t.Keep {
		if k == head {
			return false
		}
	}
	return true
}

// draw writes the rows; own is how many of the first columns have lines of their own.
func (t Table) draw(s Screen, rows [][]string, widths []int, own int) []string {
	right := numbers(rows[t.heads():], len(widths))
	var lines []string
	for i, row := range rows {
		for _, cell := range row[:own] {
			if t.mayCut(rows[0][0]) {
				cell = Cut(cell, s.Width)
			}
			lines = append(lines, s.Paint(t.tone(i, 0, row[0]), cell))
		}
		var b strings.Builder
		if own > 0 {
			b.WriteString(strings.Repeat(" ", gap))
		}
		for j := own; j < len(row); j++ {
			cell := Pad(row[j], widths[j], right[j])
			if j == len(row)-1 && !right[j] {
				cell = strings.TrimRight(cell, " ")
			}
			text := strings.TrimSpace(cell)
			b.WriteString(strings.Replace(cell, text, s.Paint(t.tone(i, j, row[j]), text), 1))
			if j < len(row)-1 {
				b.WriteString(strings.Repeat(" ", gap))
			}
		}
		lines = append(lines, strings.TrimRight(b.String(), " "))
	}
	return lines
}

// heads is how many rows are headings.
func (t Table) heads() int {
	if t.Bare {
		return 0
	}
	return 1
}

func (t Table) tone(row, column int, cell string) Tone {
	switch {
	case row < t.heads():
		return Strong
	case t.Tone == nil:
		return Plain
	}
	return t.Tone(row, column, cell)
}

// numbers tells which columns hold numbers, and nothing else but dashes.
func numbers(rows [][]string, columns int) []bool {
	is := make([]bool, columns)
	for j := range is {
		for _, row := range rows {
			switch {
			case row[j] == "-":
			case numeric.MatchString(row[j]):
				is[j] = true
			default:
				is[j] = false
			}
			if !is[j] && row[j] != "-" {
				break
			}
		}
	}
	return is
}
