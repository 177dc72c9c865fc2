package main

import (
	"cmp"
	"context"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"streamcount/api/apitype"
)

// traceConfig says where spans go. Each field is a flag, but for those that
// OpenTelemetry's own variables set.
type traceConfig struct {
	TraceEndpoint string
	TraceSample   float64

	otelEndpoint bool // OTEL_EXPORTER_OTLP_ENDPOINT or its like is set
	otelGRPC     bool
}

func (c *traceConfig) register(fs *pflag.FlagSet) {
	fs.StringVar(&c.TraceEndpoint, "trace-endpoint", "",
		"`URL` of a collector that takes traces by OTLP: http://host:4318, or grpc://host:4317 (https and grpcs with TLS)")
	fs.Float64Var(&c.TraceSample, "trace-sample", 0.01, "`share` of requests that are traced, 0 to 1")
}

// traced reports whether there are traces at all.
func (c *traceConfig) traced() bool { return c.TraceEndpoint != "" || c.otelEndpoint }

// fromOtel takes what OpenTelemetry's variables say; the exporters read all the
// others of them, as headers and certificates, themselves.
func (c *traceConfig) fromOtel(environ []string) {
	env := map[string]string{}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	const prefix = "OTEL_EXPORTER_OTLP_"
	c.otelEndpoint = cmp.Or(env[prefix+"TRACES_ENDPOINT"], env[prefix+"ENDPOINT"]) != "" &&
		!strings.EqualFold(env["OTEL_SDK_DISABLED"], "true")
	c.otelGRPC = cmp.Or(env[prefix+"TRACES_PROTOCOL"], env[prefix+"PROTOCOL"]) == "grpc"
}

func (c *Config) checkTrace() error {
	if c.TraceEndpoint != "" {
		u, err := url.Parse(c.TraceEndpoint)
		ok := err == nil && slices.Contains([]string{"http", "https", "grpc", "grpcs"}, u.Scheme) && u.Host != "" &&
			u.User == nil
		shown := c.TraceEndpoint
		if strings.Contains(shown, "@") {
			shown = "***@***" // a password
		}
		if err := c.check(ok, "trace-endpoint", shown,
			"want a URL such as http://collector:4318 or grpc://collector:4317, without a user"); err != nil {
			return err
		}
	}
	return c.check(c.TraceSample >= 0 && c.TraceSample <= 1, "trace-sample",
		strconv.FormatFloat(c.TraceSample, 'g', -1, 64), "want 0 to 1")
}

// A tracing is where a node's spans go until it is stopped.
type tracing struct{ provider *sdktrace.TracerProvider }

// newTracing asks nobody whether the collector is there: spans are sent in the
// background, and are lost if it is not.
func newTracing(ctx context.Context, c *traceConfig, self apitype.Node, log *slog.Logger) (*tracing, error) {
	exporter, err := otlptrace.New(ctx, c.client())
	if err != nil {
		return nil, err
	}
	about, err := resource.New(ctx, resource.WithAttributes(
		attribute.String("service.name", "streamcount"), attribute.String("service.version", self.Version),
		attribute.String("service.instance.id", self.ID), attribute.String("cloud.region", self.Region),
	), resource.WithFromEnv()) // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win
	if err != nil {
		return nil, err
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("traces", "err", err) }))
	return &tracing{sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter), sdktrace.WithResource(about), sdktrace.WithSampler(sampler{c.TraceSample}),
	)}, nil
}

func (c *traceConfig) client() otlptrace.Client {
	if c.TraceEndpoint == "" {
		if c.otelGRPC {
			return otlptracegrpc.NewClient()
		}
		return otlptracehttp.NewClient()
	}
	u, _ := url.Parse(c.TraceEndpoint) // checked before
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

// tracer makes spans; nil if t is.
func (t *tracing) tracer() trace.Tracer {
	if t == nil {
		return nil
	}
	return t.provider.Tracer("streamcount")
}

// flushPatience is how long the end of a node may wait for the collector.
const flushPatience = 3 * time.Second

// stop sends what is left.
func (t *tracing) stop(log *slog.Logger) {
	if t == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), flushPatience)
	defer cancel()
	if err := t.provider.Shutdown(ctx); err != nil {
		log.Warn("the last traces could not be sent", "err", err)
	}
}

// sampler records a span whose parent is recorded, or that is linked with one that
// is, and of all others a share. It does not go by the trace's id, which a client
// can choose.
type sampler struct{ share float64 }

// ShouldSample implements sdktrace.Sampler.
func (s sampler) ShouldSample(p sdktrace.SamplingParameters) sdktrace.SamplingResult {
	parent := trace.SpanContextFromContext(p.ParentContext)
	linked := slices.ContainsFunc(p.Links, func(l trace.Link) bool { return l.SpanContext.IsSampled() })
	decision := sdktrace.Drop
	if parent.IsSampled() || linked || rand.Float64() < s.share {
		decision = sdktrace.RecordAndSample
	}
	return sdktrace.SamplingResult{Decision: decision, Tracestate: parent.TraceState()}
}

// Description implements sdktrace.Sampler.
func (s sampler) Description() string { return "streamcount" }

// traceHandler adds the trace to lines about requests that are traced.
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
