// Package plot draws line charts as SVG, with axes, units and a legend, for light and
// dark pages.
package plot

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
	"unicode/utf8"
)

// A Curve is one line of a chart. Points that an axis cannot show, such as zero on a
// logarithmic axis, are omitted.
type Curve struct {
	Name string
	X, Y []float64
}

// A Chart is a set of curves on one pair of axes.
type Chart struct {
	Title  string
	X, Y   Axis
	Curves []Curve
}

// A Page is one or more charts, one below the other, with a common legend. Curves at the
// same index have the same style in all charts. The legend has the names of the curves
// of the first chart.
type Page struct {
	Title, Subtitle string
	Charts          []Chart
}

// The dimensions of a page, in pixels.
const (
	width       = 860
	left        = 76 // margin of the plotting area
	right       = 28
	plotHeight  = 300
	below       = 62 // space below a plotting area, for ticks and the label of the axis
	above       = 34 // space above it, for the title
	lineHeight  = 20
	charWidth   = 7.2 // approximate, of letters in the legend
	curveStyles = 7
)

const style = `
text{font:13px system-ui,-apple-system,"Segoe UI",sans-serif;fill:#1c2024}
.title{font-size:17px;font-weight:600}.sub,.tick,.label{fill:#5a6169}.tick{font-size:12px}
.bg{fill:#ffffff}.grid{stroke:#e4e7eb}.axis{stroke:#8b929a}
path{fill:none;stroke-width:2;stroke-linejoin:round}
.c0{stroke:#0b62c4}.c1{stroke:#c2410c}.c2{stroke:#0f7b54}.c3{stroke:#a3318f}.c4{stroke:#8a6500}.c5{stroke:#0e7490}.c6{stroke:#57606a}
.c1{stroke-dasharray:8 3}.c2{stroke-dasharray:2 3}.c3{stroke-dasharray:8 3 2 3}.c4{stroke-dasharray:5 5}.c5{stroke-dasharray:12 4}.c6{stroke-dasharray:1 4}
@media (prefers-color-scheme:dark){
text{fill:#e6e9ec}.sub,.tick,.label{fill:#a5adb6}.bg{fill:#14171a}.grid{stroke:#2b3036}.axis{stroke:#6b737c}
.c0{stroke:#6cb2ff}.c1{stroke:#ff9d66}.c2{stroke:#56d3a0}.c3{stroke:#ef8fdd}.c4{stroke:#e3bd4f}.c5{stroke:#5fd0ea}.c6{stroke:#b3bac2}
}`

// SVG draws the page.
func (p Page) SVG() []byte {
	var b bytes.Buffer
	top := 56
	rows := p.legendRows()
	legendAt := top
	top += lineHeight*len(rows) + 8
	height := top + len(p.Charts)*(above+plotHeight+below)
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%[1]d" height="%[2]d" role="img" aria-label="%[3]s">`,
		width, height, escape(p.Title))
	fmt.Fprintf(&b, "\n<title>%s</title>\n<style>%s\n</style>\n", escape(p.Title), style)
	fmt.Fprintf(&b, `<rect class="bg" width="%d" height="%d"/>`+"\n", width, height)
	text(&b, left, 26, "title", "start", p.Title)
	text(&b, left, 45, "sub", "start", p.Subtitle)
	for i, row := range rows {
		drawLegend(&b, row, legendAt+i*lineHeight+12)
	}
	for _, c := range p.Charts {
		c.draw(&b, float64(top+above))
		top += above + plotHeight + below
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// legendEntry is the entry of one curve in the legend.
type legendEntry struct {
	style int
	name  string
	x     float64
}

// legendRows breaks the legend into rows that fit.
func (p Page) legendRows() [][]legendEntry {
	var rows [][]legendEntry
	var row []legendEntry
	x := float64(left)
	if len(p.Charts) == 0 {
		return nil
	}
	for i, c := range p.Charts[0].Curves {
		w := 40 + charWidth*float64(utf8.RuneCountInString(c.Name)) + 18
		if len(row) > 0 && x+w > width-right {
			rows, row, x = append(rows, row), nil, left
		}
		row = append(row, legendEntry{i % curveStyles, c.Name, x})
		x += w
	}
	return append(rows, row)
}

func drawLegend(b *bytes.Buffer, row []legendEntry, y int) {
	for _, e := range row {
		fmt.Fprintf(b, `<path class="c%d" d="M%.1f %dh30"/>`, e.style, e.x, y)
		text(b, e.x+36, float64(y)+4.5, "", "start", e.name)
	}
}

// draw draws the chart with the top of its plotting area at y.
func (c Chart) draw(b *bytes.Buffer, y float64) {
	x := c.X.fit(c.Curves, func(c Curve) []float64 { return c.X }, left, width-right)
	v := c.Y.fit(c.Curves, func(c Curve) []float64 { return c.Y }, y+plotHeight, y)
	text(b, left, y-12, "", "start", c.Title)
	for _, t := range v.ticks {
		at := v.pixel(t.value)
		fmt.Fprintf(b, `<path class="grid" style="stroke-width:1" d="M%d %.1fH%d"/>`, left, at, width-right)
		text(b, left-8, at+4, "tick", "end", t.text)
	}
	b.WriteByte('\n')
	for _, t := range x.ticks {
		at := x.pixel(t.value)
		fmt.Fprintf(b, `<path class="grid" style="stroke-width:1" d="M%.1f %.1fV%.1f"/>`, at, y, y+plotHeight)
		text(b, at, y+plotHeight+18, "tick", "middle", t.text)
	}
	fmt.Fprintf(b, "\n"+`<path class="axis" style="stroke-width:1" d="M%d %.1fV%.1fH%d"/>`, left, y, y+plotHeight, width-right)
	text(b, (left+width-right)/2, y+plotHeight+40, "label", "middle", c.X.Label)
	fmt.Fprintf(b, `<g transform="translate(18 %.1f) rotate(-90)">`, y+plotHeight/2)
	text(b, 0, 0, "label", "middle", c.Y.Label)
	b.WriteString("</g>\n")
	for i, curve := range c.Curves {
		if d := curve.path(x, v); d != "" {
			fmt.Fprintf(b, `<path class="c%d" d="%s"/>`+"\n", i%curveStyles, d)
		}
	}
}

// path connects the points that both axes can show.
func (c Curve) path(x, y placedAxis) string {
	var b strings.Builder
	move := byte('M')
	for i := range min(len(c.X), len(c.Y)) {
		if !x.shows(c.X[i]) || !y.shows(c.Y[i]) {
			move = 'M'
			continue
		}
		fmt.Fprintf(&b, "%c%.1f %.1f", move, x.pixel(c.X[i]), y.pixel(c.Y[i]))
		move = 'L'
	}
	return b.String()
}

func text(b *bytes.Buffer, x, y float64, class, anchor, s string) {
	if s == "" {
		return
	}
	fmt.Fprintf(b, `<text x="%.1f" y="%.1f" class="%s" text-anchor="%s">%s</text>`, x, y, class, anchor, escape(s))
}

func escape(s string) string {
	var b bytes.Buffer
	_ = xml.EscapeText(&b, []byte(s)) // a write to a Buffer does not fail
	return b.String()
}
