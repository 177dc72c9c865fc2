package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Edge are the metrics of the requests of proxies. Make them with [NewEdge].
type Edge struct {
	// The functions are read at each scrape. They are set before the first one; a metric whose
	// function is nil has no value.
	Connections        func() int
	ConnectionsClosed  func() map[string]int64 // by the node, by reason
	CertificateExpires func() time.Time

	checks     *prometheus.CounterVec
	duration   *prometheus.HistogramVec
	uncounted  *prometheus.CounterVec
	refusals   *prometheus.CounterVec // of profiles that only observe
	incomplete *prometheus.CounterVec
}

// NewEdge returns metrics without values.
func NewEdge() *Edge {
	return &Edge{
		checks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "streamcount_edge_checks_total",
			Help: "Requests of players that proxies let the edge check, by decision and reason. The profile is empty if the proxy has no right to check, or if the edge file has no such profile.",
		}, []string{"profile", "decision", "reason"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "streamcount_edge_check_duration_seconds",
			Help:    "Time from the start of a check to its decision.",
			Buckets: []float64{.00005, .0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"profile"}),
		uncounted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "streamcount_edge_uncounted_total",
			Help: "Requests of players that were allowed without being counted, because etcd was unavailable or the node overloaded.",
		}, []string{"profile"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "streamcount_edge_would_refuse_total",
			Help: "Requests of players that were allowed because the profile only observes (observe: true), by the reason of the refusal.",
		}, []string{"profile", "reason"}),
		incomplete: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "streamcount_edge_incomplete_total",
			Help: "Requests of players that were refused, or would be by a profile that only observes, because the profile does not state an attribute that the plan of the viewer requires, or states one that is not valid.",
		}, []string{"profile"}),
	}
}

// Describe implements prometheus.Collector.
func (e *Edge) Describe(out chan<- *prometheus.Desc) {
	e.checks.Describe(out)
	e.duration.Describe(out)
	e.uncounted.Describe(out)
	e.refusals.Describe(out)
	e.incomplete.Describe(out)
}

// Collect implements prometheus.Collector.
func (e *Edge) Collect(out chan<- prometheus.Metric) {
	e.checks.Collect(out)
	e.duration.Collect(out)
	e.uncounted.Collect(out)
	e.refusals.Collect(out)
	e.incomplete.Collect(out)
}

// Check returns the counter of checks for no profile.
func (e *Edge) Check(decision, reason string) prometheus.Counter {
	return e.checks.WithLabelValues("", decision, reason)
}

// An EdgeProfile counts the checks of one profile.
type EdgeProfile struct {
	outcomes   []prometheus.Counter
	duration   prometheus.Observer
	uncounted  prometheus.Counter
	refusals   *prometheus.CounterVec // by reason
	incomplete prometheus.Counter
}

// Profile returns the counters of a profile. Each outcome is a decision and its reason.
func (e *Edge) Profile(name string, outcomes [][2]string) *EdgeProfile {
	p := &EdgeProfile{
		duration: e.duration.WithLabelValues(name), uncounted: e.uncounted.WithLabelValues(name),
		refusals:   e.refusals.MustCurryWith(prometheus.Labels{"profile": name}),
		incomplete: e.incomplete.WithLabelValues(name),
	}
	for _, o := range outcomes {
		p.outcomes = append(p.outcomes, e.checks.WithLabelValues(name, o[0], o[1]))
	}
	return p
}

// Done counts a check with the outcome of that index.
func (p *EdgeProfile) Done(outcome int, uncounted, incomplete bool, took time.Duration) {
	p.outcomes[outcome].Inc()
	p.duration.Observe(took.Seconds())
	if uncounted {
		p.uncounted.Inc()
	}
	if incomplete {
		p.incomplete.Inc()
	}
}

// WouldRefuse counts a request that was allowed because the profile only observes.
func (p *EdgeProfile) WouldRefuse(reason string) { p.refusals.WithLabelValues(reason).Inc() }
