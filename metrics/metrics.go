package metrics

import (
	"context"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"streamcount/lease"
)

// Source is what a scrape asks. A nil function has nothing to tell.
type Source struct {
	Version, Node, Region string

	Shards       func() map[string]*lease.Measures // by name; nil for one that was not reached
	Ready        func(context.Context) error       // as the node tells load balancers
	InFlight     func() int                        // requests
	Shed         func() map[string]int64           // requests turned away, by reason
	EventStreams func() int
	// CertificateExpires is when the certificate does that the node shows now.
	CertificateExpires func() time.Time
}

// Metrics are a node's metrics. Make one with [New]; it is safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.CounterVec
	took     *prometheus.HistogramVec
	none     map[string]*Route // of requests that took no route, by method
}

// New returns metrics that ask src at every scrape.
func New(src Source) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "streamcount_http_requests_total",
			Help: "Requests answered, by the status of the answer; 0 if there was none.",
		}, []string{"method", "route", "code"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "streamcount_http_request_duration_seconds",
			Help: "Time from a request's arrival to the end of its answer; not of streams of events.",
			Buckets: []float64{
				.00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5,
			},
		}, []string{"method", "route"}),
		none: map[string]*Route{},
	}
	m.registry.MustRegister(
		m.requests, m.took, &nodeCollector{src}, &limiterCollector{src.Shards},
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	for _, method := range []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", otherMethod} {
		m.none[method] = m.Route(method, NoRoute)
	}
	return m
}

const maxScrapes = 4 // at once

// Handler serves the metrics in Prometheus' text format.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorHandling:       promhttp.ContinueOnError, // what can be told is worth telling
		MaxRequestsInFlight: maxScrapes,
	})
}

// Gatherer is where the metrics can be read.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// nodeCollector tells what is the node's and no shard's.
type nodeCollector struct{ Source }

var (
	buildInfo = prometheus.NewDesc("streamcount_build_info",
		"Always 1; the labels say what program runs.", []string{"version", "goversion"}, nil)
	nodeInfo = prometheus.NewDesc("streamcount_node_info",
		"Always 1; the labels say which node this is.", []string{"node", "region"}, nil)
	ready = prometheus.NewDesc("streamcount_ready",
		"1 if the node would say at /readyz that it should be sent requests, else 0.", nil, nil)
	inFlight = prometheus.NewDesc("streamcount_http_requests_in_flight", "Requests being served.", nil, nil)
	shed     = prometheus.NewDesc("streamcount_http_requests_shed_total",
		"Requests turned away because there is too much to do.", []string{"reason"}, nil)
	streams = prometheus.NewDesc("streamcount_event_streams", "Streams of events that are open.", nil, nil)
	expires = prometheus.NewDesc("streamcount_tls_certificate_expiry_timestamp_seconds",
		"When the certificate expires that the node shows.", nil, nil)
)

// Describe implements prometheus.Collector.
func (c *nodeCollector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildInfo, nodeInfo, ready, inFlight, shed, streams, expires} {
		out <- d
	}
}

// readyPatience is how long a scrape waits for etcd.
const readyPatience = time.Second

// Collect implements prometheus.Collector.
func (c *nodeCollector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(buildInfo, 1, labelValue(c.Version), runtime.Version())
	gauge(nodeInfo, 1, labelValue(c.Node), labelValue(c.Region))
	if c.Ready != nil {
		ctx, cancel := context.WithTimeout(context.Background(), readyPatience)
		gauge(ready, truth(c.Ready(ctx) == nil))
		cancel()
	}
	if c.InFlight != nil {
		gauge(inFlight, float64(c.InFlight()))
	}
	if c.EventStreams != nil {
		gauge(streams, float64(c.EventStreams()))
	}
	if c.Shed != nil {
		for reason, n := range c.Shed() {
			out <- prometheus.MustNewConstMetric(shed, prometheus.CounterValue, float64(n), reason)
		}
	}
	if c.CertificateExpires != nil {
		gauge(expires, float64(c.CertificateExpires().Unix()))
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
