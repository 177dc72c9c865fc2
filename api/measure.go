package api

import (
	"maps"
	"net/http"
	"time"

	"streamcount/access"
	"streamcount/api/internal/openapi"
	"streamcount/api/internal/overload"
	"streamcount/lease/stats"
	"streamcount/metrics"
)

const (
	metricsPath = "/metrics"
	eventsPath  = "/api/v1/events"
)

// newMetrics are metrics of what the Server and its backend are at each scrape.
func (s *Server) newMetrics() *metrics.Metrics {
	return metrics.New(metrics.Source{
		Version: s.cfg.Node.Version, Node: s.cfg.Node.ID, Region: s.cfg.Node.Region,
		Ready:            s.ready.Err,
		InFlight:         s.load.InFlight,
		RejectedRequests: s.load.Rejected,
		AuthFailures:     s.denials.Counts,
		Audit:            s.cfg.AuditMeasures,
		FilesFailing:     s.cfg.FilesFailing,
		OlderNodes:       func() int { return len(s.compatibility().Older) },
		MemoryBudget:     s.cfg.MemoryBudget,
		RejectedStarts: func() map[string]int64 {
			out := map[string]int64{"body": 0} // so that there is such a metric
			maps.Copy(out, s.rejectedStarts.counts())
			return out
		},
		EventStreams:      s.load.EventStreams,
		Connections:       s.ingress.Connections,
		ArrivingBodies:    s.ingress.ArrivingBodies,
		ConnectionsClosed: s.ingress.ClosedConnections,
		Shards: func() map[string]*stats.Snapshot {
			if ask := s.backend.Load().Measures; ask != nil {
				return ask()
			}
			return nil
		},
		Edge:               s.cfg.Edge,
		CertificateExpires: s.cfg.Ingress.CertificateExpires,
		Issuers:            issuersOf(s.cfg.Access),
	})
}

// issuersOf returns the state of the issuers of tokens, if a has any.
func issuersOf(a Access) func() []metrics.Issuer {
	known, ok := a.(interface{ Issuers() []access.IssuerState })
	if !ok {
		return nil
	}
	return func() []metrics.Issuer {
		var out []metrics.Issuer
		for _, i := range known.Issuers() {
			rejected := make(map[string]int64, len(i.Rejected))
			for reason, n := range i.Rejected {
				rejected[string(reason)] = n
			}
			out = append(out, metrics.Issuer{Name: i.Name, Keys: i.Keys, Remote: i.Remote, Fetched: i.Fetched, Rejected: rejected})
		}
		return out
	}
}

// unlimited are the routes without limits, which are answered also under overload.
var unlimited = map[string]bool{"/healthz": true, "/readyz": true, metricsPath: true}

// instrument sets the route of a request in its recorder. The counters of the route exist from
// its registration on.
func (s *Server) instrument(method, route string, h http.HandlerFunc) http.Handler {
	register := s.metrics.Route
	if route == eventsPath {
		register = s.metrics.Stream
	}
	counts := register(method, route)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := w.(*recorder) // observe is outermost: see New
		rec.route, rec.counts = route, counts
		if unlimited[route] {
			h(w, r)
			return
		}
		s.admit(rec, overload.Ordinary, func() { h(w, r) })
	})
}

// count counts a request that is over.
func (s *Server) count(rec *recorder, r *http.Request, took time.Duration) {
	counts := rec.counts
	if counts == nil { // it took no route
		counts = s.metrics.None(r.Method)
	}
	counts.Done(rec.status, took)
}

// requireAction serves a page to callers who may do what it takes.
func (s *Server) requireAction(does access.Action, h http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if p := s.authorize(openapi.Traits{Action: does}, w.(*recorder), r, ""); p != nil { // observe is outermost: see New
			p.Write(w)
			return
		}
		h.ServeHTTP(w, r)
	}
}
