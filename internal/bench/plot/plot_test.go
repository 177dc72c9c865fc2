package plot

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func wellFormed(t require.TestingT, doc []byte) {
	d := xml.NewDecoder(bytes.NewReader(doc))
	for {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		require.NoError(t, err)
	}
}

func example() Page {
	return Page{
		Title: "lifecycle: start", Subtitle: "5 runs, 128 connections <of one machine>",
		Charts: []Chart{{
			Title: "Latency by percentile",
			X:     Axis{"percentile", Percentile}, Y: Axis{"latency, ms", Log},
			Curves: []Curve{
				{"streamcount", []float64{0, 50, 90, 99, 99.9, 99.99}, []float64{0.4, 1.1, 2.4, 6, 14, 31}},
				{"redis & co", []float64{0, 50, 90, 99}, []float64{0, 0.9, 2, 4}},
			},
		}, {
			Title: "Answers a second",
			X:     Axis{"seconds", Linear}, Y: Axis{"answers a second", Linear},
			Curves: []Curve{
				{"streamcount", []float64{1, 2, 3, 4, 5}, []float64{9000, 11000, math.NaN(), 12500, 12000}},
				{"redis & co", []float64{1, 2, 3}, []float64{13000, 13200, 12900}},
			},
		}},
	}
}

func TestSVG_Golden(t *testing.T) {
	got := example().SVG()
	wellFormed(t, got)
	golden := filepath.Join("testdata", "example.svg")
	if *update {
		require.NoError(t, os.WriteFile(golden, got, 0o600))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	assert.Equal(t, string(want), string(got), "look at the picture, then run the test with -update")
	assert.Contains(t, string(got), "prefers-color-scheme:dark")
	assert.Contains(t, string(got), "redis &amp; co")
	assert.Equal(t, 3, strings.Count(string(got), `<path class="c0"`), "a legend and two curves")
}

// For any data, the result is well-formed XML with finite numbers.
func TestSVG_AnyData(t *testing.T) {
	value := rapid.OneOf(rapid.Float64Range(0, 1e9), rapid.SampledFrom([]float64{
		0, -1, 1e-12, 1e18, 100, 99.99999, math.NaN(), math.Inf(1),
	}))
	rapid.Check(t, func(t *rapid.T) {
		scale := rapid.SampledFrom([]Scale{Linear, Log, Percentile})
		c := Chart{X: Axis{"x", scale.Draw(t, "x")}, Y: Axis{"y", scale.Draw(t, "y")}}
		for range rapid.IntRange(0, 9).Draw(t, "curves") {
			c.Curves = append(c.Curves, Curve{
				rapid.String().Draw(t, "name"), rapid.SliceOfN(value, 0, 5).Draw(t, "xs"), rapid.SliceOfN(value, 0, 5).Draw(t, "ys"),
			})
		}
		doc := Page{Title: rapid.String().Draw(t, "title"), Charts: []Chart{c}}.SVG()
		wellFormed(t, doc)
		assert.NotContains(t, string(doc), "NaN")
		assert.NotContains(t, string(doc), "Inf")
	})
}

func TestTicks(t *testing.T) {
	texts := func(ticks []tick) (s []string) {
		for _, x := range ticks {
			s = append(s, x.text)
		}
		return s
	}
	assert.Equal(t, []string{"0", "5k", "10k", "15k"}, texts(linearTicks(13200)))
	assert.Equal(t, []string{"0", "0.02", "0.04", "0.06", "0.08", "0.1"}, texts(linearTicks(0.1)))
	assert.Equal(t, []string{"0", "0.2", "0.4", "0.6", "0.8", "1"}, texts(linearTicks(0)))
	assert.Equal(t, []string{"0.5", "1", "2", "5", "10"}, texts(logTicks(0.6, 9)))
	assert.Equal(t, []string{"1", "2"}, texts(logTicks(1, 1)))
	assert.Equal(t, []string{"0.1", "1", "10", "100", "1k"}, texts(logTicks(0.3, 900)))
	assert.Equal(t, []string{"0 %", "50 %", "90 %", "99 %"}, texts(percentTicks(99.8)))
}
