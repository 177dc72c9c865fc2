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

	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/api/internal/attributes"
	"streamcount/api/internal/denials"
	"streamcount/api/internal/eventstream"
	"streamcount/api/internal/ingress"
	"streamcount/api/internal/latency"
	"streamcount/api/internal/openapi"
	"streamcount/api/internal/overload"
	"streamcount/api/internal/playback"
	"streamcount/api/internal/readiness"
	"streamcount/api/internal/router"
	"streamcount/api/internal/topusers"
	"streamcount/events"
	"streamcount/lease"
	"streamcount/lease/rules"
	"streamcount/lease/stats"
	"streamcount/metrics"
)

// A limiter has the methods of [lease.Limiter] that the handlers call.
type limiter interface {
	Start(ctx context.Context, user string, r lease.Request) (lease.Started, error)
	Heartbeat(ctx context.Context, user, id string) (lease.Stream, error)
	Heartbeats(ctx context.Context, requests []lease.HeartbeatRequest) []lease.HeartbeatResult // in the order of requests
	Stop(ctx context.Context, user, id string) (lease.Usage, error)
	StopOldestHeartbeat(ctx context.Context, user string) (lease.Usage, error) // the stream with the oldest heartbeat
	Remove(ctx context.Context, user string) (lease.Usage, error)
	List(ctx context.Context, user string, how lease.Consistency) (lease.Usage, error)
	Totals(ctx context.Context) (lease.Totals, error)
}

// A Backend serves the calls of the Server. [Server.SetBackend] sets it later than New, because
// the Server listens before etcd has been reached.
type Backend struct {
	// Limiter serves the calls under /api; without it they are answered 503.
	Limiter limiter
	// Rules serves the calls about limits and plans; without it they are
	// answered 503.
	Rules ruleStore
	// Data serves the calls about the data of users; without it they are answered 503.
	Data dataStore
	// Ready returns nil when etcd answers a linearizable read, and otherwise a readable reason.
	// Without it the node is not ready.
	Ready func(context.Context) error
	// Shards describes the etcd clusters that are known, also when it returns an error. Without
	// it the statistics have no shards.
	Shards func(context.Context) ([]apitype.Shard, error)
	// Measures returns the statistics of each shard's limiter; nil for a shard that has not been
	// reached.
	Measures func() map[string]*stats.Snapshot
	// Nodes lists the registered nodes that are known, also when it returns an error. Without it
	// the statistics have no nodes.
	Nodes func(context.Context) ([]apitype.NodeReport, error)
	// Compatibility returns the rules that are not applied completely. Without it there are none.
	Compatibility func() rules.Compatibility
	// TopUsers returns the users with the most streams, as [lease.Limiter.TopUsers] does. Without
	// it the call is answered 503.
	TopUsers func(ctx context.Context, prefix string, n int) ([]lease.TopUser, bool, error)
	// NetworkKey is the secret by which the networks of viewers are computed. Without it the
	// attribute is missing.
	NetworkKey attributes.NetworkKey
	// Feed has the events of the limiters. Without it event streams are answered 503, and there
	// is no history.
	Feed *events.Feed
	// TokenKeys manages the keys of playback tokens in etcd; nil if the keys are in a file.
	TokenKeys tokenKeys
}

// Config configures a Server. Its zero value is valid.
type Config struct {
	Node apitype.Node // this node; Node.Version is also the version of the OpenAPI document
	Log  *slog.Logger // nil means slog.Default()
	// Audit records acts that end streams or change rules; nil means Log.
	Audit *slog.Logger
	// NoAudit disables the audit log.
	NoAudit bool
	// AuditFull reports that Audit has no room for the line of an action, which is then answered
	// 503. Nil means never.
	AuditFull func(access.Action) bool
	// AuditMeasures returns the counters of the audit log; nil if there are none.
	AuditMeasures func() metrics.Audit
	// FilesFailing returns the number of sets of files that cannot be used; nil if there are none.
	FilesFailing func() int
	// Edge are the metrics of the edge; nil if the node has no edge.
	Edge *metrics.Edge
	// MemoryBudget is how many bytes of memory the node may use; 0 if there is no limit.
	MemoryBudget uint64
	// Tracer creates the spans of requests; nil disables traces.
	Tracer trace.Tracer

	// Access authenticates callers; nil allows every caller everything.
	Access Access
	// NoStreamIDAccess requires a credential for heartbeats and stops too. Otherwise a stream's
	// id suffices for them.
	NoStreamIDAccess bool

	// Tokens issues playback tokens; nil disables them.
	Tokens *Tokens

	Ingress IngressConfig // sockets, hosts, origins and proxies

	// NoDocs serves neither /docs nor the OpenAPI documents.
	NoDocs bool

	// Pages are the pages for browsers by path, for GET and HEAD, without a credential. Without a
	// page at "/", that path redirects to the documentation.
	Pages map[string]http.Handler

	// RatePerUser is the number of starts, stops and removals of one user a second,
	// RatePerAddress the number of requests of one client address or IPv6 /64, and
	// RatePerKey the number of requests with one API key. A burst may be ten times as
	// large. 0 means no limit.
	RatePerUser, RatePerAddress, RatePerKey float64

	MaxInFlight int // requests served at once, others get 503; default 4096
	// MaxConns is how many connections may be open at once, and MaxConnsPerAddress how
	// many of one IPv4 address or IPv6 /64; the oldest that is in no handler is closed
	// for one more. The defaults are 20000, and a tenth of MaxConns.
	MaxConns, MaxConnsPerAddress int
	// ProxyProtocol lets the connections of trusted proxies begin with a header of the
	// PROXY protocol, version 1 or 2, that names the client.
	ProxyProtocol bool
	// IdleTimeout is how long a connection may have no request; default 620 s.
	IdleTimeout    time.Duration
	RequestTimeout time.Duration // for one call once its body has arrived; default 5 s, under 30 s
	Drain          time.Duration // for the requests in flight when Run's context ends; default 10 s
	// ShutdownDelay is how long /readyz says 503 while requests are still accepted,
	// so that load balancers look elsewhere first; default none.
	ShutdownDelay time.Duration
}

// A Server answers streamcount's HTTP calls. Make one with [New]; it is safe
// for concurrent use.
type Server struct {
	cfg         Config
	log         *slog.Logger
	router      *mux.Router // of all calls that directCalls does not have
	directCalls router.Table[guardedFunc]
	schemas     huma.Registry // of the bodies
	handler     http.Handler
	load        loadControl
	ingress     *ingress.Ingress
	metrics     *metrics.Metrics

	auditLog *slog.Logger // nil for none

	// Lines of the log: each kind of 503 has its own, and so have refusals at the limit.
	overloadLines, failedLines, refusedLines overload.LogSampler

	denials *denials.Counter

	rejectedStarts rejectedStartCounts
	ready          *readiness.Check

	events     *eventstream.Sender
	history    events.History
	latency    latency.Recorder
	topUsers   *topusers.Cache
	heartbeats atomic.Int64 // heartbeats that were answered as good

	mu      sync.Mutex // serializes SetBackend
	backend atomic.Pointer[Backend]
}

// New makes a Server that answers 503 under /api until [Server.SetBackend] is called.
func New(cfg Config) (*Server, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	cfg.Ingress.Log = cfg.Log
	cfg.Ingress.MaxConnections, cfg.Ingress.MaxConnectionsPerAddress = cfg.MaxConns, cfg.MaxConnsPerAddress
	cfg.Ingress.ProxyProtocol = cfg.ProxyProtocol
	in, err := ingress.New(cfg.Ingress)
	if err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	s := &Server{
		cfg: cfg, log: cfg.Log, ingress: in,
		load: overload.New(overload.Config{
			MaxInFlight: cfg.MaxInFlight, RatePerUser: cfg.RatePerUser, RatePerAddress: cfg.RatePerAddress, RatePerKey: cfg.RatePerKey,
		}),
		events:   eventstream.NewSender(),
		denials:  denials.NewCounter(),
		topUsers: topusers.New(),
	}
	if !cfg.NoAudit {
		s.auditLog = cmp.Or(cfg.Audit, cfg.Log)
	}
	s.ready = readiness.New(cfg.RequestTimeout, func(ctx context.Context) error { return s.backend.Load().Ready(ctx) })
	s.backend.Store(&Backend{Ready: func(context.Context) error { return errNotReached }})
	s.metrics = s.newMetrics()
	if s.router, err = s.routes(); err != nil {
		return nil, fmt.Errorf("api: routes: %w", err)
	}
	s.handler = s.ingress.FlushHTTP2(s.observe(s.filter(s.dispatch(s.router))))
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
		{"MaxConnsPerAddress", int64(c.MaxConnsPerAddress)}, {"IdleTimeout", int64(c.IdleTimeout)},
		{"RequestTimeout", int64(c.RequestTimeout)}, {"Drain", int64(c.Drain)}, {"ShutdownDelay", int64(c.ShutdownDelay)},
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
	c.MaxConnsPerAddress = cmp.Or(c.MaxConnsPerAddress, max(c.MaxConns/10, min(c.MaxConns, 50)))
	c.IdleTimeout = cmp.Or(c.IdleTimeout, defaultIdleTimeout)
	c.Ingress.BodyTimeout = cmp.Or(c.Ingress.BodyTimeout, ingress.DefaultBodyTimeout)
	c.RequestTimeout = cmp.Or(c.RequestTimeout, 5*time.Second)
	c.Drain = cmp.Or(c.Drain, 10*time.Second)
	if c.RequestTimeout >= writeTimeout {
		return fmt.Errorf("api: RequestTimeout %v leaves no time to answer: keep it under %v",
			c.RequestTimeout, writeTimeout)
	}
	return nil
}

// SetBackend sets the parts of b that are not nil for all later calls. The other parts stay
// the same, so that Ready can describe what the node waits for before there is a Limiter.
func (s *Server) SetBackend(b Backend) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := *s.backend.Load()
	if b.Limiter != nil {
		next.Limiter = b.Limiter
	}
	if b.Rules != nil {
		next.Rules = b.Rules
	}
	if b.Data != nil {
		next.Data = b.Data
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
	if b.Compatibility != nil {
		next.Compatibility = b.Compatibility
	}
	if b.NetworkKey != nil {
		next.NetworkKey = b.NetworkKey
	}
	if b.TopUsers != nil {
		next.TopUsers = b.TopUsers
	}
	if b.Feed != nil {
		next.Feed = b.Feed
	}
	if b.TokenKeys != nil {
		next.TokenKeys = b.TokenKeys
	}
	s.backend.Store(&next)
}

// Handler returns the whole HTTP surface. [Server.Run] adds the bounds that
// belong to connections.
func (s *Server) Handler() http.Handler { return s.handler }

// limiter returns what Use was given. The guard lets no call through without.
func (s *Server) limiter() limiter { return s.backend.Load().Limiter }

// rules is what Use was given for limits and plans.
func (s *Server) rules() ruleStore { return s.backend.Load().Rules }

const batchPath = "/api/v1/streams/heartbeats"

// routes is the whole surface. Nothing here redirects but "/": paths are not
// cleaned, since that would turn a POST into a GET at another address.
func (s *Server) routes() (*mux.Router, error) {
	r := mux.NewRouter().SkipClean(true).UseEncodedPath()
	r.NotFoundHandler = s.limitUnrouted(s.notFound)
	r.MethodNotAllowedHandler = s.limitUnrouted(s.methodNotAllowed)

	a := humamux.New(r, openapi.Config(s.cfg.Node.Version), humamux.WithRouteCustomizer(s.guardHuma))
	s.schemas = a.OpenAPI().Components.Schemas
	openapi.RegisterSchemas(s.schemas)
	// Routes are tried in this order: the most frequent calls come first.
	direct[heartbeatInput](s, r, a, "POST", openapi.UserPath+"/streams/{id}/heartbeat", openapi.Heartbeat(), heartbeatForm, s.heartbeat)
	direct[startInput](s, r, a, "POST", openapi.UserPath+"/start", openapi.Start(), startForm, s.start)
	direct[streamInput](s, r, a, "DELETE", openapi.UserPath+"/streams/{id}", openapi.StopByID(), stopByIDForm, s.stopByID)
	direct[streamInput](s, r, a, "POST", openapi.UserPath+"/streams/{id}/stop", openapi.StopByBeacon(), stopByIDForm, s.stopByID)
	direct[stopInput](s, r, a, "POST", openapi.UserPath+"/stop", openapi.Stop(), stopForm, s.stop)
	direct[beatsInput](s, r, a, "POST", batchPath, openapi.Heartbeats(), batchForm, s.batchHeartbeat)
	handle(a, "GET", openapi.UserPath, openapi.List(), s.list)
	handle(a, "DELETE", openapi.UserPath, openapi.Remove(), s.remove)
	s.statsRoutes(a)
	s.eventRoute(r, a)
	s.ruleRoutes(a)
	s.dataRoutes(a)
	s.tokenRoutes(a)
	openapi.AddProblems(a.OpenAPI())

	s.handlePage(r, "/healthz", s.healthz)
	s.handlePage(r, "/readyz", s.readyz)
	s.handlePage(r, metricsPath, s.requireAction(access.ReadMetrics, s.metrics.Handler()))
	s.handlePage(r, "/problems/{name}", s.problemPage)
	s.handlePage(r, "/favicon.ico", s.favicon)
	if s.cfg.Tokens != nil {
		s.handlePage(r, playback.JWKSPath, s.cfg.Tokens.ServeJWKS)
	}
	if !s.cfg.NoDocs {
		if err := s.documents(r, a.OpenAPI()); err != nil {
			return nil, err
		}
	}
	return r, s.pages(r)
}

// handle registers one operation. Its handler returns a lease error as it is;
// refuse makes a problem of it.
func handle[I, O any](
	a huma.API, method, path string, d openapi.Operation, h func(context.Context, *I) (*O, error),
) {
	huma.Register(a, d.Huma(method, path), func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, in)
		if err != nil {
			return nil, recorderOf(ctx).problemFor(ctx, err)
		}
		return out, nil
	})
}

// handlePage registers a page for GET and HEAD.
func (s *Server) handlePage(r *mux.Router, path string, h http.HandlerFunc) {
	r.Handle(path, s.instrument(http.MethodGet, path, h)).Methods(http.MethodGet)
}
