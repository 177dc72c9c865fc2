package metrics

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

const (
	// NoRoute is the route of requests that took none: there is none, or they were
	// refused before.
	NoRoute     = "none"
	otherMethod = "other"
)

// A Route counts the requests of one route.
type Route struct {
	requests *prometheus.CounterVec // of this route, by code
	codes    [maxStatus]atomic.Pointer[prometheus.Counter]
	took     prometheus.Observer // nil if the time says nothing
}

const maxStatus = 600

// Route returns the counters of a route as it is registered, path parameters by
// name.
func (m *Metrics) Route(method, path string) *Route {
	return &Route{
		requests: m.requests.MustCurryWith(prometheus.Labels{"method": method, "route": path}),
		took:     m.took.WithLabelValues(method, path),
	}
}

// Stream returns the counters of a route whose answers go on for as long as their
// readers like.
func (m *Metrics) Stream(method, path string) *Route {
	return &Route{requests: m.requests.MustCurryWith(prometheus.Labels{"method": method, "route": path})}
}

// None returns the counters for requests of that method which took no route.
func (m *Metrics) None(method string) *Route {
	if r, ok := m.none[method]; ok {
		return r
	}
	return m.none[otherMethod]
}

// Done counts a request that was answered with status, 0 if with none.
func (r *Route) Done(status int, took time.Duration) {
	if status < 0 || status >= maxStatus {
		status = http.StatusInternalServerError // nothing of ours answers so
	}
	c := r.codes[status].Load()
	if c == nil {
		made := r.requests.WithLabelValues(strconv.Itoa(status))
		c = &made
		r.codes[status].Store(c)
	}
	(*c).Inc()
	if r.took != nil {
		r.took.Observe(took.Seconds())
	}
}
