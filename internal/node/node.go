// Package node runs one node of the service: it connects the etcd clusters, the limiters and
// the HTTP server, and manages the node's logs, traces, certificate and memory.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"streamcount/access"
	"streamcount/api"
	"streamcount/api/apitype"
	"streamcount/cluster"
	"streamcount/events"
	"streamcount/internal/config"
	"streamcount/internal/demo"
	"streamcount/internal/display"
	"streamcount/internal/filewatch"
	"streamcount/lease/policy"
	"streamcount/metrics"
	"streamcount/token"
	"streamcount/web"
)

// Run runs one node until ctx ends or a part of it fails. It writes one line to out when the
// node is ready, and the log to errOut. version is the version of the program.
func Run(ctx context.Context, cfg *config.Config, version string, out, errOut io.Writer) (err error) {
	// Listen before etcd starts, so that an address in use is reported at once.
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("cannot listen on %s (from %s): %w: stop the program that uses the address, "+
			"or choose another address with --listen", cfg.Listen, cfg.Source("listen"), err)
	}
	sink := newLogWriter(errOut)
	go sink.run()
	defer sink.close()
	logs := newLogger(sink, cfg.LogLevel, cfg.LogFormat)
	audit, err := newAuditSink(cfg.AuditFile, out, errOut, logs.slog)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	if audit != nil {
		go audit.run()
		defer func() { err = errors.Join(err, audit.close()) }()
	}
	n := &service{
		cfg:  cfg,
		logs: logs, audit: audit,
		addr: ln.Addr().String(),
		self: apitype.Node{
			ID: cfg.NewNodeName(), Region: cfg.Region, Version: version, StartedAt: &apitype.Time{Time: time.Now()},
		},
	}
	n.onReady = func() {
		if _, err := fmt.Fprintf(out, "streamcount %s serving %s\n", version, n.describe()); err != nil {
			n.logs.slog.Warn("the standard output cannot be written", "err", err)
		}
	}
	return n.run(ctx, ln)
}

// service is the running node.
type service struct {
	cfg   *config.Config
	logs  logger
	audit *auditSink // nil if there is no audit log
	// auditLog writes to audit; nil if audit is.
	auditLog *slog.Logger
	addr     string // the address that it listens on
	self     apitype.Node
	onReady  func()
	tracer   trace.Tracer // nil if tracing is off
	edge     *edgeService // nil unless proxies check requests
	// tokenKeys has the keys of playback tokens; nil if there are no tokens.
	tokenKeys *token.Ring
}

// describe returns the URL of the node, its etcd and its main settings.
func (n *service) describe() string {
	store := "embedded etcd in " + n.cfg.DataDir
	switch {
	case len(n.cfg.Shards) > 0:
		store = "etcd shards " + n.cfg.Shards.String()
	case !n.cfg.Embedded():
		store = "etcd at " + strings.Join(n.cfg.EtcdEndpoints, ",")
	}
	scheme := "http"
	if n.cfg.TLSCert != "" {
		scheme = "https"
	}
	return fmt.Sprintf("%s://%s on %s (limit %d, ttl %s)",
		scheme, n.addr, display.Printable(store), n.cfg.Limit, formatDuration(n.cfg.TTL))
}

// formatDuration formats a whole number of seconds in its largest unit: 90s, 5m, 24h.
func formatDuration(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// run serves on ln. Until etcd is available, all calls except health checks return 503. When
// ctx ends or a part fails, the HTTP server drains first, because requests that are in
// progress need the other parts.
func (n *service) run(ctx context.Context, ln net.Listener) error {
	if n.cfg.TracingEnabled() {
		n.logs.slog = slog.New(traceHandler{n.logs.slog.Handler()})
		traces, err := newTracing(ctx, n.cfg, n.self, n.logs.slog)
		if err != nil {
			return errors.Join(fmt.Errorf("traces: %w", err), ln.Close())
		}
		defer traces.stop(n.logs.slog)
		n.tracer = traces.tracer()
	}
	apiConfig, watchers, err := n.apiConfig()
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	budget, err := newMemoryBudget(n.cfg, n.logs.slog)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	apiConfig.MemoryBudget = budget.size
	if n.cfg.EdgeListen != "" {
		apiConfig.Edge = metrics.NewEdge()
	}
	server, err := api.New(apiConfig)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	if err := n.openEdge(ctx, apiConfig, server); err != nil {
		return errors.Join(err, ln.Close())
	}
	n.logs.slog.Info("listening", "address", n.addr, "node", n.self.ID)
	n.cfg.LogWarnings(n.logs.slog)
	serving, ctx := errgroup.WithContext(ctx)
	for _, watch := range append(watchers, n.edge.watchers()...) {
		serving.Go(func() error { return watch(ctx) })
	}
	backend, stopBackend := context.WithCancel(context.WithoutCancel(ctx))
	serving.Go(func() error {
		budget.tuneGC(backend, n.logs.slog)
		return nil
	})
	serving.Go(func() error {
		defer stopBackend()
		return n.serve(ctx, server, ln)
	})
	serving.Go(func() error { return n.runBackend(ctx, backend, server) })
	err = serving.Wait()
	n.logs.slog.Info("stopped", "node", n.self.ID)
	return err
}

// apiConfig returns the configuration of the HTTP server, and the tasks that reload the
// files it uses.
func (n *service) apiConfig() (api.Config, []background, error) {
	c := api.Config{
		Node: n.self, Log: n.logs.slog, Tracer: n.tracer, Drain: n.cfg.Drain, ShutdownDelay: n.cfg.ShutdownDelay,
		NoStreamIDAccess: !n.cfg.StreamIDs, Ingress: n.cfg.Ingress(), Pages: web.Pages(), NoDocs: !n.cfg.Docs,
	}
	n.setLimits(&c)
	c.FilesFailing = filewatch.FailingCount
	n.setAudit(&c)
	var watchers []background
	if a := n.cfg.Access(n.logs.slog); a.Configured() {
		credentials, err := access.New(a)
		if err != nil {
			return c, nil, config.Errorf("credentials: %w", err)
		}
		c.Access, watchers = credentials, append(watchers, credentials.Run)
	}
	if n.cfg.TLSCert != "" {
		if mode, exposed := filewatch.WorldReadable(n.cfg.TLSKey); exposed {
			n.logs.slog.Warn("the file of the certificate's key is readable by every user of this machine: restrict its permissions",
				"file", n.cfg.TLSKey, "mode", mode.String())
		}
		cert, err := newCertificate(n.cfg.TLSCert, n.cfg.TLSKey, n.cfg.TLSClientCA)
		if err != nil {
			return c, nil, err
		}
		c.Ingress.TLS, c.Ingress.CertificateExpires = cert.config(), cert.expires
		watchers = append(watchers, func(ctx context.Context) error {
			return cert.files.Run(ctx, certificateCheckInterval, n.logs.slog)
		})
	}
	tokenFiles, err := n.setTokens(&c)
	return c, append(watchers, tokenFiles...), err
}

// setAudit configures the audit log of the HTTP server.
func (n *service) setAudit(c *api.Config) {
	if n.audit == nil {
		c.NoAudit = true
		return
	}
	format := n.cfg.LogFormat
	if n.audit.path != "" {
		format = "json"
	}
	c.Audit = newAuditLog(n.audit, format)
	if n.tracer != nil {
		c.Audit = slog.New(traceHandler{c.Audit.Handler()})
	}
	n.auditLog = c.Audit
	c.AuditFull, c.AuditMeasures = n.audit.full, n.audit.measures
}

// certificateCheckInterval is how often the files of the certificate are checked for changes.
const certificateCheckInterval = 3 * time.Second

// runBackend runs etcd and everything that the HTTP server calls until ctx ends, and stops
// them in reverse order of their start, so etcd last. serving ends when the HTTP server
// begins to drain.
func (n *service) runBackend(serving, ctx context.Context, server *api.Server) (err error) {
	var etcdEnded <-chan error // nil unless etcd is embedded
	b := &backend{cfg: n.cfg, logs: n.logs, feed: events.NewFeed(), tracer: n.tracer, audit: n.auditLog, self: &cluster.Node{
		ID: n.self.ID, Region: n.self.Region, Address: n.addr, Version: n.self.Version,
		StartedAt: n.self.StartedAt.Time, Supports: policy.SupportedNeeds(),
	}}
	if n.cfg.Embedded() {
		b.embedded, err = cluster.StartEmbedded(serving, cluster.EmbedConfig{DataDir: n.cfg.DataDir, Log: n.logs.zap})
		if err != nil {
			return ignoreCanceled(serving, err)
		}
		defer func() { err = errors.Join(err, b.embedded.Close()) }()
		etcdEnded = b.embedded.Err()
	}
	router, err := b.newRouter(len(n.cfg.Shards) > 0)
	if err != nil {
		return err
	}
	group, work := errgroup.WithContext(ctx)
	group.Go(func() error { return router.Run(work) })
	tokenStore := n.tokenStore(b, router)
	if tokenStore != nil {
		group.Go(func() error { return tokenStore.Run(work) })
	}
	group.Go(func() error { return b.watchOlderNodes(work, router) })
	group.Go(func() error { return watchEmbedded(work, etcdEnded) })
	select {
	case <-router.Ready():
		apiBackend := b.apiBackend(router)
		if tokenStore != nil {
			apiBackend.TokenKeys = tokenStore
			waitForTokenKeys(serving, work, tokenStore)
		}
		server.SetBackend(apiBackend)
		n.edge.useBackend(work, group, b, router)
		n.runSidecars(serving, work, group)
		n.onReady()
	case <-work.Done():
	case <-serving.Done(): // the node ends before it was ready
	}
	return ignoreCanceled(ctx, group.Wait())
}

// runSidecars runs tasks that the HTTP server does not depend on until ctx ends.
func (n *service) runSidecars(serving, ctx context.Context, group *errgroup.Group) {
	if !n.cfg.Demo {
		return
	}
	group.Go(func() error {
		// The demo calls the HTTP server, so it ends when that drains.
		demoCtx, stop := context.WithCancel(ctx)
		defer stop()
		defer context.AfterFunc(serving, stop)()
		return demo.Run(demoCtx, "http://"+config.DialAddress(n.addr),
			demo.Limits{Streams: n.cfg.Limit, TTL: n.cfg.TTL}, n.logs.slog)
	})
}

// background is a task that runs until its context ends.
type background func(context.Context) error

// watchEmbedded waits until the embedded etcd ends unexpectedly, or ctx does.
func watchEmbedded(ctx context.Context, ended <-chan error) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-ended:
		if err == nil {
			return errors.New("the embedded etcd ended without an error")
		}
		return fmt.Errorf("the embedded etcd ended: %w", err)
	}
}

// ignoreCanceled returns nil if err only reports that ctx has ended, and err otherwise.
func ignoreCanceled(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// closeClient closes c. That the context of c has ended is not an error.
func closeClient(c *clientv3.Client) error {
	if err := c.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close etcd client: %w", err)
	}
	return nil
}
