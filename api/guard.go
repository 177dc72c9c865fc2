package api

import (
	"context"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gorilla/mux"
)

const (
	maxTarget  = 2 << 10 // bytes of path and query; the longest legitimate one has about 600
	maxHeaders = 100
)

// front bounds the load and refuses what must not reach the router.
func (s *Server) front(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		commonHeaders(h)
		if chunked(r) {
			// Whatever follows a chunked request on its connection is not run:
			// see conn.go.
			h.Set("Connection", "close")
		}
		if p := refuseRequest(r); p != nil {
			p.write(w)
			return
		}
		rec := w.(*recorder) // observe is outermost: see New
		rec.client = s.edge.addressOf(r)
		if s.edge.meet(w, r) {
			return
		}
		// Health is answered even when nothing else can be, and measured.
		if r.URL.Path != "/healthz" && r.URL.Path != "/readyz" && r.URL.Path != metricsPath {
			if s.edge.perAddress != nil {
				if p := s.edge.tooFast(r.Context(), s.edge.perAddress, network(rec.client), "address"); p != nil {
					p.write(w)
					return
				}
			}
			select {
			case s.inFlight <- struct{}{}:
				defer func() { <-s.inFlight }()
			default:
				s.turnedAway.full.Add(1)
				overloaded.problem("The node has as many requests in flight as it may. Play on, and try again "+
					"after the seconds in Retry-After.").with("Retry-After", soon()).write(w)
				return
			}
		}
		rec.head = r.Method == http.MethodHead
		next.ServeHTTP(w, headAsGet(r))
	})
}

// commonHeaders sets what stands in the head of every answer.
func commonHeaders(h http.Header) {
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
}

// headAsGet lets a HEAD take the route of its GET; net/http leaves the body out.
func headAsGet(r *http.Request) *http.Request {
	if r.Method != http.MethodHead {
		return r
	}
	get := *r
	get.Method = http.MethodGet
	return &get
}

// refuseRequest looks at a request line and its headers.
func refuseRequest(r *http.Request) *problem {
	headers := 0
	for _, values := range r.Header {
		headers += len(values)
	}
	switch {
	case ambiguous(r):
		return malformed.problem("It is not clear where the body ends: send Content-Length or, with HTTP/1.1, "+
			"Transfer-Encoding, never both, and no folded header lines.").with("Connection", "close")
	case r.ProtoMajor > 1 && r.Method == "PRI":
		return malformed.problem("HTTP/2 without TLS is not spoken here: use HTTP/1.1.").with("Connection", "close")
	case headers > maxHeaders:
		return headersTooLarge.problem("Send at most 100 headers.")
	case len(r.RequestURI) > maxTarget:
		return targetTooLong.problem("Keep the path and query within 2 KiB.")
	}
	return refuseTarget(r)
}

// refuseTarget holds paths to one spelling. mux matches the decoded path, where
// "a%2Fstart" would be two segments; a proxy that checks paths may see one.
func refuseTarget(r *http.Request) *problem {
	path := r.URL.Path
	if !strings.HasPrefix(path, "/") {
		if r.Method == http.MethodConnect || r.Method == http.MethodOptions {
			return methodNotAllowed.problem("This is no proxy, and has no general options.").
				with("Allow", "GET, HEAD, POST, PUT, DELETE")
		}
		return malformed.problem("The request target is not a path.")
	}
	if strings.Contains(strings.ToLower(r.URL.RawPath), "%2f") {
		return notFound.problem("An encoded slash is not part of any path here.")
	}
	if path == "/" {
		return nil
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		if segment == "" || segment == "." || segment == ".." {
			return notFound.problem("The path has an empty segment, a dot segment or a trailing slash, and paths " +
				"are taken literally.")
		}
	}
	return nil
}

func (s *Server) notFound(w http.ResponseWriter, _ *http.Request) {
	notFound.problem("Nothing is served at this path. See /docs.").write(w)
}

// methodNotAllowed names the methods that the path has.
func (s *Server) methodNotAllowed(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{"GET", "POST", "PUT", "DELETE"} {
		try, match := *r, mux.RouteMatch{}
		try.Method = method
		if s.router.Match(&try, &match) && match.MatchErr == nil {
			allowed = append(allowed, method)
		}
	}
	if i := slices.Index(allowed, "GET"); i >= 0 {
		allowed = slices.Insert(allowed, i+1, "HEAD")
	}
	list := strings.Join(allowed, ", ")
	methodNotAllowed.problem("This path takes "+list+".").with("Allow", list).write(w)
}

// guardRoute puts guard in front of an operation when it is registered.
func (s *Server) guardRoute(op *huma.Operation, route *mux.Route) {
	route.Handler(s.guard(op, route.GetHandler()))
}

// guard reads an operation's query and body more strictly than huma and
// encoding/json do, and gives the call its deadline.
func (s *Server) guard(op *huma.Operation, next http.Handler) http.Handler {
	hot, counts, timed := s.hot(op), s.metrics.Route(op.Method, op.Path), timedCalls[op.OperationID]
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := w.(*recorder) // observe is outermost: see New
		rec.route, rec.counts = op.Path, counts
		vars := mux.Vars(r)
		if user := vars["user"]; len(user) <= 128 {
			rec.user = user
		}
		if p := s.authorize(op, rec, r, vars["user"]); p != nil {
			p.write(w)
			return
		}
		rec.timed = timed
		if b := s.backend.Load(); b.Limiter == nil || b.Rules == nil && slices.Contains(op.Tags, tagRules) {
			unavailable.problem("The node has not reached etcd yet. Play on, and try again after the seconds in "+
				"Retry-After.").with("Retry-After", soon()).write(w)
			return
		}
		if hot != nil && plain(r, vars) {
			s.serve(op, w, func() { hot(rec, r, vars) })
			return
		}
		if _, err := url.ParseQuery(r.URL.RawQuery); err != nil {
			malformed.problem("The query is not well formed.").write(w)
			return
		}
		body, p := readBody(r, op)
		if p != nil {
			p.write(w)
			return
		}
		ctx := context.WithValue(r.Context(), recorderKey{}, rec)
		ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
		defer cancel()
		s.serve(op, w, func() { next.ServeHTTP(w, forHuma(r.WithContext(ctx), body)) })
	})
}

// forHuma hands over a checked body. The headers that huma would negotiate by
// are settled here: what arrives is JSON, and so is what leaves.
func forHuma(r *http.Request, body *bodyReader) *http.Request {
	r.Header = maps.Clone(r.Header)
	r.Header.Del("Accept")
	r.Header.Set("Content-Type", "application/json")
	r.Body = body
	return r
}
