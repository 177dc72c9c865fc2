package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"streamcount/api/edge/profile"
	"streamcount/api/internal/ingress"
	"streamcount/api/internal/problem"
	"streamcount/internal/filewatch"
)

const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second
	// idleTimeout is longer than proxies keep idle connections, so that none sends a request on
	// a connection that is being closed.
	idleTimeout = 10 * time.Minute
	pingTimeout = time.Minute // without data on an HTTP/2 connection
	// netHTTPSlack is what net/http adds to MaxHeaderBytes.
	netHTTPSlack = 4 << 10
	// fileInterval is how often the file of profiles is checked for changes.
	fileInterval = 5 * time.Second
)

// A profileFile is the file of profiles.
type profileFile struct{ files *filewatch.Files }

// open reads the file, and calls use with its profiles now and after each change.
func (f *profileFile) open(path string, use func(map[string]*profile.Profile)) (err error) {
	f.files, err = filewatch.New(func(contents [][]byte) error {
		profiles, err := profile.Parse(contents[0])
		if err == nil {
			use(profiles)
		}
		return err
	}, path)
	if err != nil {
		return fmt.Errorf("edge file %s: %w", path, err)
	}
	return nil
}

// WatchFile reloads the file of profiles when it changes, until ctx ends. A file with an error is
// logged and not used.
func (s *Server) WatchFile(ctx context.Context) error {
	return s.file.files.Run(ctx, fileInterval, s.log)
}

// newIngress returns the ingress that bounds the connections. Those of allowed networks count only
// for the total and are closed last, because each proxy has many of them. An address that needs a
// key may be that of a stranger: it has at most half of the connections.
func newIngress(cfg Config, log *slog.Logger) (*ingress.Ingress, error) {
	return ingress.New(ingress.Config{
		TLS: cfg.TLS, Proxies: cfg.Allow, MaxConnections: cfg.MaxConnections,
		MaxConnectionsPerAddress: max(1, cfg.MaxConnections/2), Log: log.With("listener", "edge"),
	})
}

// checkFraming returns what is wrong with how the end of a request is marked.
func checkFraming(r *http.Request) *problem.Problem {
	switch ingress.CheckFraming(r) {
	case ingress.AmbiguousLength:
		return problem.Malformed.New("It is not clear where the body ends: send Content-Length or Transfer-Encoding, never both, "+
			"and no folded header lines.").WithHeader("Connection", "close")
	case ingress.PlainHTTP2:
		return problem.Malformed.New("HTTP/2 requires TLS: use HTTP/1.1.").WithHeader("Connection", "close")
	}
	return nil
}

// Run serves on ln until ctx ends, and closes ln. Then /edge/healthz responds 503 for
// Config.ShutdownDelay while checks are still answered, and after that the requests in progress
// have Config.Drain to end.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	requests, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	srv := s.httpServer(requests)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(s.ingress.Listen(ln)) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve the edge on %v: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	s.draining.Store(true)
	delay := time.NewTimer(s.cfg.ShutdownDelay)
	defer delay.Stop()
	select {
	case err := <-served:
		return fmt.Errorf("serve the edge on %v: %w", ln.Addr(), err)
	case <-delay.C:
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Drain)
	defer cancel()
	err := srv.Shutdown(drain)
	if err != nil {
		abandon()
		err = fmt.Errorf("drain the edge: requests in progress after %v: %w", s.cfg.Drain, errors.Join(err, srv.Close()))
	}
	<-served //nolint:errcheck // http.ErrServerClosed
	return err
}

func (s *Server) httpServer(requests context.Context) *http.Server {
	return &http.Server{
		Handler:                      s.ingress.FlushHTTP2(s),
		ReadHeaderTimeout:            readHeaderTimeout,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxTarget*2 + maxHeaders - netHTTPSlack,
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return requests },
		ConnContext:                  ingress.ConnContext,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 100, MaxReadFrameSize: 1 << 14, MaxReceiveBufferPerConnection: 1 << 20,
			SendPingTimeout: pingTimeout, PingTimeout: readTimeout, WriteByteTimeout: writeTimeout,
		},
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}
