package metrics

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"streamcount/lease/stats"
)

const (
	counter = prometheus.CounterValue
	gauge   = prometheus.GaugeValue
)

// A family is a metric whose values are read from an S at each scrape. To add a metric, add
// its value to the S and its family to the table.
type family[S any] struct {
	name   string // without the prefix streamcount_
	help   string
	kind   prometheus.ValueType // of values that are numbers
	labels []string
	read   func(S, sink)
}

// A sink receives the values of one family.
type sink struct {
	out    chan<- prometheus.Metric
	desc   *prometheus.Desc
	kind   prometheus.ValueType
	common []string // the first label values of every value
}

func (s sink) value(v float64, labels ...string) {
	s.out <- prometheus.MustNewConstMetric(s.desc, s.kind, v, append(slices.Clone(s.common), labels...)...)
}

// values receives a value for each value of the family's label.
func (s sink) values(byLabel map[string]int64) {
	for label, n := range byLabel {
		s.value(float64(n), label)
	}
}

func (s sink) distribution(d stats.Distribution, labels ...string) {
	s.out <- prometheus.MustNewConstHistogram(s.desc, d.Count, d.Sum, d.Cumulative, append(slices.Clone(s.common), labels...)...)
}

// A collector collects a table of families from each of some sources.
type collector[S any] struct {
	families []family[S]
	descs    []*prometheus.Desc // of families, in the same order
	// sources calls read with each source and the values of its common labels.
	sources func(read func(source S, common ...string))
}

func newCollector[S any](families []family[S], common []string, sources func(func(S, ...string))) *collector[S] {
	c := &collector[S]{families: families, sources: sources}
	for _, f := range families {
		c.descs = append(c.descs, prometheus.NewDesc("streamcount_"+f.name, f.help, append(slices.Clone(common), f.labels...), nil))
	}
	return c
}

// Describe implements prometheus.Collector.
func (c *collector[S]) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector[S]) Collect(out chan<- prometheus.Metric) {
	c.sources(func(source S, common ...string) {
		for i, f := range c.families {
			f.read(source, sink{out, c.descs[i], f.kind, common})
		}
	})
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
