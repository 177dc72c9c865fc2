package display

import (
	"regexp"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

const (
	columnGap = 2 // columns between cells
	minCell   = 8 // minimum width of a truncated cell
	minTable  = 20
)

// Width returns the number of columns that text occupies.
func Width(text string) int { return ansi.StringWidth(text) }

// Truncate shortens text to at most width columns. Shortened text ends with "…".
func Truncate(text string, width int) string {
	if width <= 0 {
		return ""
	}
	return ansi.Truncate(text, width, "…")
}

// Pad truncates or fills text to width columns. If right is set, text is right-aligned.
func Pad(text string, width int, right bool) string {
	text = Truncate(text, width)
	fill := strings.Repeat(" ", max(width-Width(text), 0))
	if right {
		return fill + text
	}
	return text + fill
}

// numberPattern matches cells that are right-aligned.
var numberPattern = regexp.MustCompile(`^[+-]?[0-9][0-9,]*(\.[0-9]+)?(x|%| ([KMGT]i)?B)?$`)

// A Table is rows of cells; the first row contains the headings. Columns of numbers are
// right-aligned.
type Table struct {
	Rows [][]string
	// NeverCut are the headings of columns that are never truncated, such as ids, which
	// users copy.
	NeverCut []string
	// OneLine truncates rows that do not fit, instead of using two lines.
	OneLine    bool
	NoHeadings bool // the first row contains no headings
	// Tone returns the style of a cell; nil for plain cells.
	Tone func(row, column int, cell string) Tone
}

// Lines returns the lines of the table for s. If the width is known, wide cells are truncated;
// if that is not sufficient, the first column has separate lines.
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
	widths := columnWidths(rows)
	if s.Width == 0 {
		return t.render(s, rows, widths, 0)
	}
	width := max(s.Width, minTable)
	if t.shrinkToFit(widths, rows[0], width) || len(widths) < 3 || t.OneLine {
		return t.render(s, rows, widths, 0)
	}
	rest := columnWidths(rows)
	rest[0] = 0
	t.shrinkToFit(rest, rows[0], width) // as far as possible
	return t.render(s, rows, rest, 1)
}

func columnWidths(rows [][]string) []int {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], Width(cell))
		}
	}
	return widths
}

// shrinkToFit reduces the widths of the widest truncatable columns until the row fits into
// width, and reports whether it does.
func (t Table) shrinkToFit(widths []int, heads []string, width int) bool {
	for {
		sum, at := -columnGap, -1
		for i, w := range widths {
			sum += w + columnGap
			if t.truncatable(heads[i]) && w > max(minCell, Width(heads[i])) && (at < 0 || w > widths[at]) {
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

func (t Table) truncatable(head string) bool {
	for _, k := range t.NeverCut {
		if k == head {
			return false
		}
	}
	return true
}

// render formats the rows. The first columns, as many as separate, have separate lines.
func (t Table) render(s Screen, rows [][]string, widths []int, separate int) []string {
	right := numericColumns(rows[t.headingRows():], len(widths))
	var lines []string
	for i, row := range rows {
		for _, cell := range row[:separate] {
			if t.truncatable(rows[0][0]) {
				cell = Truncate(cell, s.Width)
			}
			lines = append(lines, s.Paint(t.tone(i, 0, row[0]), cell))
		}
		var b strings.Builder
		if separate > 0 {
			b.WriteString(strings.Repeat(" ", columnGap))
		}
		for j := separate; j < len(row); j++ {
			cell := Pad(row[j], widths[j], right[j])
			if j == len(row)-1 && !right[j] {
				cell = strings.TrimRight(cell, " ")
			}
			text := strings.TrimSpace(cell)
			b.WriteString(strings.Replace(cell, text, s.Paint(t.tone(i, j, row[j]), text), 1))
			if j < len(row)-1 {
				b.WriteString(strings.Repeat(" ", columnGap))
			}
		}
		lines = append(lines, strings.TrimRight(b.String(), " "))
	}
	return lines
}

// headingRows returns the number of rows with headings.
func (t Table) headingRows() int {
	if t.NoHeadings {
		return 0
	}
	return 1
}

func (t Table) tone(row, column int, cell string) Tone {
	switch {
	case row < t.headingRows():
		return Strong
	case t.Tone == nil:
		return Plain
	}
	return t.Tone(row, column, cell)
}

// numericColumns reports which columns contain only numbers and dashes.
func numericColumns(rows [][]string, columns int) []bool {
	is := make([]bool, columns)
	for j := range is {
		for _, row := range rows {
			switch {
			case row[j] == "-":
			case numberPattern.MatchString(row[j]):
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
