package node

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"go.opentelemetry.io/otel/trace"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

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
