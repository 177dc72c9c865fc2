package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// healthz says that the process runs, whatever etcd does.
func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	text(w, http.StatusOK, "ok\n")
}

// readyz says whether this node should be sent requests, and if not, why.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	if err := s.notReady(r.Context()); err != nil {
		w.Header().Set("Retry-After", soon())
		text(w, http.StatusServiceUnavailable, fmt.Sprintf("not ready: %v\n", err))
		return
	}
	text(w, http.StatusOK, "ready\n")
}

var errDraining = errors.New("the node is draining: it is about to stop")

// notReady asks etcd now, once for all who ask at the same time: health checks
// must not become load on an etcd that is already slow.
func (s *Server) notReady(ctx context.Context) error {
	if s.draining.Load() {
		return errDraining
	}
	answer := s.ready.DoChan("", func() (any, error) {
		// Not the context of whoever happened to ask first.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.RequestTimeout)
		defer cancel()
		return nil, askReady(ctx, s.backend.Load().Ready)
	})
	select {
	case <-ctx.Done():
		return fmt.Errorf("the request ended first: %w", context.Cause(ctx))
	case a := <-answer:
		return a.Err
	}
}

// askReady makes an error of a panic: singleflight would end the process.
func askReady(ctx context.Context, ready func(context.Context) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the readiness check panicked: %v", v)
		}
	}()
	return ready(ctx)
}

func text(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body) // the client is gone: there is nobody to tell
}
