package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/spf13/cobra"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"streamcount/access"
	"streamcount/api"
	"streamcount/api/apitype"
	"streamcount/cluster"
	"streamcount/lease"
	"streamcount/web"
)

func (a *app) serveCommand() *cobra.Command {
	var cfg Config
	flags := cfg.flags()
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the service",
		Long: `Run the service. With no flags it serves on 127.0.0.1:3000 and keeps its data in
./streamcount-data, in an etcd of its own; with --etcd-endpoints it uses another.

Each flag can also be set in the environment, as ` + envPrefix + `LIMIT for --limit,
or in a YAML file named by --config, as "limit: 3". The command line wins over
the environment, and that over the file. "streamcount config print" shows what
comes of it.`,
		Example: `  streamcount serve
  streamcount serve --demo --limit 5
  streamcount serve --etcd-endpoints http://etcd-1:2379,http://etcd-2:2379 --region eu --listen :3000 --auth-keys-file keys.yaml`,
		Args: between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := cfg.load(flags, a.environ); err != nil {
				return err
			}
			return a.serve(cmd.Context(), &cfg)
		},
	}
	cmd.Flags().AddFlagSet(flags)
	return cmd
}

// serve runs one node until ctx ends or something in it fails.
func (a *app) serve(ctx context.Context, cfg *Config) error {
	// First of all, so that a port in use is known before etcd starts.
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("cannot listen on %s (from %s): %w: stop what uses the address, "+
			"or choose another with --listen", cfg.Listen, cfg.source("listen"), err)
	}
	sink := newLogWriter(a.errOut)
	go sink.run()
	defer sink.close()
	n := &node{
		cfg:  cfg,
		logs: newLogs(sink, cfg.LogLevel, cfg.LogFormat),
		addr: ln.Addr().String(),
		self: apitype.Node{
			ID: cfg.nodeName(), Region: cfg.Region, Version: version, StartedAt: &apitype.Time{Time: time.Now()},
		},
	}
	n.onReady = func() {
		if err := a.printf("streamcount %s serving %s\n", version, n.describe()); err != nil {
			n.logs.slog.Warn("nobody reads the output", "err", err)
		}
	}
	return n.run(ctx, ln)
}

// A node is one running service.
type node struct {
	cfg     *Config
	logs    logs
	addr    string // where it listens
	self    apitype.Node
	onReady func()
	tracer  trace.Tracer // nil if nothing is traced
}

// describe is the address and what the node runs on.
func (n *node) describe() string {
	on := "embedded etcd in " + n.cfg.DataDir
	switch {
	case len(n.cfg.Shards) > 0:
		on = "etcd shards " + n.cfg.Shards.String()
	case !n.cfg.embedded():
		on = "etcd at " + strings.Join(n.cfg.EtcdEndpoints, ",")
	}
	scheme := "http"
	if n.cfg.TLSCert != "" {
		scheme = "https"
	}
	return fmt.Sprintf("%s://%s on %s (limit %d, ttl %s)",
		scheme, n.addr, printable(on), n.cfg.Limit, short(n.cfg.TTL))
}

// short writes a duration without the zeros at its end: 90s, 5m, 24h.
func short(d time.Duration) string {
	switch {
	case d%time.Hour == 0:
		return fmt.Sprintf("%dh", d/time.Hour)
	case d%time.Minute == 0:
		return fmt.Sprintf("%dm", d/time.Minute)
	}
	return fmt.Sprintf("%ds", d/time.Second)
}

// run serves on ln at once, and everything but health with 503 until etcd has
// been reached. When ctx ends, or anything fails, the HTTP server drains first,
// because what it still answers needs the rest.
func (n *node) run(ctx context.Context, ln net.Listener) error {
	if n.cfg.traced() {
		n.logs.slog = slog.New(traceHandler{n.logs.slog.Handler()})
		traces, err := newTracing(ctx, &n.cfg.traceConfig, n.self, n.logs.slog)
		if err != nil {
			return errors.Join(fmt.Errorf("traces: %w", err), ln.Close())
		}
		defer traces.stop(n.logs.slog)
		n.tracer = traces.tracer()
	}
	front, followers, err := n.front()
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	server, err := api.New(front)
	if err != nil {
		return errors.Join(err, ln.Close())
	}
	n.logs.slog.Info("listening", "address", n.addr, "node", n.self.ID)
	serving, ctx := errgroup.WithContext(ctx)
	for _, follow := range followers {
		serving.Go(func() error { return follow(ctx) })
	}
	behind, stopBehind := context.WithCancel(context.WithoutCancel(ctx))
	serving.Go(func() error {
		defer stopBehind()
		return server.Run(ctx, ln)
	})
	serving.Go(func() error { return n.runBehind(ctx, behind, server) })
	err = serving.Wait()
	n.logs.slog.Info("stopped", "node", n.self.ID)
	return err
}

// front is how the HTTP server is to be, and what keeps its files up to date.
func (n *node) front() (api.Config, []background, error) {
	c := api.Config{
		Node: n.self, Log: n.logs.slog, Tracer: n.tracer, Drain: n.cfg.Drain, Notice: n.cfg.Notice,
		NoStreamIDAccess: !n.cfg.StreamIDs, Edge: n.cfg.edge(), Pages: web.Pages(),
	}
	var followers []background
	if config := n.cfg.access(n.logs.slog); config.Configured() {
		credentials, err := access.New(config)
		if err != nil {
			return c, nil, usageError{fmt.Errorf("credentials: %w", err)}
		}
		c.Access, followers = credentials, append(followers, credentials.Run)
	}
	if n.cfg.TLSCert != "" {
		shown, err := newCertificate(n.cfg.TLSCert, n.cfg.TLSKey, n.cfg.TLSClientCA)
		if err != nil {
			return c, nil, err
		}
		c.Edge.TLS, c.Edge.CertificateExpires = shown.config(), shown.expires
		followers = append(followers, func(ctx context.Context) error {
			return shown.files.Run(ctx, filesEvery, n.logs.slog)
		})
	}
	return c, followers, nil
}

// filesEvery is how often the files of a certificate are looked at.
const filesEvery = 5 * time.Second

// runBehind runs what the HTTP server stands on until ctx ends, and stops it in
// the reverse order of its start: etcd last. front ends when the HTTP server
// begins to drain.
func (n *node) runBehind(front, ctx context.Context, server *api.Server) (err error) {
	var lost <-chan error // nil, and so silent, unless etcd is embedded
	b := &behind{cfg: n.cfg, logs: n.logs, feed: lease.NewFeed(), tracer: n.tracer, self: &cluster.Node{
		ID: n.self.ID, Region: n.self.Region, Address: n.addr, Version: n.self.Version,
		StartedAt: n.self.StartedAt.Time,
	}}
	if n.cfg.embedded() {
		b.embedded, err = cluster.StartEmbedded(front, cluster.EmbedConfig{DataDir: n.cfg.DataDir, Log: n.logs.zap})
		if err != nil {
			return unlessDone(front, err)
		}
		defer func() { err = errors.Join(err, b.embedded.Close()) }()
		lost = b.embedded.Err()
	}
	router, err := b.router(len(n.cfg.Shards) > 0)
	if err != nil {
		return err
	}
	group, work := errgroup.WithContext(ctx)
	group.Go(func() error { return router.Run(work) })
	group.Go(func() error { return wentDown(work, lost) })
	select {
	case <-router.Ready():
		server.Use(b.backend(router))
		n.beside(front, work, group)
		n.onReady()
	case <-work.Done():
	case <-front.Done(): // nobody was served
	}
	return unlessDone(ctx, group.Wait())
}

// beside runs what else a node does until ctx ends.
func (n *node) beside(front, ctx context.Context, group *errgroup.Group) {
	group.Go(func() error {
		tuneGC(ctx)
		return nil
	})
	if !n.cfg.Demo {
		return
	}
	group.Go(func() error {
		// It plays against the HTTP server, so it ends no later.
		playing, stop := context.WithCancel(ctx)
		defer stop()
		defer context.AfterFunc(front, stop)()
		return runDemo(playing, "http://"+dialable(n.addr), n.cfg, n.logs.slog)
	})
}

// background is work that goes on until its context ends.
type background func(context.Context) error

// wentDown waits for the embedded etcd to end by itself, or for ctx.
func wentDown(ctx context.Context, lost <-chan error) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-lost:
		if err == nil {
			return errors.New("the embedded etcd ended without a reason")
		}
		return fmt.Errorf("the embedded etcd ended: %w", err)
	}
}

// unlessDone drops an error that only says that ctx ended.
func unlessDone(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// closeClient does not call it an error that the client's own context ended.
func closeClient(c *clientv3.Client) error {
	if err := c.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close etcd client: %w", err)
	}
	return nil
}

// dialable is an address under which this machine reaches a listener.
func dialable(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("localhost", port)
	}
	return addr
}
