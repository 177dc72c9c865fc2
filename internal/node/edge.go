package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"streamcount/access"
	"streamcount/api"
	"streamcount/api/edge"
	"streamcount/internal/config"
	"streamcount/internal/retry"
	"streamcount/shard"
)

// edgeService answers the requests of proxies. The methods of a nil edgeService have no effect.
type edgeService struct {
	server *edge.Server
	ln     net.Listener
	cert   *certificate // nil without TLS
	stale  time.Duration
	log    *slog.Logger
	cutOff atomic.Bool // see edge.Backend
}

// openEdge listens for proxies, if that is configured.
func (n *service) openEdge(ctx context.Context, c api.Config, server *api.Server) error {
	if n.cfg.EdgeListen == "" {
		return nil
	}
	e := &edgeService{stale: n.cfg.EdgeStale, log: n.logs.slog}
	cfg := edge.Config{
		File: n.cfg.EdgeFile, Allow: n.cfg.EdgeNetworks(), Metrics: c.Edge, Log: n.logs.slog,
		ShutdownDelay: n.cfg.ShutdownDelay, Drain: n.cfg.Drain,
		MaxConnections: n.edgeConnections(),
		CheckerConfig:  edge.CheckerConfig{AdmitStart: server.AdmitStart},
	}
	if credentials, ok := c.Access.(*access.Authenticator); ok {
		cfg.Keys = credentials
		if credentials.HasTokens() {
			cfg.Verifier = credentials
		}
	}
	if n.cfg.EdgeTLSCert != "" {
		var err error
		if e.cert, err = newCertificate(n.cfg.EdgeTLSCert, n.cfg.EdgeTLSKey, n.cfg.EdgeClientCA); err != nil {
			return fmt.Errorf("edge: %w", err)
		}
		e.cert.optionalClients = true
		cfg.TLS, cfg.Metrics.CertificateExpires = e.cert.config(), e.cert.expires
	}
	var err error
	if e.server, err = edge.New(cfg); err != nil {
		return config.Errorf("%w", err)
	}
	e.ln, err = (&net.ListenConfig{}).Listen(ctx, "tcp", n.cfg.EdgeListen)
	if err != nil {
		return fmt.Errorf("cannot listen on %s (from %s): %w: stop the program that uses the address, "+
			"or choose another address with --edge-listen", n.cfg.EdgeListen, n.cfg.Source("edge-listen"), err)
	}
	n.logs.slog.Info("listening for proxies", "address", e.ln.Addr().String())
	n.edge = e
	return nil
}

// watchers returns the tasks that reload files.
func (e *edgeService) watchers() []background {
	if e == nil {
		return nil
	}
	tasks := []background{e.server.WatchFile}
	if e.cert != nil {
		tasks = append(tasks, func(ctx context.Context) error { return e.cert.files.Run(ctx, certificateCheckInterval, e.log) })
	}
	return tasks
}

// serve serves the API on ln, and proxies, until ctx ends or one of the two fails.
func (n *service) serve(ctx context.Context, server *api.Server, ln net.Listener) error {
	if n.edge == nil {
		return server.Run(ctx, ln)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return server.Run(ctx, ln) })
	group.Go(func() error { return n.edge.server.Run(ctx, n.edge.ln) })
	return group.Wait()
}

// useBackend lets the edge answer, and observes until ctx ends whether the node is cut off.
func (e *edgeService) useBackend(ctx context.Context, group *errgroup.Group, b *backend, r *shard.Router) {
	if e == nil {
		return
	}
	b.mu.Lock()
	key := b.edgeKey
	b.mu.Unlock()
	e.server.SetBackend(edge.Backend{Limiter: r, Key: key, CutOff: e.cutOff.Load})
	group.Go(func() error { return e.watchCutOff(ctx, b, r.Current) })
}

// cutOffInterval is how often the node checks whether its replicas are current.
const cutOffInterval = time.Second

// watchCutOff sets cutOff while the replicas have not been current for the time of edge-stale and
// other nodes were registered before. Then those can answer instead.
func (e *edgeService) watchCutOff(ctx context.Context, b *backend, current func() bool) error {
	lastCurrent, others := time.Now(), false
	for {
		if current() {
			lastCurrent = time.Now()
			nodes, err := b.listNodes(ctx)
			if err == nil {
				others = len(nodes) > 1
			}
		}
		isCutOff := others && time.Since(lastCurrent) >= e.stale
		if e.cutOff.Swap(isCutOff) != isCutOff {
			e.log.Warn("the edge answers 503 while etcd is unavailable to this node and other nodes are registered", "active", isCutOff)
		}
		if retry.Sleep(ctx, cutOffInterval) != nil { // the node stops
			return nil
		}
	}
}
