package edge

import (
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"streamcount/access"
	"streamcount/api/edge/profile"
	"streamcount/api/internal/ingress"
	"streamcount/api/internal/overload"
	"streamcount/api/internal/problem"
	"streamcount/metrics"
)

// Keys finds API keys.
type Keys interface {
	FindKey(key string) (access.Caller, bool)
}

// A Config configures a Server.
type Config struct {
	CheckerConfig
	File  string         // of profiles
	Allow []netip.Prefix // addresses of proxies that need no key
	Keys  Keys           // nil means that no key is valid
	// TLS is the configuration of all connections; nil means plain HTTP/1.1. A request on a
	// connection with a verified client certificate needs no key.
	TLS     *tls.Config
	Metrics *metrics.Edge // nil means none are exported
	Log     *slog.Logger  // nil means slog.Default()
	// MaxConnections is the maximum number of open connections; 0 means DefaultMaxConnections.
	MaxConnections int
	// ShutdownDelay is how long Run continues to serve after its context ends, and Drain how long
	// it then waits for requests in progress.
	ShutdownDelay, Drain time.Duration
}

// DefaultMaxConnections is the default of [Config.MaxConnections]. Proxies are few, but keep many
// connections open, and need one for each check in progress while etcd is slow.
const DefaultMaxConnections = 10_000

// A Server answers the requests of proxies. Make one with [New]; it is safe for concurrent use.
type Server struct {
	*Checker
	cfg      Config
	log      *slog.Logger
	file     profileFile
	profiles atomic.Pointer[map[string]*served]
	ingress  *ingress.Ingress
	draining atomic.Bool        // the node shuts down
	rejected prometheus.Counter // requests of proxies without the right to check
	unknown  prometheus.Counter // requests of proxies with a profile that the file does not have

	keyLines, profileLines, outageLines, observeLines, incompleteLines overload.LogSampler
}

// A served is a profile with its counters.
type served struct {
	*profile.Profile
	counters *metrics.EdgeProfile
}

// New reads the file of profiles.
func New(cfg Config) (*Server, error) {
	cfg.Metrics = cmp.Or(cfg.Metrics, metrics.NewEdge())
	cfg.MaxConnections = cmp.Or(cfg.MaxConnections, DefaultMaxConnections)
	s := &Server{Checker: NewChecker(cfg.CheckerConfig), cfg: cfg, log: cmp.Or(cfg.Log, slog.Default())}
	var err error
	if s.ingress, err = newIngress(cfg, s.log); err != nil {
		return nil, fmt.Errorf("edge: %w", err)
	}
	cfg.Metrics.Connections, cfg.Metrics.ConnectionsClosed = s.ingress.Connections, s.ingress.ClosedConnections
	s.rejected = cfg.Metrics.Check(BadKey.Decision(), BadKey.String())
	s.unknown = cfg.Metrics.Check(BadKey.Decision(), "profile")
	return s, s.file.open(cfg.File, s.use)
}

// labels returns the decision and the reason of each outcome.
func labels() [][2]string {
	out := make([][2]string, numOutcomes)
	for o := range numOutcomes {
		out[o] = [2]string{o.Decision(), o.String()}
	}
	return out
}

// use makes the server use other profiles.
func (s *Server) use(profiles map[string]*profile.Profile) {
	all := make(map[string]*served, len(profiles))
	for name, p := range profiles {
		all[name] = &served{p, s.cfg.Metrics.Profile(name, labels())}
	}
	s.profiles.Store(&all)
}

const (
	pathPrefix = "/edge/v1/"
	// healthPath needs no key: load balancers use it.
	healthPath = "/edge/healthz"
	// maxTarget and maxHeaders bound what a proxy sends, in bytes: media URLs may contain tokens,
	// and players send cookies.
	maxTarget  = 16 << 10
	maxHeaders = 32 << 10
)

// ServeHTTP routes by the target as it was sent. Below uri/ and leave/ it is the target of a player,
// and may contain anything.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn := ingress.ConnOf(r)
	if !conn.BeginRequest() {
		panic(http.ErrAbortHandler) // the connection is being closed
	}
	defer conn.EndRequest()
	w.Header()["Cache-Control"] = noStore
	target := originForm(r.RequestURI)
	path, _, _ := strings.Cut(target, "?")
	// net/http would wait for the body, which may never arrive. During a shutdown the proxy opens
	// its next connection to another node.
	if r.ProtoMajor == 1 && (r.ContentLength != 0 || s.draining.Load()) {
		w.Header().Set("Connection", "close")
	}
	if p := cmp.Or(checkFraming(r), checkSize(r)); p != nil {
		writeProblem(w, p)
		return
	}
	if path == healthPath {
		s.health(w)
		return
	}
	rest, ok := strings.CutPrefix(path, pathPrefix)
	name, call, ok2 := strings.Cut(rest, "/")
	if !ok || !ok2 {
		writeProblem(w, noRoute())
		return
	}
	p := (*s.profiles.Load())[name]
	below := strings.HasPrefix(call, "uri/")
	if s.isForbidden(r) {
		s.rejectCaller(w, r, p != nil && p.Observe && (below || call == "check"))
		return
	}
	if p == nil {
		s.rejectProfile(w, r, name)
		return
	}
	switch {
	case below:
		s.check(w, r, p, profile.FromRequest, target[len(path)-len(call)+len("uri"):])
	case call == "check":
		s.check(w, r, p, p.From, "")
	case r.Method == http.MethodPost && strings.HasPrefix(call, "leave/"):
		s.leave(w, r, p, target[len(path)-len(call)+len("leave"):])
	case r.Method == http.MethodPost && call == "leave":
		s.leave(w, r, p, "")
	case r.Method == http.MethodPost && call == "explain":
		s.explain(w, r, p)
	case call == "leave", strings.HasPrefix(call, "leave/"), call == "explain":
		writeProblem(w, problem.MethodNotAllowed.New("This path takes POST.").WithHeader("Allow", "POST"))
	default:
		writeProblem(w, noRoute())
	}
}

// originForm returns the path and the query of a target, which may be a whole URL (RFC 9112,
// section 3.2.2).
func originForm(target string) string {
	_, rest, ok := strings.Cut(target, "://")
	if !ok || target[0] == '/' {
		return target
	}
	if i := strings.IndexAny(rest, "/?"); i >= 0 {
		return rest[i:]
	}
	return ""
}

func noRoute() *problem.Problem {
	return problem.NotFound.New("Nothing is served at this path. The paths are " + healthPath + " and " + pathPrefix +
		"PROFILE/ with check, uri/..., leave, leave/... and explain.")
}

// checkSize bounds the target and the headers.
func checkSize(r *http.Request) *problem.Problem {
	size := 0
	for name, values := range r.Header {
		for _, value := range values {
			size += len(name) + len(value) + len(": \r\n")
		}
	}
	switch {
	case len(r.RequestURI) > maxTarget:
		return problem.TargetTooLong.New("Keep the path and query within 16 KiB.")
	case size > maxHeaders+maxTarget, size > maxHeaders && size-len(r.Header.Get("X-Original-Uri"))-len(r.Header.Get("X-Forwarded-Uri")) > maxHeaders:
		return problem.HeadersTooLarge.New("Keep the headers within 32 KiB.")
	}
	return nil
}

func (s *Server) health(w http.ResponseWriter) {
	status, text := http.StatusOK, "ok\n"
	switch b := s.backend.Load(); {
	case s.draining.Load():
		status, text = http.StatusServiceUnavailable, "the node is shutting down\n"
	case b == nil || b.CutOff != nil && b.CutOff():
		status, text = http.StatusServiceUnavailable, "etcd is unavailable to this node\n"
	}
	w.Header()["Content-Type"] = plainText
	w.WriteHeader(status)
	_, _ = w.Write([]byte(text)) // fails only if the client is gone
}

// originalHeaders are the headers of the original target and method, by the source of a profile.
var originalHeaders = map[profile.Source][2]string{
	profile.FromOriginal:  {"X-Original-Uri", "X-Original-Method"},
	profile.FromForwarded: {"X-Forwarded-Uri", "X-Forwarded-Method"},
}

// check answers the check of a request. from is the source that the route has, and target the
// original target if that is the request itself.
func (s *Server) check(w http.ResponseWriter, r *http.Request, p *served, from profile.Source, target string) {
	begin := time.Now()
	original, bad := s.original(r, p, from, target)
	var d Decision
	if bad != "" {
		d = d.rejected(&profile.Rejection{Reason: profile.BadURI, Detail: bad})
	} else {
		d = s.Check(r.Context(), p.Profile, original)
	}
	if p.Observe && !d.Outcome.Allowed() {
		d = d.observed()
		p.counters.WouldRefuse(d.Refusal.String())
	}
	p.counters.Done(int(d.Outcome), d.Outcome == Uncounted, d.Incomplete != "", time.Since(begin))
	s.logDecision(r.Context(), p.Name, d)
	answer(w, p.Profile, d)
}

// original returns the request of the player, or what is wrong with how the proxy reports it.
func (s *Server) original(r *http.Request, p *served, from profile.Source, target string) (o profile.Request, bad string) {
	o = profile.Request{Method: r.Method, Target: target, Header: r.Header, Client: clientOf(r.Header)}
	if from != p.From || from == profile.FromRequest && target == "" {
		return o, wrongRoute(p.Profile)
	}
	names, ok := originalHeaders[from]
	if !ok {
		return o, ""
	}
	uris, methods := r.Header[names[0]], r.Header[names[1]]
	if len(uris) != 1 || len(methods) > 1 {
		return o, "The proxy has to send exactly one " + names[0] + " and one " + names[1] + "."
	}
	if o.Target = uris[0]; len(o.Target) > maxTarget {
		return o, "The target of the request is longer than 16 KiB."
	}
	o.Method = http.MethodGet
	if len(methods) == 1 {
		o.Method = methods[0]
	}
	return o, ""
}

// wrongRoute returns what a proxy has to send for a profile that has another route.
func wrongRoute(p *profile.Profile) string {
	detail := "The profile has from: " + string(p.From) + ", so the proxy has to send "
	if names, ok := originalHeaders[p.From]; ok {
		return detail + "its checks to " + pathPrefix + p.Name + "/check, with " + names[0] + " and " + names[1] + "."
	}
	return detail + "the request itself to " + pathPrefix + p.Name + "/uri/, followed by its path and query."
}

// clientOf returns the address of the player: the last one in X-Forwarded-For, which the proxy has
// added.
func clientOf(h http.Header) string {
	values := h["X-Forwarded-For"]
	if len(values) == 0 {
		return ""
	}
	last := values[len(values)-1]
	if i := strings.LastIndexByte(last, ','); i >= 0 {
		last = last[i+1:]
	}
	return strings.TrimSpace(last)
}

// leave ends the stream of the session of a request. target is the target below leave/, which every
// profile reads; "" if the target is in the headers of a check, or there is only a query.
func (s *Server) leave(w http.ResponseWriter, r *http.Request, p *served, target string) {
	o := profile.Request{Target: target, Header: r.Header, Client: clientOf(r.Header)}
	bad := ""
	if names, ok := originalHeaders[p.From]; target == "" && ok && len(r.Header[names[0]]) > 0 {
		o, bad = s.original(r, p, p.From, "")
	} else if target == "" {
		_, query, _ := strings.Cut(r.RequestURI, "?")
		o.Target = "/?" + query
	}
	var d Decision
	if bad != "" {
		d = d.rejected(&profile.Rejection{Reason: profile.BadURI, Detail: bad})
	} else {
		d = s.Leave(r.Context(), p.Profile, o)
	}
	if d.Outcome != Passed {
		s.logDecision(r.Context(), p.Name, d)
		answer(w, p.Profile, d)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// logDecision logs what an operator should notice. It logs the content and not the target of the
// request, any part of which may be a credential.
func (s *Server) logDecision(ctx context.Context, name string, d Decision) {
	if d.Err != nil {
		if suppressed, ok := s.outageLines.Allow(time.Now()); ok {
			s.log.WarnContext(ctx, "a request of a player could not be counted", "profile", name, "content", d.Content, "decision",
				d.Outcome.Decision(), "err", d.Err, "suppressed", suppressed)
		}
		return
	}
	if d.Incomplete != "" {
		if suppressed, ok := s.incompleteLines.Allow(time.Now()); ok {
			s.log.WarnContext(ctx, "the edge file and the plan of a viewer do not fit together", "profile", name, "content", d.Content,
				"detail", d.Incomplete, "suppressed", suppressed)
		}
	}
	if d.Outcome == Observed {
		if suppressed, ok := s.observeLines.Allow(time.Now()); ok {
			s.log.InfoContext(ctx, "a request of a player would be refused, but the profile only observes", "profile", name, "content", d.Content,
				"user", d.User, "reason", d.Refusal.String(), "suppressed", suppressed)
		}
		return
	}
	if s.log.Enabled(ctx, slog.LevelDebug) {
		s.log.DebugContext(ctx, "check", "profile", name, "content", d.Content, "user", d.User, "decision", d.Outcome.Decision(),
			"reason", d.Outcome.String())
	}
}
