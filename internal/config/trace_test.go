package config

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Variables of OpenTelemetry also enable tracing.
func TestTracing_OtelVariables(t *testing.T) {
	for environ, want := range map[string]bool{
		"": false, "OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318": true, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=http://c:4318": true,
		"OTEL_EXPORTER_OTLP_ENDPOINT=http://c:4318 OTEL_SDK_DISABLED=true": false, "OTEL_EXPORTER_OTLP_HEADERS=a=b": false,
	} {
		cfg, err := load(t, nil, strings.Fields(environ), "")
		require.NoError(t, err)
		assert.Equal(t, want, cfg.TracingEnabled(), environ)
	}
	for _, wrong := range []string{"collector:4317", "ftp://c", "http://", "http://me:secret@c:4318"} {
		_, err := load(t, []string{"--trace-endpoint=" + wrong}, nil, "")
		assert.ErrorContains(t, err, "trace-endpoint", wrong)
		assert.NotContains(t, err.Error(), "secret")
	}
	_, err := load(t, []string{"--trace-sample=1.5"}, nil, "")
	assert.ErrorContains(t, err, "want 0 to 1")
}
