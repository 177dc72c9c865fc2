package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humamux"
	"github.com/gorilla/mux"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/singleflight"

	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/lease"
	"streamcount/metrics"
)

// limiter is what the handlers call on a lease.Limiter.
type limiter interface {
	Start(ctx context.Context, user string, r lease.Request) (lease.Started, error)
	Heartbeat(ctx context.Context, user, id string) (lease.Stream, error)
	Heartbeats(ctx context.Context, beats []lease.Beat) []lease.BeatResult // same order
	Stop(ctx context.Context, user, id string) (lease.Usage, error)
	StopQuietest(ctx context.Context, user string) (lease.Usage, error) // least recently heard from
	Remove(ctx context.Context, user string) (lease.Usage, error)
	List(ctx context.Context, user string, how lease.Consistency) (lease.Usage, error)
	Totals(ctx context.Context) (lease.Totals, error)
}

// A Backend is what answers for the Server. It is handed over with
// [Server.Use], because the Server listens before etcd has been reached.
type Backend struct {
	// Limiter serves the calls under /api; without it they are answered 503.
	Limiter limiter
	// Rules serves the calls about limits and plans; without it they are
	// answered 503.
	Rules ruler
	// Ready is nil when etcd answers a linearizable read, and says in words
	// what is wrong otherwise. Without it the node is not ready.
	Ready func(context.Context) error
	// Shards describes the etcd clusters as far as they are known, even when
	// it returns an error. Without it the statistics name none.
	Shards func(context.Context) ([]apitype.Shard, error)
	// Measures are what the limiter of each shard has counted; nil for a shard
	// that has not been reached.
	Measures func() map[string]*lease.Measures
	// Nodes lists the registered nodes as far as they are known, even when it
	// returns an error. Without it the statistics name none.
	Nodes func(context.Context) ([]apitype.NodeReport, error)
	// Busiest returns the users with the most streams, as [lease.Limiter.Busiest]
	// does; without it the call is answered 503.
	Busiest func(ctx context.Context, prefix string, most int) ([]lease.Busy, bool, error)
	// Feed is what the limiter tells; without it those who ask for events are
	// answered 503, and there is no history.
	Feed *lease.Feed
}

// Config is what a Server is made from. Its zero value is fit for production.
type Config struct {
	Node apitype.Node // who answers; Node.Version is also the document's
	Log  *slog.Logger // nil means slog.Default()
	// Tracer makes the spans of requests; nil for none.
	Tracer trace.Tracer

	// Access says who may call; nil lets whoever reaches the service do everything.
	Access Access
	// NoStreamIDAccess demands a credential for heartbeats and stops as well. A
	// stream's id is enough for those otherwise.
	NoStreamIDAccess bool

	Edge Edge // how the service meets the world

	// Pages are what people open in a browser, by path, for GET and HEAD.
	// Whoever reaches the service may have them. With none for "/", that leads to
	// the documentation.
	Pages map[string]http.Handler

	MaxInFlight    int           // requests served at once, others get 503; default 4096
	MaxConns       int           // connections open at once, others wait; default 20000
	RequestTimeout time.Duration // for one call once its body has arrived; default 5 s, under 30 s
	Drain          time.Duration // for the requests in flight when Run's context ends; default 10 s
	// Notice is how long /readyz says 503 while requests are still accepted,
	// so that load balancers look elsewhere first; default none.
	Notice time.Duration
}

// A Server answers streamcount's HTTP calls. Make one with [New]; it is safe
// for concurrent use.
type Server struct {
	cfg      Config
	log      *slog.Logger
	router   *mux.Router
	handler  http.Handler
	inFlight chan struct{}
	shed     *shedder
	lag      *lag
	edge     *edge
	metrics  *metrics.Metrics

	// Lines of the log: each kind of 503 has its own.
	shedLines, failedLines sparse

	turnedAway turnedAway
	ready      singleflight.Group
	draining   atomic.Bool

	events  eventBounds
	history history
	latency latencies
	busiest busiest
	beats   atomic.Int64 // heartbeats that were answered as good

	mu      sync.Mutex // serializes Use
	backend atomic.Pointer[Backend]
}

// New makes a Server that answers 503 under /api until [Server.Use] is called.
func New(cfg Config) (*Server, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	edge, err := newEdge(cfg.Edge)
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, log: cfg.Log, edge: edge, inFlight: make(chan struct{}, cfg.MaxInFlight),
		shed: newShedder(cfg.MaxInFlight), lag: newLag(), events: newEventBounds(cfg.MaxInFlight),
	}
	s.shed.lag = s.lag.at
	s.backend.Store(&Backend{Ready: func(context.Context) error { return errNotReached }})
	s.metrics = s.newMetrics()
	router, err := s.routes()
	if err != nil {
		return nil, fmt.Errorf("api: routes: %w", err)
	}
	s.router = router
	s.handler = s.observe(s.front(router))
	return s, nil
}

// errNotReached is the reason that /readyz gives until Use says otherwise.
var errNotReached = errors.New("etcd has not been reached yet")

// complete fills in the defaults and checks what remains.
func (c *Config) complete() error {
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"MaxInFlight", int64(c.MaxInFlight)}, {"MaxConns", int64(c.MaxConns)},
		{"RequestTimeout", int64(c.RequestTimeout)}, {"Drain", int64(c.Drain)}, {"Notice", int64(c.Notice)},
	} {
		if n.value < 0 {
			return fmt.Errorf("api: %s is negative: give a positive value, or 0 for the default", n.name)
		}
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	c.MaxInFlight = cmp.Or(c.MaxInFlight, 4096)
	c.MaxConns = cmp.Or(c.MaxConns, 20_000)
	c.RequestTimeout = cmp.Or(c.RequestTimeout, 5*time.Second)
	c.Drain = cmp.Or(c.Drain, 10*time.Second)
	if c.RequestTimeout >= writeTimeout {
		return fmt.Errorf("api: RequestTimeout %v leaves no time to answer: keep it under %v",
			c.RequestTimeout, writeTimeout)
	}
	return nil
}

// Use hands over what answers from now on. Fields left nil keep what they had,
// so readiness can be reported in words before there is a Limiter.
func (s *Server) Use(b Backend) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := *s.backend.Load()
	if b.Limiter != nil {
		next.Limiter = b.Limiter
	}
	if b.Rules != nil {
		next.Rules = b.Rules
	}
	if b.Ready != nil {
		next.Ready = b.Ready
	}
	if b.Shards != nil {
		next.Shards = b.Shards
	}
	if b.Measures != nil {
		next.Measures = b.Measures
	}
	if b.Nodes != nil {
		next.Nodes = b.Nodes
	}
	if b.Busiest != nil {
		next.Busiest = b.Busiest
	}
	if b.Feed != nil {
		next.Feed = b.Feed
	}
	s.backend.Store(&next)
}

// Handler returns the whole HTTP surface. [Server.Run] adds the bounds that
// belong to connections.
func (s *Server) Handler() http.Handler { return s.handler }

// limiter returns what Use was given. The guard lets no call through without.
func (s *Server) limiter() limiter { return s.backend.Load().Limiter }

// rules is what Use was given for limits and plans.
func (s *Server) rules() ruler { return s.backend.Load().Rules }

const base = "/api/v1/streams/users/{user}"

// routes is the whole surface. Nothing here redirects but "/": paths are not
// cleaned, since that would turn a POST into a GET at another address.
func (s *Server) routes() (*mux.Router, error) {
	r := mux.NewRouter().SkipClean(true)
	r.NotFoundHandler = http.HandlerFunc(s.notFound)
	r.MethodNotAllowedHandler = http.HandlerFunc(s.methodNotAllowed)

	a := humamux.New(r, s.humaConfig(), humamux.WithRouteCustomizer(s.guardRoute))
	// The router tries one regular expression after the other: the busiest first.
	handle(a, "POST", base+"/streams/{id}/heartbeat", heartbeatDoc(), s.heartbeat)
	handle(a, "POST", base+"/start", startDoc(), s.start)
	handle(a, "DELETE", base+"/streams/{id}", stopByIDDoc(), s.stopByID)
	handle(a, "POST", base+"/streams/{id}/stop", beaconDoc(), s.stopByID)
	handle(a, "POST", base+"/stop", stopDoc(), s.stop)
	handle(a, "GET", base, listDoc(), s.list)
	handle(a, "DELETE", base, removeDoc(), s.remove)
	handle(a, "POST", "/api/v1/streams/heartbeats", heartbeatsDoc(), s.heartbeats)
	s.statsRoutes(a)
	s.eventRoute(r, a)
	s.ruleRoutes(a)
	describe(a.OpenAPI())

	s.plain(r, "/healthz", s.healthz)
	s.plain(r, "/readyz", s.readyz)
	s.plain(r, metricsPath, s.only(access.ReadTotals, metricsPath, s.metrics.Handler()))
	s.plain(r, "/problems/{name}", s.problemPage)
	s.plain(r, "/favicon.ico", s.favicon)
	if err := s.documents(r, a.OpenAPI()); err != nil {
		return nil, err
	}
	return r, s.pages(r)
}

// handle registers one operation. Its handler returns a lease error as it is;
// refuse makes a problem of it.
func handle[I, O any](
	a huma.API, method, path string, d opDoc, h func(context.Context, *I) (*O, error),
) {
	huma.Register(a, d.operation(method, path), func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, in)
		if err != nil {
			return nil, refuse(ctx, err)
		}
		return out, nil
	})
}

// plain registers a page for GET and HEAD.
func (s *Server) plain(r *mux.Router, path string, h http.HandlerFunc) {
	r.Handle(path, s.counted(http.MethodGet, path, h)).Methods(http.MethodGet)
}
