package metrics

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// NoRoute is the route of requests that have none, or were rejected before routing.
	NoRoute     = "none"
	otherMethod = "other"
)

// A Route counts the requests of one route.
type Route struct {
	requests *prometheus.CounterVec // of this route, by code
	codes    [maxStatus]atomic.Pointer[prometheus.Counter]
	duration prometheus.Observer // nil for streams
}

const maxStatus = 600

// Route returns the counters of a route. The path has the names of parameters.
func (m *Metrics) Route(method, path string) *Route {
	return &Route{
		requests: m.requests.MustCurryWith(prometheus.Labels{"method": method, "route": path}),
		duration: m.duration.WithLabelValues(method, path),
	}
}

// Stream returns the counters of a route whose responses last as long as their clients
// read. Their duration is not measured.
func (m *Metrics) Stream(method, path string) *Route {
	return &Route{requests: m.requests.MustCurryWith(prometheus.Labels{"method": method, "route": path})}
}

// None returns the counters of requests with that method and without a route.
func (m *Metrics) None(method string) *Route {
	if r, ok := m.none[method]; ok {
		return r
	}
	return m.none[otherMethod]
}

// Done counts a request that got a response with status, or 0 if it got none.
func (r *Route) Done(status int, took time.Duration) {
	if status < 0 || status >= maxStatus {
		status = http.StatusInternalServerError // no handler writes it
	}
	c := r.codes[status].Load()
	if c == nil {
		made := r.requests.WithLabelValues(strconv.Itoa(status))
		c = &made
		r.codes[status].Store(c)
	}
	(*c).Inc()
	if r.duration != nil {
		r.duration.Observe(took.Seconds())
	}
}
