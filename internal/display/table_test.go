package display

import (
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/stretchr/testify/assert"
	"pgregory.net/rapid"
)

func lines(s Screen, t Table) string { return strings.Join(t.Lines(s), "\n") }

func TestTable_NumbersToTheRight(t *testing.T) {
	got := lines(Screen{}, Table{Rows: [][]string{
		{"PLAN", "LIMIT", "SIZE", "NOTE"},
		{"family", "4", "12.5 KiB", "7"},
		{"one", "12", "-", "a\x1b[2J"},
	}})
	assert.Equal(t, strings.Trim(`
PLAN    LIMIT      SIZE  NOTE
family      4  12.5 KiB  7
one        12         -  a\x1b[2J`, "\n"), got)
}

func TestTable_Fits(t *testing.T) {
	table := Table{NeverCut: []string{"STREAM"}, Rows: [][]string{
		{"STREAM", "REGION", "DEVICE", "PLAYING"},
		{"0123456789abcdef", "eu", "A television of some length", "客厅客厅客厅客厅客厅客厅"},
	}}
	assert.Equal(t, strings.Trim(`
STREAM            REGION  DEVICE       PLAYING
0123456789abcdef  eu      A televisi…  客厅客厅客…`, "\n"), lines(Screen{Width: 50}, table))
	assert.Equal(t, strings.Trim(`
STREAM
  REGION  DEVICE     PLAYING
0123456789abcdef
  eu      A televi…  客厅客厅…`, "\n"), lines(Screen{Width: 31}, table))
	assert.Contains(t, lines(Screen{}, table), "A television of some length  客厅客厅客厅客厅客厅客厅", "no terminal, no cut")
}

func TestTable_NeverWider(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		columns := rapid.IntRange(1, 6).Draw(t, "columns")
		cell := rapid.StringN(0, 40, 120)
		rows := rapid.SliceOfN(rapid.SliceOfN(cell, columns, columns), 2, 6).Draw(t, "rows")
		for i := range rows[0] {
			rows[0][i] = "H" // the headings themselves fit
		}
		s := Screen{Width: rapid.IntRange(60, 120).Draw(t, "width"), Colour: rapid.Bool().Draw(t, "colour")}
		for _, line := range (Table{Rows: rows}).Lines(s) {
			assert.LessOrEqual(t, Width(line), s.Width, "%q", line)
			assert.NotContains(t, ansi.Strip(line), "\x1b")
		}
	})
}

func TestTable_Tones(t *testing.T) {
	table := Table{Rows: [][]string{{"USER", "STREAMS"}, {"maya", "3"}}, Tone: func(row, column int, _ string) Tone {
		if row == 1 && column == 1 {
			return Bad
		}
		return Plain
	}}
	assert.Equal(t, "\x1b[1mUSER\x1b[0m  \x1b[1mSTREAMS\x1b[0m\nmaya        \x1b[1;31m3\x1b[0m", lines(Screen{Colour: true}, table))
	assert.NotContains(t, lines(Screen{Terminal: true}, table), "\x1b")
	assert.Empty(t, lines(Screen{}, Table{}))
}

func TestOn(t *testing.T) {
	assert.Equal(t, Screen{}, ScreenOf(&strings.Builder{}, nil), "no terminal")
	for env, want := range map[string]bool{
		"NO_COLOR=1": false, "NO_COLOR=": true, "TERM=dumb": false, "TERM=xterm": true, "MY_NO_COLOR=1": true,
	} {
		assert.Equal(t, want, coloursAllowed([]string{"A=b", env}), env)
	}
}

func TestFigures(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0s", 12*time.Second + 300*time.Millisecond: "12s", 71 * time.Second: "71s",
		4 * time.Minute: "4m", 190 * time.Minute: "3h10m", 53 * time.Hour: "2d5h",
	} {
		assert.Equal(t, want, Age(d))
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234"} {
		assert.Equal(t, want, Count(n))
	}
	for x, want := range map[float64]string{0: "0.0", 0.44: "0.4", 99.9: "99.9", 99.96: "100", 12345.6: "12,346"} {
		assert.Equal(t, want, Rate(x))
	}
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 5 << 20: "5.0 MiB", 1<<20 - 1: "1.0 MiB"} {
		assert.Equal(t, want, Size(n))
	}
}

func TestSpark(t *testing.T) {
	for name, tc := range map[string]struct {
		values []float64
		rows   int
		want   []string
	}{
		"none":         {nil, 1, []string{"        "}},
		"zero":         {[]float64{0, 0}, 1, []string{"        "}},
		"to_the_right": {[]float64{1, 2, 4, 8}, 1, []string{"    ▁▂▄█"}},
		"little_shows": {[]float64{0.001, 1000}, 1, []string{"      ▁█"}},
		"peaks_stay":   {[]float64{1, 9, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 18}, 1, []string{"▄▁▁▁▁▁▁█"}},
		"two_rows":     {[]float64{4, 8, 16}, 2, []string{"       █", "     ▄██"}},
	} {
		assert.Equal(t, tc.want, Sparkline(tc.values, 8, tc.rows), name)
	}
	assert.Equal(t, []string{""}, Sparkline([]float64{1}, -5, 1))
}
