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

	"golang.org/x/net/netutil"
)

// The bounds of a connection. A client that is slower than these is cut off.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second
	idleTimeout       = 120 * time.Second
	maxHeaderBytes    = 8 << 10 // net/http allows 4 KiB on top
)

// Run serves on ln until ctx ends. Then /readyz turns to 503, nothing new is
// accepted, and the requests in flight have Config.Drain to finish; those that
// do not are cut off, and Run says so. It closes ln.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	// Requests in flight outlive ctx, but not Run.
	requests, abandon := context.WithCancel(context.WithoutCancel(ctx))
	var noting sync.WaitGroup
	defer noting.Wait()
	noting.Go(func() { s.notes(requests) })
	noting.Go(func() {
		if err := s.lag.watch(requests); err != nil {
			s.log.Warn("it is not seen how long requests wait, so under overload heartbeats may wait for long", "err", err)
		}
	})
	defer abandon() // before the wait
	srv := s.httpServer(requests)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(s.listener(ln)) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve %v: %w", ln.Addr(), err)
	case <-ctx.Done():
	}
	s.draining.Store(true)
	if err := s.giveNotice(served); err != nil {
		return fmt.Errorf("serve %v: %w", ln.Addr(), err)
	}
	return s.drain(srv, served, abandon)
}

// giveNotice waits for Config.Notice, or for the end of serving.
func (s *Server) giveNotice(served <-chan error) error {
	if s.cfg.Notice == 0 {
		return nil
	}
	s.log.Info("draining", "notice", s.cfg.Notice)
	notice := time.NewTimer(s.cfg.Notice)
	defer notice.Stop()
	select {
	case err := <-served:
		return err
	case <-notice.C:
		return nil
	}
}

// drain ends srv and waits for what it started.
func (s *Server) drain(srv *http.Server, served <-chan error, abandon func()) error {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Drain)
	defer cancel()
	s.events.end() // their clients go on elsewhere
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

// listener is ln with a bound on its connections, of which one address may have
// half, read along with, over TLS if
// that is configured.
func (s *Server) listener(ln net.Listener) net.Listener {
	most := max(s.cfg.MaxConns/2, min(s.cfg.MaxConns, 50)) // of few one address may have all
	ln = netutil.LimitListener(boundPerAddress(ln, most), s.cfg.MaxConns)
	if s.edge.TLS != nil {
		return newTLSListener(ln, s.edge.TLS, s.newEarly())
	}
	return tapListener{ln, s.newEarly()}
}

func (s *Server) httpServer(requests context.Context) *http.Server {
	return &http.Server{
		Handler:                      s.handler,
		ReadHeaderTimeout:            readHeaderTimeout,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxHeaderBytes,
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is a 405 like any OPTIONS
		BaseContext:                  func(net.Listener) context.Context { return requests },
		ConnContext:                  withTap,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 100, MaxReadFrameSize: 1 << 14, MaxReceiveBufferPerConnection: 1 << 20,
			SendPingTimeout: idleTimeout / 2, PingTimeout: readTimeout, WriteByteTimeout: writeTimeout,
		},
		ErrorLog: slog.NewLogLogger(s.log.Handler(), slog.LevelWarn),
	}
}
