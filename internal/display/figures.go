package display

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Age formats d in its largest units: 12s, 4m, 3h10m, 2d5h.
func Age(d time.Duration) string {
	d = max(d, 0).Round(time.Second)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm", d/time.Minute)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}

// Count formats n with thousands separators.
func Count[N int | int64 | uint64](n N) string {
	digits := fmt.Sprint(n)
	sign := ""
	if digits[0] == '-' {
		sign, digits = "-", digits[1:]
	}
	var parts []string
	for len(digits) > 3 {
		parts = append([]string{digits[len(digits)-3:]}, parts...)
		digits = digits[:len(digits)-3]
	}
	return sign + strings.Join(append([]string{digits}, parts...), ",")
}

// Rate formats x with at most one decimal.
func Rate(x float64) string {
	if x >= 99.95 {
		return Count(int64(x + 0.5))
	}
	return strconv.FormatFloat(x, 'f', 1, 64)
}

// Size formats a number of bytes with a binary unit.
func Size(n int64) string {
	x, unit := float64(n), 0
	for x >= 1023.95 && unit < 4 {
		x, unit = x/1024, unit+1
	}
	if unit == 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %ciB", x, "KMGT"[unit-1])
}

// bars are blocks of zero to eight eighths of the height of a character.
var bars = []rune(" ▁▂▃▄▅▆▇█")

// Sparkline draws values as bars on a number of rows, width columns wide and scaled from 0 to
// the maximum. If there are more values than columns, each column shows the maximum of its
// values. Fewer values are right-aligned.
func Sparkline(values []float64, width, rows int) []string {
	lines := make([]string, max(rows, 1))
	columns := downsample(values, max(width, 0))
	peak := 0.0
	for _, v := range columns {
		peak = max(peak, v)
	}
	for row := range lines {
		line := []rune(strings.Repeat(" ", max(width, 0)))
		floor := 8 * (len(lines) - 1 - row) // eighths below this row
		for i, v := range columns {
			eighths := 0
			if v > 0 {
				eighths = max(int(v/peak*float64(8*len(lines))+0.5), 1) // a small value remains visible
			}
			line[width-len(columns)+i] = bars[min(max(eighths-floor, 0), 8)]
		}
		lines[row] = string(line)
	}
	return lines
}

// downsample reduces values to at most n columns.
func downsample(values []float64, n int) []float64 {
	if len(values) <= n || n == 0 {
		return values[:min(len(values), n)]
	}
	columns := make([]float64, n)
	for i := range columns {
		lo, hi := i*len(values)/n, (i+1)*len(values)/n
		for _, v := range values[lo:hi] {
			columns[i] = max(columns[i], v)
		}
	}
	return columns
}
