package api

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/mux"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/access"
	"streamcount/api/internal/openapi"
	"streamcount/api/internal/overload"
	"streamcount/lease"
	"streamcount/lease/stats"
	"streamcount/metrics"
)

// measured returns a Server with the counters of a new limiter.
func measured(t *testing.T, cfg Config, f limiter) *Server {
	t.Helper()
	cfg.Ingress.CertificateExpires = func() time.Time { return someTime }
	cfg.AuditMeasures = func() metrics.Audit { return metrics.Audit{Lines: 3} }
	cfg.FilesFailing = func() int { return 0 }
	s := newServer(t, cfg, f)
	l, err := lease.New(lease.Etcd{}, lease.Config{Limit: 3, Region: "eu", Secret: make([]byte, 32)})
	require.NoError(t, err)
	s.SetBackend(Backend{Measures: func() map[string]*stats.Snapshot {
		return map[string]*stats.Snapshot{"default": l.Stats(), "away": nil}
	}})
	return s
}

func scrape(t *testing.T, s *Server, header ...string) string {
	t.Helper()
	w := call(s, "GET", "/metrics", "", header...)
	require.Equal(t, http.StatusOK, w.Code, w.Body.String())
	assert.Contains(t, w.Header().Get("Content-Type"), "text/plain; version=0.0.4")
	return w.Body.String()
}

// requestsOf returns the number of requests by method, route and code.
func requestsOf(t *testing.T, s *Server) map[string]float64 {
	t.Helper()
	out := map[string]float64{}
	for _, f := range gathered(t, s) {
		if f.GetName() != "streamcount_http_requests_total" {
			continue
		}
		for _, m := range f.GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			out[labels["method"]+" "+labels["route"]+" "+labels["code"]] = m.GetCounter().GetValue()
		}
	}
	return out
}

func gathered(t *testing.T, s *Server) []*dto.MetricFamily {
	t.Helper()
	all, err := s.metrics.Gatherer().Gather()
	require.NoError(t, err)
	return all
}

// issuing is an Access with an issuer of viewers' tokens.
type issuing struct{}

func (issuing) Authenticate(*http.Request) (access.Caller, error) {
	return access.Caller{Kind: access.Service, Name: "backend"}, nil
}

func (issuing) Issuers() []access.IssuerState {
	return []access.IssuerState{
		{Rejected: map[access.Reason]int64{access.ReasonIssuer: 1}},
		{Name: "web", Keys: 2, Remote: true, Fetched: someTime, Rejected: map[access.Reason]int64{access.ReasonTime: 3}},
		{Name: "tv", Remote: true},
	}
}

// Each issuer has metrics, and rejected tokens of unknown issuers have an empty label.
func TestMetrics_Issuers(t *testing.T) {
	text := scrape(t, measured(t, Config{Access: issuing{}}, &fake{}))
	for _, line := range []string{
		`streamcount_auth_keys{issuer="web"} 2`, `streamcount_auth_keys{issuer="tv"} 0`,
		`streamcount_auth_fetched_timestamp_seconds{issuer="tv"} 0`,
		`streamcount_auth_tokens_rejected_total{issuer="",reason="issuer"} 1`,
		`streamcount_auth_tokens_rejected_total{issuer="web",reason="time"} 3`,
	} {
		assert.Contains(t, text, line+"\n")
	}
	assert.NotContains(t, text, `streamcount_auth_keys{issuer=""}`)
}

// The metrics are those of testdata/metrics.txt, and their names pass the linter of Prometheus.
func TestMetrics_Names(t *testing.T) {
	edge := metrics.NewEdge()
	edge.Profile("vod", [][2]string{{"allow", "running"}}).WouldRefuse("limit")
	edge.Connections, edge.CertificateExpires = func() int { return 1 }, time.Now
	edge.ConnectionsClosed = func() map[string]int64 { return map[string]int64{"max-connections": 1} }
	s := measured(t, Config{Access: issuing{}, MemoryBudget: 1 << 30, Edge: edge}, &fake{})
	problems, err := promlint.New(strings.NewReader(scrape(t, s))).Lint()
	require.NoError(t, err)
	assert.Empty(t, problems)
	var lines []string
	for _, f := range gathered(t, s) {
		if !strings.HasPrefix(f.GetName(), "streamcount_") {
			continue // the metrics of the Go runtime change with Go
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		lines = append(lines, fmt.Sprintf("%s{%s} %s\n",
			f.GetName(), strings.Join(labels, ","), strings.ToLower(f.GetType().String())))
	}
	const path = "testdata/metrics.txt"
	got := strings.Join(lines, "")
	if *update {
		require.NoError(t, os.WriteFile(path, []byte(got), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, string(want), got, "dashboards and alerts use these names: go test ./api -run Metrics_Names -update")
	assert.Contains(t, scrape(t, s), "\ngo_goroutines ")
	assert.Contains(t, scrape(t, s), "\nprocess_open_fds ")
}

// docs/metrics.md has a row for every metric, and no other rows.
func TestMetrics_Documented(t *testing.T) {
	golden, err := os.ReadFile("testdata/metrics.txt")
	require.NoError(t, err)
	page, err := os.ReadFile("../docs/metrics.md")
	require.NoError(t, err)
	want := regexp.MustCompile(`(?m)^streamcount_(\S+)\{(\S*)\} (\S+)$`).FindAllStringSubmatch(string(golden), -1)
	got := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| (\\w+) \\| ([^|]*)\\|").FindAllStringSubmatch(string(page), -1)
	rows := map[string][2]string{}
	for _, row := range got {
		labels := strings.NewReplacer("`", "", " ", "").Replace(row[3])
		rows[row[1]] = [2]string{row[2], labels}
	}
	for _, w := range want {
		labels := strings.Split(w[2], ",")
		labels = slices.DeleteFunc(labels, func(l string) bool { return l == "shard" }) // documented once for all metrics
		assert.Equal(t, [2]string{w[3], strings.Join(labels, ",")}, rows[w[1]], "the row of %s", w[1])
		delete(rows, w[1])
	}
	assert.Empty(t, rows, "the page has rows of metrics that do not exist")
}

// Each route has separate counters. Requests without a route have the label none, whatever
// their path.
func TestMetrics_EveryRoute(t *testing.T) {
	s := measured(t, Config{}, &fake{})
	require.NoError(t, s.router.Walk(func(r *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		path, err := r.GetPathTemplate()
		require.NoError(t, err)
		methods, err := r.GetMethods()
		require.NoError(t, err)
		key := methods[0] + " " + path
		before := requestsOf(t, s)
		w := call(s, methods[0], routeTable[key].target, routeTable[key].body)
		code := fmt.Sprint(" ", w.Code)
		assert.Equal(t, before[key+code]+1, requestsOf(t, s)[key+code], key)
		return nil
	}))
	for _, c := range [][3]string{
		{"GET", "/maya", "GET none 404"}, {"GET", u + "/zzz", "GET none 404"}, {"PUT", u, "PUT none 405"},
		{"BREW", "/metrics", "other none 405"}, {"GET", "/a//b", "GET none 404"},
	} {
		before := requestsOf(t, s)[c[2]]
		call(s, c[0], c[1], "")
		assert.Equal(t, before+1, requestsOf(t, s)[c[2]], c)
	}
	call(s, "HEAD", "/healthz", "")
	assert.Equal(t, 2.0, requestsOf(t, s)["GET /healthz 200"], "a HEAD counts under the route of its GET")
}

// Requests are counted with and without a body, and also if they are refused or panic.
func TestMetrics_Outcomes(t *testing.T) {
	f := &fake{}
	s := measured(t, Config{}, f)
	start := "POST " + openapi.UserPath + "/start "
	call(s, "POST", u+"/start", "")
	call(s, "POST", u+"/start", `{"device":{"name":"TV"}}`)
	f.err = limitError
	call(s, "POST", u+"/start", "")
	f.err = errors.New("internal error")
	call(s, "POST", u+"/start", "{}")
	f.panics = true
	call(s, "GET", u, "")
	got := requestsOf(t, s)
	assert.Equal(t, 2.0, got[start+"200"])
	assert.Equal(t, 1.0, got[start+"403"])
	assert.Equal(t, 1.0, got[start+"500"])
	assert.Equal(t, 1.0, got["GET "+openapi.UserPath+" 500"])
	assert.Contains(t, scrape(t, s), `streamcount_http_request_duration_seconds_count{method="POST",route="`+openapi.UserPath+`/start"} 4`)
}

// Callers that may read the totals may read the metrics. The metrics contain no user and no
// secret.
func TestMetrics_ContainNoUsers(t *testing.T) {
	s := measured(t, Config{Access: callers}, &fake{})
	assert.Equal(t, http.StatusUnauthorized, call(s, "GET", "/metrics", "", asHeader, "anonymous").Code)
	assert.Equal(t, http.StatusForbidden, call(s, "GET", "/metrics", "", asHeader, "maya").Code)
	call(s, "POST", u+"/start?token=hunter2", `{"session":"hunter2"}`, asHeader, "maya", "Authorization", "Bearer hunter2")
	call(s, "GET", "/users/maya/hunter2", "", asHeader, "maya")
	text := scrape(t, s, asHeader, "reader")
	assert.NotContains(t, text, "maya")
	assert.NotContains(t, text, "hunter2")
	assert.NotContains(t, text, "stream-1")
	for _, kind := range []access.Kind{access.Service, access.Reader, access.Operator} {
		assert.NotContains(t, text, callers[kind.String()].Name, "the names of API keys")
	}
}

// A node that is overloaded or has no etcd serves its metrics.
func TestMetrics_DuringOverload(t *testing.T) {
	s := newServer(t, Config{MaxInFlight: 1}, nil)
	_, bound := s.load.Admit(overload.Request{})
	require.Equal(t, overload.None, bound)
	require.Equal(t, http.StatusServiceUnavailable, call(s, "GET", "/openapi.json", "").Code)
	text := scrape(t, s)
	assert.Contains(t, text, "\nstreamcount_ready 0\n")
	assert.Contains(t, text, "\nstreamcount_http_requests_in_flight 1\n")
	assert.Contains(t, text, `streamcount_node_info{node="node-1",region="eu"} 1`)
	assert.Contains(t, text, `streamcount_http_requests_shed_total{reason="in-flight"} 1`)
	assert.NotContains(t, text, `duration_seconds_count{method="GET",route="/api/v1/events"}`, "the duration of an event stream depends on its client")
}
