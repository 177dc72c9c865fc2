package main

import (
	"encoding/hex"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"streamcount/api/apitype"
)

// A receiver is an OTLP collector over HTTP.
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

// find returns the matching spans of that name.
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

// The spans of a start are the request, its wait for a batch, the batch, which is linked with
// it in both directions, and the calls of etcd. The log contains the trace id, and no span
// identifies the user.
func TestTracing_Tree(t *testing.T) {
	t.Parallel()
	r := newReceiver(t)
	p, c := serve(t, "--data-dir="+t.TempDir(), "--trace-endpoint="+r.URL, "--trace-sample=1", "--region=eu",
		"--log-level=debug", "--log-format=json")
	var u apitype.User
	c.json(exitOK, &u, "start", "maya", "--session=hunter2")
	c.run(exitOK, "stop", "maya", u.Stream.ID)
	status(t, c.server+"/healthz")
	require.Equal(t, exitOK, p.interrupt(t), "the remaining spans are sent at exit")

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
	assert.NotEqual(t, request.TraceId, batch.TraceId, "a batch has a separate trace")
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

// A trace of the caller is continued, but only a trusted proxy decides whether it is recorded.
func TestTracing_Parents(t *testing.T) {
	t.Parallel()
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

// If the collector is unavailable, one line is logged.
func TestTracing_NoCollector(t *testing.T) {
	t.Parallel()
	p, c := serve(t, "--data-dir="+t.TempDir(), "--trace-endpoint=http://"+closedPort(t), "--trace-sample=1")
	c.run(exitOK, "start", "maya")
	assert.Equal(t, exitOK, p.interrupt(t))
	assert.NotContains(t, p.errOut.String(), "ERROR")
}
