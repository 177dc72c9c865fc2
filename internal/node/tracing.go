package node

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"streamcount/api/apitype"
	"streamcount/internal/config"
)

// tracing exports the spans of the node to a collector.
type tracing struct{ provider *sdktrace.TracerProvider }

// newTracing does not check whether the collector is available: spans are sent in the
// background and dropped if it is not.
func newTracing(ctx context.Context, c *config.Config, self apitype.Node, log *slog.Logger) (*tracing, error) {
	exporter, err := otlptrace.New(ctx, newTraceClient(c))
	if err != nil {
		return nil, err
	}
	attributes, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "streamcount"), attribute.String("service.version", self.Version),
		attribute.String("service.instance.id", self.ID), attribute.String("cloud.region", self.Region),
	), resource.WithFromEnv()) // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES take precedence
	if err != nil {
		return nil, err
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("export of traces failed", "err", config.RedactURLs(err.Error())) }))
	return &tracing{sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter), sdktrace.WithResource(attributes), sdktrace.WithSampler(sampler{c.TraceSample}),
	)}, nil
}

func newTraceClient(c *config.Config) otlptrace.Client {
	if c.TraceEndpoint == "" {
		if c.OTelGRPC {
			return otlptracegrpc.NewClient()
		}
		return otlptracehttp.NewClient()
	}
	u, _ := url.Parse(c.TraceEndpoint) // validated
	if host, ok := strings.CutPrefix(u.Scheme, "grpc"); ok {
		options := []otlptracegrpc.Option{otlptracegrpc.WithEndpoint(u.Host)}
		if host == "" {
			options = append(options, otlptracegrpc.WithInsecure())
		}
		return otlptracegrpc.NewClient(options...)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/traces"
	}
	return otlptracehttp.NewClient(otlptracehttp.WithEndpointURL(u.String()))
}

// tracer returns a tracer; nil if t is nil.
func (t *tracing) tracer() trace.Tracer {
	if t == nil {
		return nil
	}
	return t.provider.Tracer("streamcount")
}

// tracesFlushTimeout is how long the node waits at shutdown until spans are exported.
const tracesFlushTimeout = 3 * time.Second

// stop exports the remaining spans.
func (t *tracing) stop(log *slog.Logger) {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), tracesFlushTimeout)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		log.Warn("the last traces were not exported", "err", config.RedactURLs(err.Error()))
	}
}

// sampler records spans whose parent is recorded or that are linked to a recorded span, and
// a ratio of all other spans. It does not sample by trace id, because clients can choose it.
type sampler struct{ ratio float64 }

// ShouldSample implements sdktrace.Sampler.
func (s sampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	parent := trace.SpanContextFromContext(p.ParentContext)
	linked := slices.ContainsFunc(p.Links, func(l trace.Link) bool { return l.SpanContext.IsSampled() })
	decision := sdktrace.Drop
	if parent.IsSampled() || linked || rand.Float64() < s.ratio {
		decision = sdktrace.RecordAndSample
	}
	return sdktrace.SamplingResult{Decision: decision, Tracestate: parent.TraceState()}
}

// Description implements sdktrace.Sampler.
func (s sampler) Description() string { return "streamcount" }

// traceHandler adds the ids of the trace and the span to log lines about traced requests.
type traceHandler struct{ slog.Handler }

// Handle implements slog.Handler.
func (h traceHandler) Handle(ctx context.Context, r slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsSampled() {
		r = r.Clone()
		r.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h traceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return traceHandler{h.Handler.WithAttrs(attrs)}
}

// WithGroup implements slog.Handler.
func (h traceHandler) WithGroup(name string) slog.Handler {
	return traceHandler{h.Handler.WithGroup(name)}
}
