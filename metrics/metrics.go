package metrics

import (
	"net/http"
	"regexp"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are the metrics of a node. Make them with [New]. They are safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
	none     map[string]*Route // of requests without a route, by method
}

// New returns metrics that read src at each scrape.
func New(src Source) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "streamcount_http_requests_total",
			Help: "Requests, by the status of the response; 0 if there was no response.",
		}, []string{"method", "route", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "streamcount_http_request_duration_seconds",
			Help: "Time from the start of a request to the end of its response. Event streams are left out.",
			Buckets: []float64{
				.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5,
			},
		}, []string{"method", "route"}),
		none: map[string]*Route{},
	}
	m.registry.MustRegister(
		m.requests, m.duration, newRuntimeCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		newCollector(nodeFamilies, nil, func(read func(Source, ...string)) { read(src) }),
	)
	if src.Edge != nil {
		m.registry.MustRegister(src.Edge)
	}
	registerShards(m.registry, src.Shards)
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", otherMethod} {
		m.none[method] = m.Route(method, NoRoute)
	}
	return m
}

// runtimeMetrics are the metrics of Go's runtime beyond the usual ones: the CPU time of
// the garbage collector and of the program, and the size of the live heap.
var runtimeMetrics = regexp.MustCompile(`^/(cpu/classes/(gc/total|idle|total)|gc/heap/live):`)

func newRuntimeCollector() prometheus.Collector {
	return collectors.NewGoCollector(collectors.WithGoCollectorRuntimeMetrics(collectors.GoRuntimeMetricsRule{Matcher: runtimeMetrics}))
}

const maxScrapes = 4 // concurrent ones

// Handler serves the metrics in Prometheus' text format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError, // the other metrics are still useful
		MaxRequestsInFlight: maxScrapes,
	})
}

// Gatherer returns the source of the metrics.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }
