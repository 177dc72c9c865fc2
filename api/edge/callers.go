package edge

import (
	"net/http"
	"net/netip"
	"time"

	"streamcount/access"
	"streamcount/api/internal/problem"
)

// keyHeader has the key of a proxy. Authorization has the token of the viewer.
const keyHeader = "X-Streamcount-Key"

// isForbidden reports whether a proxy may not use the edge: it has neither an allowed address nor
// a verified certificate nor a key of scope edge.
func (s *Server) isForbidden(r *http.Request) bool {
	if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
		return false
	}
	if from, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		addr := from.Addr().Unmap().WithZone("")
		for _, network := range s.cfg.Allow {
			if network.Contains(addr) {
				return false
			}
		}
	}
	keys := r.Header[keyHeader]
	if len(keys) != 1 || s.cfg.Keys == nil {
		return true
	}
	caller, ok := s.cfg.Keys.FindKey(keys[0])
	return !ok || caller.Kind != access.Edge
}

// rejectProfile answers a proxy that asks for a profile that the file does not have. The viewers of
// such a proxy are denied or, if it fails open, not counted.
func (s *Server) rejectProfile(w http.ResponseWriter, r *http.Request, name string) {
	s.unknown.Inc()
	if suppressed, ok := s.profileLines.Allow(time.Now()); ok {
		const maxShown = 64
		s.log.WarnContext(r.Context(), "a proxy asks for a profile that the edge file does not have", "profile", name[:min(len(name), maxShown)],
			"address", r.RemoteAddr, "file", s.cfg.File, "suppressed", suppressed)
	}
	writeProblem(w, problem.NotFound.New("The edge file has no profile of that name."))
}

// rejectCaller answers a proxy that may not use the edge. observe means that it sends a check for a
// profile that only observes.
func (s *Server) rejectCaller(w http.ResponseWriter, r *http.Request, observe bool) {
	s.rejected.Inc()
	if suppressed, ok := s.keyLines.Allow(time.Now()); ok {
		s.log.WarnContext(r.Context(), "a proxy has neither an allowed address nor a key of scope edge: set edge-allow, or send the key in "+
			keyHeader, "address", r.RemoteAddr, "key", len(r.Header[keyHeader]) > 0, "suppressed", suppressed)
	}
	var d Decision
	d = d.deny(BadKey, problem.Forbidden.New("The proxy needs an allowed address, or an API key of scope edge in "+keyHeader+"."))
	if observe {
		d = d.observed()
	}
	answer(w, nil, d)
}
