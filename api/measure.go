package api

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"streamcount/access"
	"streamcount/lease"
	"streamcount/metrics"
)

const (
	metricsPath = "/metrics"
	eventsPath  = "/api/v1/events"
)

// turnedAway counts requests that were refused because there is too much to do.
type turnedAway struct {
	full atomic.Int64 // as many are in flight as may be
	slow atomic.Int64 // those that are served take too long

	early atomic.Int64 // of the slow, those that were refused before they were requests
}

// newMetrics are metrics of what the Server and its backend are at each scrape.
func (s *Server) newMetrics() *metrics.Metrics {
	return metrics.New(metrics.Source{
		Version: s.cfg.Node.Version, Node: s.cfg.Node.ID, Region: s.cfg.Node.Region,
		Ready:    s.notReady,
		InFlight: func() int { return len(s.inFlight) },
		Shed: func() map[string]int64 {
			return map[string]int64{"in-flight": s.turnedAway.full.Load(), "slow": s.turnedAway.slow.Load()}
		},
		EventStreams: func() int { return len(s.events.slots) },
		Shards: func() map[string]*lease.Measures {
			if ask := s.backend.Load().Measures; ask != nil {
				return ask()
			}
			return nil
		},
		CertificateExpires: s.cfg.Edge.CertificateExpires,
	})
}

// counted tells the recorder which route was taken, of which it has the counters
// from the beginning.
func (s *Server) counted(method, route string, h http.HandlerFunc) http.Handler {
	register := s.metrics.Route
	if route == eventsPath {
		register = s.metrics.Stream
	}
	counts := register(method, route)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rec, ok := w.(*recorder); ok {
			rec.route, rec.counts = route, counts
		}
		h(w, r)
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

// only serves a page to callers who may do what it takes.
func (s *Server) only(does access.Action, path string, h http.Handler) http.HandlerFunc {
	op := &huma.Operation{Method: http.MethodGet, Path: path, Metadata: map[string]any{doesKey: does}}
	return func(w http.ResponseWriter, r *http.Request) {
		if p := s.authorize(op, w.(*recorder), r, ""); p != nil { // observe is outermost: see New
			p.write(w)
			return
		}
		h.ServeHTTP(w, r)
	}
}
