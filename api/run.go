package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"streamcount/api/internal/ingress"
)

// The timeouts and limits of a connection. The connection of a slower client is closed.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second
	// defaultIdleTimeout is longer than that of common load balancers (up to 600 s), so that
	// they do not send a request on a connection that the server is closing.
	defaultIdleTimeout = 620 * time.Second
	pingTimeout        = 60 * time.Second // without data on an HTTP/2 connection
	maxHeaderBytes     = 8 << 10          // net/http allows another 4 KiB
)

// Run serves on ln until ctx ends, and closes ln. Then /readyz responds 503 for
// Config.ShutdownDelay, no further requests are accepted, and the requests in flight have
// Config.Drain to finish. Run aborts those that do not finish, and returns an error.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	// Requests in flight may continue after ctx ends, but not after Run returns.
	requests, abandon := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	defer background.Wait()
	background.Go(func() { s.history.Run(requests, historySource{s}) })
	background.Go(func() {
		if err := s.load.Run(requests); err != nil {
			s.log.Warn("the scheduler delay cannot be measured: under overload heartbeats may be delayed", "err", err)
		}
	})
	defer abandon() // ends the background tasks before the wait for them
	srv := s.httpServer(requests)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(s.ingress.Listen(ln)) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve %v: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	s.ready.Drain()
	if err := s.announceShutdown(served); err != nil {
		return fmt.Errorf("serve %v: %w", ln.Addr(), err)
	}
	return s.drain(srv, served, abandon)
}

// announceShutdown waits for Config.ShutdownDelay, or until serving ends.
func (s *Server) announceShutdown(served <-chan error) error {
	if s.cfg.ShutdownDelay == 0 {
		return nil
	}
	s.log.Info("draining", "shutdown-delay", s.cfg.ShutdownDelay)
	delay := time.NewTimer(s.cfg.ShutdownDelay)
	defer delay.Stop()
	select {
	case err := <-served:
		return err
	case <-delay.C:
		return nil
	}
}

// drain shuts srv down and waits for its requests.
func (s *Server) drain(srv *http.Server, served <-chan error, abandon func()) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Drain)
	defer cancel()
	s.events.Close() // their clients reconnect to another node
	err := srv.Shutdown(ctx)
	if err != nil {
		abandon()
		err = fmt.Errorf("drain: requests still in flight after %v: %w", s.cfg.Drain,
			errors.Join(err, srv.Close()))
	}
	if end := <-served; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("serve: %w", end))
	}
	return err
}

func (s *Server) httpServer(requests context.Context) *http.Server {
	return &http.Server{
		Handler:                      s.handler,
		ReadHeaderTimeout:            readHeaderTimeout,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  s.cfg.IdleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is a 405 like any OPTIONS
		BaseContext:                  func(net.Listener) context.Context { return requests },
		ConnContext:                  ingress.ConnContext,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 100, MaxReadFrameSize: 1 << 14, MaxReceiveBufferPerConnection: 1 << 20,
			SendPingTimeout: min(pingTimeout, s.cfg.IdleTimeout/2), PingTimeout: readTimeout, WriteByteTimeout: writeTimeout,
		},
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}
