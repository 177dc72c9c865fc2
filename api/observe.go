package api

import (
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/trace"

	"streamcount/access"
	"streamcount/metrics"
)

// A recorder notes what became of a request, for its line in the log.
type recorder struct {
	http.ResponseWriter
	status int    // 0 until the answer begins
	route  string // as registered, never as sent
	counts *metrics.Route
	span   trace.Span // nil unless the request is traced
	user   string
	caller access.Caller
	client netip.Addr
	err    error // behind a 5xx
	gone   bool  // the client hung up
	head   bool  // a HEAD, which took the route of its GET
	timed  timedCall
}

type recorderKey struct{}

// WriteHeader notes the status.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= http.StatusOK {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// observe logs each request, and keeps a panic from ending the process. It
// stands outside the router, which runs nothing of its own on a 404 or 405.
func (s *Server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec, start := &recorder{ResponseWriter: w}, time.Now()
		r = s.beginSpan(rec, r)
		defer func() {
			cut := s.recovered(rec, r, recover())
			took := time.Since(start)
			s.count(rec, r, took)
			s.latency.note(rec.timed, took)
			s.logRequest(rec, r, took)
			rec.endSpan(r)
			if cut {
				panic(http.ErrAbortHandler) // the answer has begun and cannot be taken back
			}
		}()
		next.ServeHTTP(rec, r)
	})
}

// recovered answers for a handler that panicked with v, and reports whether the
// connection has to be cut.
func (s *Server) recovered(rec *recorder, r *http.Request, v any) bool {
	if v == nil {
		return false
	}
	err, _ := v.(error)
	var broken *net.OpError
	if errors.As(err, &broken) || errors.Is(err, http.ErrAbortHandler) {
		rec.err, rec.gone = err, true // huma panics when it cannot write an answer
		return true
	}
	s.log.ErrorContext(r.Context(), "panic in a handler", "route", rec.route, "method", r.Method,
		"panic", v, "stack", string(debug.Stack()))
	if rec.status != 0 {
		return true
	}
	rec.Header().Set("Connection", "close")
	internal.problem("The request could not be served.").write(rec)
	return false
}

func (s *Server) logRequest(rec *recorder, r *http.Request, took time.Duration) {
	level := slog.LevelDebug
	switch {
	case rec.gone:
	case rec.status >= http.StatusInternalServerError && rec.status != http.StatusServiceUnavailable:
		level = slog.LevelError
	case rec.status >= http.StatusInternalServerError:
		level = slog.LevelWarn
	}
	ctx := r.Context()
	if !s.log.Enabled(ctx, level) {
		return
	}
	var kept int64
	if level == slog.LevelWarn {
		var ok bool
		kind := &s.shedLines
		if rec.err != nil {
			kind = &s.failedLines
		}
		if kept, ok = kind.pass(time.Now()); !ok {
			return
		}
	}
	attrs := []slog.Attr{
		slog.String("route", rec.route), slog.String("method", r.Method), slog.Int("status", rec.status),
		slog.Duration("duration", took), slog.String("user", rec.user),
		slog.String("caller", rec.caller.String()), slog.String("client", rec.client.String()),
	}
	if rec.err != nil {
		attrs = append(attrs, slog.Any("err", rec.err))
	}
	if kept > 0 {
		attrs = append(attrs, slog.Int64("unlogged", kept)) // like it, since the last
	}
	if rec.gone {
		attrs = append(attrs, slog.Bool("gone", true))
	}
	s.log.LogAttrs(ctx, level, "request", attrs...)
}
