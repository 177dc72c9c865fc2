package config

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
)

// traceConfig configures tracing. The exported fields without OTel are flags; the others are
// set by variables of OpenTelemetry.
type traceConfig struct {
	TraceEndpoint string
	TraceSample   float64

	otelEndpoint bool // an endpoint is set by a variable of OpenTelemetry
	OTelGRPC     bool
}

func (c *traceConfig) register(fs *pflag.FlagSet) {
	fs.StringVar(&c.TraceEndpoint, "trace-endpoint", "",
		"`URL` of an OTLP collector for traces: http://host:4318, or grpc://host:4317 (https and grpcs use TLS) (default tracing off)")
	fs.Float64Var(&c.TraceSample, "trace-sample", 0.01, "`ratio` of requests that are traced, 0 to 1")
}

// TracingEnabled reports whether an endpoint for traces is configured.
func (c *traceConfig) TracingEnabled() bool { return c.TraceEndpoint != "" || c.otelEndpoint }

// readOTelVariables reads the variables of OpenTelemetry that select an exporter. The exporters
// read the others, such as headers and certificates.
func (c *traceConfig) readOTelVariables(environ []string) {
	env := map[string]string{}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		env[name] = value
	}
	const prefix = "OTEL_EXPORTER_OTLP_"
	c.otelEndpoint = cmp.Or(env[prefix+"TRACES_ENDPOINT"], env[prefix+"ENDPOINT"]) != "" &&
		!strings.EqualFold(env["OTEL_SDK_DISABLED"], "true")
	c.OTelGRPC = cmp.Or(env[prefix+"TRACES_PROTOCOL"], env[prefix+"PROTOCOL"]) == "grpc"
}

func (c *Config) checkTrace() error {
	if c.TraceEndpoint != "" {
		u, err := url.Parse(c.TraceEndpoint)
		ok := err == nil && slices.Contains([]string{"http", "https", "grpc", "grpcs"}, u.Scheme) && u.Host != "" &&
			u.User == nil && u.RawQuery == "" && u.Fragment == ""
		if err := c.check(ok, "trace-endpoint", redactAddress(c.TraceEndpoint),
			"want a URL such as http://collector:4318 or grpc://collector:4317, without a user or query: "+
				"set credentials in OTEL_EXPORTER_OTLP_HEADERS"); err != nil {
			return err
		}
	}
	return c.check(c.TraceSample >= 0 && c.TraceSample <= 1, "trace-sample",
		strconv.FormatFloat(c.TraceSample, 'g', -1, 64), "want 0 to 1")
}
