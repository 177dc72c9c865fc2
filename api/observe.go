package api

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"streamcount/access"
	"streamcount/api/internal/convert"
	"streamcount/api/internal/ingress"
	"streamcount/api/internal/latency"
	"streamcount/api/internal/problem"
	"streamcount/metrics"
)

// A recorder notes what became of a request, for its line in the log.
type recorder struct {
	http.ResponseWriter
	status     int    // 0 until the answer begins
	route      string // as registered, never as sent
	counts     *metrics.Route
	span       trace.Span // nil unless the request is traced
	user       string
	caller     access.Caller
	request    *http.Request // as it arrived
	client     netip.Addr
	invalidHop string           // what a trusted proxy wrote in place of the client's address
	err        error            // behind a 5xx
	problem    *problem.Problem // that was answered; nil if none was
	clientGone bool             // the client hung up
	head       bool             // a HEAD, which took the route of its GET
	timedCall  latency.Call

	conn     ingress.Conn
	body     *ingress.Body // nil if no body was received
	bodyRead bool          // whether there is no body that was not read
	http2    bool
}

type recorderKey struct{}

// withRecorder returns ctx with rec, for [recorderOf].
func withRecorder(ctx context.Context, rec *recorder) context.Context {
	return context.WithValue(ctx, recorderKey{}, rec)
}

// recorderOf returns the recorder of the request that ctx belongs to.
func recorderOf(ctx context.Context) *recorder {
	if rec, ok := ctx.Value(recorderKey{}).(*recorder); ok {
		return rec
	}
	return &recorder{}
}

// WriteHeader notes the status.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && status >= http.StatusOK {
		r.status = status
		switch {
		case r.http2: // where it would end the other requests of the connection
			r.Header().Del("Connection")
		case !r.bodyRead && r.conn.HasUnreadBody():
			// net/http would wait for the rest of the body before it answers.
			r.Header().Set("Connection", "close")
		}
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.WriteHeader(http.StatusOK)
	}
	return r.ResponseWriter.Write(p)
}

func (r *recorder) RecordProblem(p *problem.Problem) { r.problem = p }

// Unwrap gives http.ResponseController access to the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// observe logs and counts each request, and recovers panics. It wraps the router, because the
// router runs no middleware on a 404 or 405.
func (s *Server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec, start := &recorder{ResponseWriter: w, request: r}, time.Now()
		r = s.beginSpan(rec, r)
		defer func() {
			cut := s.recovered(rec, r, recover())
			took := time.Since(start)
			s.count(rec, r, took)
			s.countRejectedStart(rec, r)
			s.latency.Observe(rec.timedCall, took)
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
		rec.err, rec.clientGone = err, true // huma panics when it cannot write an answer
		return true
	}
	s.log.ErrorContext(r.Context(), "panic in a handler", "route", rec.route, "method", r.Method,
		"panic", v, "stack", string(debug.Stack()))
	if rec.status != 0 {
		return true
	}
	rec.Header().Set("Connection", "close")
	problem.Internal.New("An internal error occurred.").Write(rec)
	return false
}

func (s *Server) logRequest(rec *recorder, r *http.Request, took time.Duration) {
	level := slog.LevelDebug
	switch {
	case rec.clientGone:
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
		kind := &s.overloadLines
		if rec.err != nil {
			kind = &s.failedLines
		}
		if kept, ok = kind.Allow(time.Now()); !ok {
			return
		}
	}
	attrs := []slog.Attr{
		slog.String("route", rec.route), slog.String("method", r.Method), slog.Int("status", rec.status),
		slog.Duration("duration", took), slog.String("user", rec.user),
		slog.String("caller", rec.caller.String()), slog.String("client", rec.client.String()),
	}
	if rec.invalidHop != "" {
		attrs = append(attrs, slog.String("hop", rec.invalidHop))
	}
	if rec.err != nil {
		attrs = append(attrs, slog.Any("err", rec.err))
	}
	if kept > 0 {
		attrs = append(attrs, slog.Int64("unlogged", kept)) // like it, since the last
	}
	if rec.clientGone {
		attrs = append(attrs, slog.Bool("gone", true))
	}
	s.log.LogAttrs(ctx, level, "request", attrs...)
}

// untraced are the paths of requests that come all the time and say nothing, or
// that go on for as long as their readers like.
var untraced = map[string]bool{"/healthz": true, "/readyz": true, metricsPath: true, eventsPath: true}

// beginSpan begins the span of a request, if it is traced. No span says whose
// request it is.
func (s *Server) beginSpan(rec *recorder, r *http.Request) *http.Request {
	if s.cfg.Tracer == nil || untraced[r.URL.Path] {
		return r
	}
	ctx, span := s.cfg.Tracer.Start(s.withParent(r), r.Method, trace.WithSpanKind(trace.SpanKindServer))
	if !span.IsRecording() {
		return r
	}
	rec.span = span
	return r.WithContext(ctx)
}

// withParent is the context of a request with the span that its caller says it
// belongs to. Whether that is recorded decides for us too where a trusted proxy
// passes it on: others could have us record everything.
func (s *Server) withParent(r *http.Request) context.Context {
	if len(r.Header["Traceparent"]) == 0 {
		return r.Context()
	}
	ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	parent := trace.SpanContextFromContext(ctx)
	if s.ingress.IsProxy(ingress.PeerAddr(r.RemoteAddr)) {
		return ctx
	}
	return trace.ContextWithRemoteSpanContext(r.Context(), parent.WithTraceFlags(parent.TraceFlags().WithSampled(false)))
}

// endSpan ends the span of a request.
func (r *recorder) endSpan(req *http.Request) {
	if r.span == nil {
		return
	}
	if r.route != "" {
		r.span.SetName(req.Method + " " + r.route)
	}
	r.span.SetAttributes(
		attribute.String("http.request.method", req.Method), attribute.String("http.route", r.route),
		attribute.Int("http.response.status_code", r.status))
	if r.status >= http.StatusInternalServerError {
		r.span.SetStatus(codes.Error, http.StatusText(r.status))
	}
	r.span.End()
}

// problemFor returns the problem for an error of a handler. It records both for the line
// of the request in the log.
func (r *recorder) problemFor(ctx context.Context, err error) *problem.Problem {
	p := convert.Problem(err)
	p.Active = visibleTo(r.caller, p.Active)
	r.problem = p
	if p.Status >= http.StatusInternalServerError {
		r.err = err
		r.clientGone = errors.Is(ctx.Err(), context.Canceled)
	}
	return p
}
