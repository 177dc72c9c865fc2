package api

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gorilla/mux"

	"streamcount/access"
	"streamcount/api/internal/convert"
	"streamcount/api/internal/ingress"
	"streamcount/api/internal/openapi"
	"streamcount/api/internal/overload"
	"streamcount/api/internal/problem"
	"streamcount/api/internal/router"
	"streamcount/lease/userid"
)

// filter rejects requests that must not reach the router.
func (s *Server) filter(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := w.(*recorder) // observe is outermost: see New
		rec.conn = ingress.ConnOf(r)
		if !rec.conn.BeginRequest() {
			panic(http.ErrAbortHandler) // the connection is being closed
		}
		defer rec.conn.EndRequest()
		rec.http2 = r.ProtoMajor == 2
		rec.bodyRead = r.ContentLength == 0
		defer func() { rec.body.Release() }()
		h := w.Header()
		ingress.SetCommonHeaders(h)
		if ingress.IsChunked(r) {
			h.Set("Connection", "close")
		}
		if s.cfg.Ingress.HSTS && r.TLS != nil {
			h.Set("Strict-Transport-Security", "max-age=31536000")
		}
		if s.ingress.SetCORSHeaders(w, r) {
			return
		}
		if p := checkRequest(r); p != nil {
			p.Write(w)
			return
		}
		rec.client, rec.invalidHop = s.ingress.ClientOf(r)
		if p := s.checkHost(r); p != nil {
			p.Write(w)
			return
		}
		// Health checks and metrics have no rate.
		if s.load.HasRate(overload.RatePerAddress) && !unlimited[r.URL.Path] && !isHeartbeat(r) {
			if p := s.takeRate(r.Context(), overload.RatePerAddress, rec.network()); p != nil {
				p.Write(w)
				return
			}
		}
		rec.head = r.Method == http.MethodHead
		next.ServeHTTP(w, headAsGet(r))
	})
}

// isHeartbeat reports whether r may be a heartbeat. Such a request counts for the rate of
// its address only if it is not a heartbeat of a live stream: see limitAddress.
func isHeartbeat(r *http.Request) bool {
	path := r.URL.Path
	return r.Method == http.MethodPost && (path == batchPath ||
		strings.HasPrefix(path, "/api/v1/streams/users/") && strings.HasSuffix(path, "/heartbeat"))
}

// limitAddress counts a heartbeat of an unknown caller for its address, and returns the
// refusal if it exceeds the rate. Heartbeats of live streams are not counted, because many
// viewers behind one address would lose their slots.
func (s *Server) limitAddress(ctx context.Context, rec *recorder) *problem.Problem {
	if rec.caller.Kind != access.Anonymous && rec.caller.Kind != access.Unrestricted {
		return nil
	}
	return s.takeRate(ctx, overload.RatePerAddress, rec.network())
}

// limitFailedHeartbeats returns the refusal in place of err, for a heartbeat that failed, if the
// address has too many of those.
func (s *Server) limitFailedHeartbeats(ctx context.Context, rec *recorder, err error) error {
	if !s.load.HasRate(overload.RatePerAddress) || convert.Problem(err).Status >= http.StatusInternalServerError {
		return err
	}
	if p := s.limitAddress(ctx, rec); p != nil {
		return p
	}
	return err
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

// checkRequest looks at a request line and its headers.
func checkRequest(r *http.Request) *problem.Problem {
	if p := refusalProblem(ingress.CheckRequest(r)); p != nil {
		return p
	}
	return checkTarget(r)
}

// userPaths are the beginnings of the paths whose segment 4 is a user id.
var userPaths = []string{"/api/v1/streams/users/", "/api/v1/limits/users/", "/api/v1/data/users/"}

// checkTarget holds paths to one spelling: only a user id may have encoded slashes or
// be a dot segment, and only where it is encoded. A proxy that checks paths sees what
// the router sees.
func checkTarget(r *http.Request) *problem.Problem {
	if !strings.HasPrefix(r.URL.Path, "/") {
		if r.Method == http.MethodConnect || r.Method == http.MethodOptions {
			return problem.MethodNotAllowed.New("This is no proxy, and has no general options.").
				WithHeader("Allow", "GET, HEAD, POST, PUT, DELETE")
		}
		return problem.Malformed.New("The request target is not a path.")
	}
	ingress.NormalizeEscapes(r.URL)
	path := r.URL.EscapedPath()
	if path == "/" {
		return nil
	}
	user := -1 // the index of the segment that is a user id
	if slices.ContainsFunc(userPaths, func(prefix string) bool { return strings.HasPrefix(path, prefix) }) {
		user = 4
	}
	i := -1
	for segment := range strings.SplitSeq(path[1:], "/") {
		if i++; i != user && strings.Contains(segment, "%") {
			segment, _ = url.PathUnescape(segment) // EscapedPath escapes well
		}
		switch {
		case strings.Contains(segment, "/"):
			return problem.NotFound.New("An encoded slash is not part of any path here, except in a user id.")
		case segment == "" || segment == "." || segment == "..":
			return problem.NotFound.New("The path has an empty segment, a dot segment or a trailing slash, and paths " +
				"are taken literally.")
		}
	}
	return nil
}

// dispatch calls the handler of a direct call, or next for all other requests.
func (s *Server) dispatch(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handle, params, ok := s.directCalls.Match(r.Method, r.URL.EscapedPath())
		if !ok {
			next.ServeHTTP(w, r)
			return
		}
		params.User, _ = url.PathUnescape(params.User) // EscapedPath, which was matched, escapes well
		params.ID, _ = url.PathUnescape(params.ID)
		handle(w.(*recorder), r, params) // observe is outermost: see New
	})
}

// pathVars are the parts of a request's path that a route names, decoded, which is done
// here and nowhere else.
func pathVars(r *http.Request) (map[string]string, *http.Request) {
	encoded, odd := mux.Vars(r), false
	for _, value := range encoded {
		odd = odd || strings.Contains(value, "%")
	}
	if !odd {
		return encoded, r
	}
	vars := make(map[string]string, len(encoded))
	for name, value := range encoded {
		vars[name], _ = url.PathUnescape(value) // EscapedPath, which was matched, escapes well
	}
	return vars, mux.SetURLVars(r, vars)
}

// checkUser returns a problem for an invalid user id.
func checkUser(where, user string) *problem.Problem {
	if fault := userid.Fault(user); fault != "" {
		return problem.Invalid.New("Invalid user id: "+fault+". Expected "+userid.Rule+".").WithField(where, "expected a user id: "+fault)
	}
	return nil
}

// limitUnrouted is next with the rate of addresses, which filter does not apply to what may
// be a heartbeat.
func (s *Server) limitUnrouted(next http.HandlerFunc) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if isHeartbeat(r) {
			if p := s.limitAddress(r.Context(), w.(*recorder)); p != nil { // observe is outermost: see New
				p.Write(w)
				return
			}
		}
		next(w, r)
	})
}

func (s *Server) notFound(w http.ResponseWriter, _ *http.Request) {
	problem.NotFound.New("Nothing is served at this path. See /docs.").Write(w)
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
	problem.MethodNotAllowed.New("This path takes "+list+".").WithHeader("Allow", list).Write(w)
}

// A serveFunc answers a request of an operation that guard let through. params are the
// decoded path parameters.
type serveFunc func(rec *recorder, r *http.Request, params router.Params, body requestBody)

// guardHuma puts guard in front of an operation that huma serves.
func (s *Server) guardHuma(op *huma.Operation, route *mux.Route) {
	next := route.GetHandler()
	guarded := s.guard(op, nil, func(rec *recorder, r *http.Request, _ router.Params, body requestBody) {
		ctx, cancel := context.WithTimeout(context.WithValue(r.Context(), recorderKey{}, rec), s.cfg.RequestTimeout)
		defer cancel()
		next.ServeHTTP(rec, humaRequest(r.WithContext(ctx), body.json))
	})
	route.Handler(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		vars, r := pathVars(r)
		guarded(w.(*recorder), r, router.Params{User: vars["user"], ID: vars["id"]}) // observe is outermost: see New
	}))
}

// A guardedFunc checks a request of an operation and answers it. params are the decoded
// path parameters.
type guardedFunc func(rec *recorder, r *http.Request, params router.Params)

// guard authorizes a request of an operation, checks its path, query and body more
// strictly than huma and encoding/json do, and calls serve if the request gets a slot.
// readPlain is that of readBody.
func (s *Server) guard(op *huma.Operation, readPlain func([]byte) (any, bool), serve serveFunc) guardedFunc {
	counts, traits := s.metrics.Route(op.Method, op.Path), openapi.TraitsOf(op)
	withUser := strings.Contains(op.Path, "{user}")
	return func(rec *recorder, r *http.Request, params router.Params) {
		rec.route, rec.counts = op.Path, counts
		user := params.User
		if len(user) <= userid.Max {
			rec.user = user
		}
		p := s.authorize(traits, rec, r, user)
		if p == nil && withUser {
			p = checkUser("path.user", user)
		}
		// A batch, which has no id in its path, always counts for the address of the caller.
		if traits.Heartbeat && (p != nil || !validIDForm(params.ID)) {
			p = cmp.Or(s.limitAddress(r.Context(), rec), p)
		}
		if p != nil {
			p.Write(rec)
			return
		}
		rec.timedCall = traits.Timed
		if !s.backend.Load().serves(traits.Action) {
			problem.Unavailable.New("The node has not reached etcd yet. "+problem.RetryAdvice).WithHeader("Retry-After", problem.RetryAfterJittered()).Write(rec)
			return
		}
		if !validQuery(r.URL.RawQuery) {
			problem.Malformed.New("The query is not well formed.").Write(rec)
			return
		}
		body, p := s.readBody(rec, r, op, readPlain)
		if p != nil {
			p.Write(rec)
			return
		}
		s.admit(rec, traits.Class, func() { serve(rec, r, params, body) })
	}
}

// serves reports whether b has what an action needs.
func (b *Backend) serves(a access.Action) bool {
	switch a {
	case access.ReadRules, access.WriteRules:
		return b.Limiter != nil && b.Rules != nil
	case access.ExportData, access.EraseData, access.EndAnyStreams:
		return b.Limiter != nil && b.Data != nil
	}
	return b.Limiter != nil
}

func validQuery(raw string) bool {
	_, err := url.ParseQuery(raw)
	return raw == "" || err == nil
}

// humaRequest is r with a body that has been checked. Its headers leave huma nothing to
// negotiate: requests and responses are JSON.
func humaRequest(r *http.Request, body []byte) *http.Request {
	r.Header = maps.Clone(r.Header)
	r.Header.Del("Accept")
	r.Header.Set("Content-Type", "application/json")
	r.Body = io.NopCloser(bytes.NewReader(body))
	return r
}
