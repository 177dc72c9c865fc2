package display

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Age is d in its largest unit that says enough: 12s, 4m, 3h10m, 2d5h.
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

// Count is n with its thousands apart.
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

// Rate is x with as many digits as say something.
func Rate(x float64) string {
	if x >= 99.95 {
		return Count(int64(x + 0.5))
	}
	return strconv.FormatFloat(x, 'f', 1, 64)
}

// Size is n bytes in the unit that people would use.
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

// bars are eighths of a character's height.
var bars = []rune(" ▁▂▃▄▅▆▇█")

// Spark draws values as rows lines of bars, width columns wide, from 0 to their peak.
// Of more values than columns each column has the highest of its share; fewer stand
// at the right, where the newest is.
func Spark(values []float64, width, rows int) []string {
	lines := make([]string, max(rows, 1))
	columns := gather(values, max(width, 0))
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
				eighths = max(int(v/peak*float64(8*len(lines))+0.5), 1) // what is there is seen
			}
			line[width-len(columns)+i] = bars[min(max(eighths-floor, 0), 8)]
		}
		lines[row] = string(line)
	}
	return lines
}

// gather is values in at most n columns.
func gather(values []float64, n int) []float64 {
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
