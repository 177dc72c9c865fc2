package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"streamcount/api/edge/profile"
	"streamcount/internal/filewatch"
)

const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = 10 * time.Second
	writeTimeout      = 30 * time.Second
	// idleTimeout is longer than proxies keep idle connections, so that none sends a request on
	// a connection that is being closed.
	idleTimeout = 10 * time.Minute
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

// Run serves on ln until ctx ends, and closes ln. Then the requests in progress have Config.Drain
// to end.
func (s *Server) Run(ctx context.Context, ln net.Listener) error {
	requests, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	srv := &http.Server{
		Handler:                      s,
		ReadHeaderTimeout:            readHeaderTimeout,
		ReadTimeout:                  readTimeout,
		WriteTimeout:                 writeTimeout,
		IdleTimeout:                  idleTimeout,
		MaxHeaderBytes:               maxTarget*2 + maxHeaders - netHTTPSlack,
		DisableGeneralOptionsHandler: true,
		BaseContext:                  func(net.Listener) context.Context { return requests },
		ErrorLog:                     slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
	if s.cfg.TLS != nil {
		ln = tls.NewListener(ln, s.cfg.TLS)
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	select {
	case err := <-served:
		return fmt.Errorf("serve the edge on %v: %w", ln.Addr(), err)
	case <-ctx.Done():
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
