package main

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"streamcount/api/apitype"
)

// A receiver takes spans as a collector does, by OTLP over HTTP.
type receiver struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*tracepb.Span
	about map[string]string // of the resource
}

func newReceiver(tb testing.TB) *receiver {
	tb.Helper()
	r := &receiver{about: map[string]string{}}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		var in collector.ExportTraceServiceRequest
		if err != nil || req.URL.Path != "/v1/traces" || proto.Unmarshal(body, &in) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, rs := range in.ResourceSpans {
			for _, a := range rs.Resource.Attributes {
				r.about[a.Key] = a.Value.GetStringValue()
			}
			for _, ss := range rs.ScopeSpans {
				r.spans = append(r.spans, ss.Spans...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	tb.Cleanup(r.Close)
	return r
}

// find returns the spans of that name that match.
func (r *receiver) find(name string, match func(*tracepb.Span) bool) []*tracepb.Span {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []*tracepb.Span
	for _, s := range r.spans {
		if s.Name == name && (match == nil || match(s)) {
			out = append(out, s)
		}
	}
	return out
}

func childOf(parent *tracepb.Span) func(*tracepb.Span) bool {
	return func(s *tracepb.Span) bool {
		return string(s.ParentSpanId) == string(parent.SpanId) && string(s.TraceId) == string(parent.TraceId)
	}
}

func linksTo(s, to *tracepb.Span) bool {
	return slices.ContainsFunc(s.Links, func(l *tracepb.Span_Link) bool {
		return string(l.SpanId) == string(to.SpanId) && string(l.TraceId) == string(to.TraceId)
	})
}

const startSpan = "POST /api/v1/streams/users/{user}/start"

// A start as a tree: the request, its wait for a batch, the batch that is linked
// with it both ways, and the round of etcd below that. The log has the trace's id,
// and no span says whose stream it is.
func TestTracing_Tree(t *testing.T) {
	r := newReceiver(t)
	p, c := serve(t, "--data-dir="+t.TempDir(), "--trace-endpoint="+r.URL, "--trace-sample=1", "--region=eu",
		"--log-level=debug", "--log-format=json")
	var u apitype.User
	c.json(exitOK, &u, "start", "maya", "--session=hunter2")
	c.run(exitOK, "stop", "maya", u.Stream.ID)
	status(t, c.server+"/healthz")
	require.Equal(t, exitOK, p.interrupt(t), "what is left is sent at the end")

	requests := r.find(startSpan, nil)
	require.Len(t, requests, 1)
	request := requests[0]
	assert.Equal(t, tracepb.Span_SPAN_KIND_SERVER, request.Kind)
	waits := r.find("batch wait", childOf(request))
	require.Len(t, waits, 1)
	batches := r.find("batch", func(b *tracepb.Span) bool { return linksTo(b, waits[0]) })
	require.Len(t, batches, 1)
	batch := batches[0]
	assert.True(t, linksTo(waits[0], batch), "and back")
	assert.Empty(t, batch.ParentSpanId)
	assert.NotEqual(t, request.TraceId, batch.TraceId, "a batch is of all its members")
	writes := r.find("etcd write", childOf(batch))
	require.Len(t, writes, 1)
	assert.LessOrEqual(t, writes[0].EndTimeUnixNano-writes[0].StartTimeUnixNano, batch.EndTimeUnixNano-batch.StartTimeUnixNano)
	assert.Empty(t, r.find("GET /healthz", nil))
	assert.Equal(t, "streamcount", r.about["service.name"])
	assert.Equal(t, "eu", r.about["cloud.region"])

	id := hex.EncodeToString(request.TraceId)
	assert.Contains(t, p.errOut.String(), `"trace_id":"`+id+`"`)
	for _, s := range r.spans {
		assert.NotContains(t, s.String(), "maya")
		assert.NotContains(t, s.String(), "hunter2")
		assert.NotContains(t, s.String(), u.Stream.ID)
	}
}

// A caller's trace goes on here, but only a trusted proxy decides that it is
// recorded.
func TestTracing_Parents(t *testing.T) {
	const parent = "4bf92f3577b34da6a3ce929d0e0e4736"
	for name, tc := range map[string]struct {
		args []string
		want int
	}{
		"anybody":         {[]string{"--trace-sample=0"}, 0},
		"anybody sampled": {[]string{"--trace-sample=1"}, 1},
		"a proxy":         {[]string{"--trace-sample=0", "--trusted-proxies=127.0.0.1"}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newReceiver(t)
			p, c := serve(t, append(tc.args, "--data-dir="+t.TempDir(), "--trace-endpoint="+r.URL)...)
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.server+"/api/v1/streams/users/maya/start", nil)
			require.NoError(t, err)
			req.Header.Set("Traceparent", "00-"+parent+"-00f067aa0ba902b7-01")
			resp, err := http.DefaultClient.Do(req)
			require.NoError(t, err)
			require.NoError(t, resp.Body.Close())
			require.Equal(t, 200, resp.StatusCode)
			require.Equal(t, exitOK, p.interrupt(t))
			spans := r.find(startSpan, nil)
			require.Len(t, spans, tc.want)
			for _, s := range spans {
				assert.Equal(t, parent, hex.EncodeToString(s.TraceId))
			}
		})
	}
}

// A collector that is away costs a line in the log and nothing else.
func TestTracing_NoCollector(t *testing.T) {
	p, c := serve(t, "--data-dir="+t.TempDir(), "--trace-endpoint=http://"+closedPort(t), "--trace-sample=1")
	c.run(exitOK, "start", "maya")
	began := time.Now()
	assert.Equal(t, exitOK, p.interrupt(t))
	assert.Less(t, time.Since(began), 20*time.Second)
	assert.NotContains(t, p.errOut.String(), "ERROR")
}

// OpenTelemetry's own variables switch traces on as well.
func TestTracing_OtelVariables(t *testing.T) {
	for environ, want := range map[string]bool{
		"": false, "OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318": true, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://c:4318": true,
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318 OTEL_SDK_DISABLED=true": false, "OTEL_EXPORTER_OTLP_HEADERS=a=b": false,
	} {
		cfg, err := load(t, nil, strings.Fields(environ), "")
		require.NoError(t, err)
		assert.Equal(t, want, cfg.traced(), environ)
	}
	for _, wrong := range []string{"collector:4317", "ftp://c", "http://", "http://me:secret@c:4318"} {
		_, err := load(t, []string{"--trace-endpoint=" + wrong}, nil, "")
		assert.ErrorContains(t, err, "trace-endpoint", wrong)
		assert.NotContains(t, err.Error(), "secret")
	}
	_, err := load(t, []string{"--trace-sample=1.5"}, nil, "")
	assert.ErrorContains(t, err, "want 0 to 1")
}

func TestSampler(t *testing.T) {
	sampled := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: trace.FlagsSampled})
	taken := func(share float64, p sdktrace.SamplingParameters) (n int) {
		if p.ParentContext == nil {
			p.ParentContext = t.Context()
		}
		for range 10_000 {
			if (sampler{share}).ShouldSample(p).Decision == sdktrace.RecordAndSample {
				n++
			}
		}
		return n
	}
	assert.Zero(t, taken(0, sdktrace.SamplingParameters{}))
	assert.Equal(t, 10_000, taken(1, sdktrace.SamplingParameters{}))
	assert.InDelta(t, 1000, taken(0.1, sdktrace.SamplingParameters{}), 200)
	assert.Equal(t, 10_000, taken(0, sdktrace.SamplingParameters{Links: []trace.Link{{SpanContext: sampled}}}))
	assert.Equal(t, 10_000, taken(0, sdktrace.SamplingParameters{ParentContext: trace.ContextWithSpanContext(t.Context(), sampled)}))
}
