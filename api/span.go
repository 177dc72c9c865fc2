package api

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

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
	if s.edge.trusts(peerAt(r.RemoteAddr)) {
		return ctx
	}
	return trace.ContextWithRemoteSpanContext(r.Context(), parent.WithTraceFlags(parent.TraceFlags().WithSampled(false)))
}

// endSpan ends the span of a request that is over.
func (rec *recorder) endSpan(r *http.Request) {
	if rec.span == nil {
		return
	}
	if rec.route != "" {
		rec.span.SetName(r.Method + " " + rec.route)
	}
	rec.span.SetAttributes(
		attribute.String("http.request.method", r.Method), attribute.String("http.route", rec.route),
		attribute.Int("http.response.status_code", rec.status))
	if rec.status >= http.StatusInternalServerError {
		rec.span.SetStatus(codes.Error, http.StatusText(rec.status))
	}
	rec.span.End()
}
