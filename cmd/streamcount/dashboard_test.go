package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"

	"streamcount/api/apitype"
	"streamcount/internal/testing/longtest"
)

const (
	rulesFile     = "../../deploy/prometheus/rules/streamcount.yml"
	ruleTestsFile = "../../deploy/prometheus/tests/streamcount.yml"
	dashboardFile = "../../deploy/grafana/streamcount.json"
)

type promRule struct{ Alert, Record, Expr string }

// promRules returns the rules in deploy/prometheus/rules.
func promRules(t *testing.T) []promRule {
	t.Helper()
	var file struct{ Groups []struct{ Rules []promRule } }
	text, err := os.ReadFile(rulesFile)
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &file))
	var out []promRule
	for _, g := range file.Groups {
		out = append(out, g.Rules...)
	}
	require.Greater(t, len(out), 20)
	return out
}

// dashboardQueries returns the expressions of the dashboard by panel, and those of its
// variables.
func dashboardQueries(t *testing.T) (panels map[string][]string, variables []string) {
	t.Helper()
	var file struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
		Templating struct{ List []struct{ Definition string } }
	}
	text, err := os.ReadFile(dashboardFile)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &file))
	panels = map[string][]string{}
	for _, p := range file.Panels {
		for _, target := range p.Targets {
			panels[p.Title] = append(panels[p.Title], target.Expr)
		}
	}
	require.Greater(t, len(panels), 20)
	for _, v := range file.Templating.List {
		variables = append(variables, v.Definition)
	}
	return panels, variables
}

// labelsOf returns the labels of each series, including those that Prometheus adds to each
// target. Histograms are listed under all three of their names.
func labelsOf(families map[string]*dto.MetricFamily) map[string][]string {
	out := map[string][]string{}
	for name, f := range families {
		labels := []string{"job", "instance"}
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName())
			}
		}
		out[name] = labels
		if f.GetType() == dto.MetricType_HISTOGRAM {
			out[name+"_bucket"], out[name+"_sum"], out[name+"_count"] = append(labels, "le"), labels, labels
		}
	}
	return out
}

// seriesOf returns the series of a node with traffic, of its etcd, and of Prometheus. The
// metric of the certificate is read from its golden file.
func seriesOf(t *testing.T) map[string][]string {
	t.Helper()
	_, c := serve(t, "--data-dir="+t.TempDir(), "--limit=1", "--memory=1GiB")
	var u apitype.User
	c.json(exitOK, &u, "start", "maya")
	c.run(exitLimit, "start", "maya")
	c.run(exitOK, "heartbeat", "maya", u.Stream.ID)
	c.run(exitOK, "stop", "maya", u.Stream.ID)
	code, _ := status(t, c.server+"/nothing")
	require.Equal(t, 404, code)
	_, text := status(t, c.server+"/metrics")
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(strings.NewReader(text))
	require.NoError(t, err)
	etcds, err := prometheus.DefaultGatherer.Gather() // where the embedded etcd registers
	require.NoError(t, err)
	for _, f := range etcds {
		if strings.HasPrefix(f.GetName(), "etcd_") {
			assert.NotContains(t, families, f.GetName(), "the node has a separate registry")
			families[f.GetName()] = f
		}
	}
	out := labelsOf(families)
	out["up"] = []string{"job", "instance"}
	golden, err := os.ReadFile("../../api/testdata/metrics.txt")
	require.NoError(t, err)
	for line := range strings.Lines(string(golden)) {
		name, rest, _ := strings.Cut(line, "{")
		// This node has no issuers of tokens and no edge.
		if strings.HasPrefix(name, "streamcount_auth_") || strings.HasPrefix(name, "streamcount_edge_") {
			labels, _, _ := strings.Cut(rest, "}")
			out[name] = append([]string{"job", "instance"}, strings.Split(labels, ",")...)
			continue
		}
		if name == "streamcount_tls_certificate_expiry_timestamp_seconds" {
			out[name] = []string{"job", "instance"}
			continue
		}
		assert.Contains(t, out, name, "in a real node's metrics")
	}
	return out
}

// requireShown checks that every metric of expr exists, with the labels that expr selects,
// groups and joins by.
func requireShown(t *testing.T, where, expr string, all map[string][]string) {
	t.Helper()
	q := parseQuery(expr)
	assert.NotEmpty(t, q.metrics, "%s asks for nothing: %s", where, expr)
	var any []string
	for name, selects := range q.metrics {
		labels, ok := all[name]
		assert.True(t, ok, "%s: there is no metric %s", where, name)
		for _, label := range selects {
			assert.Contains(t, labels, label, "%s: %s has no such label", where, name)
		}
		any = append(any, labels...)
	}
	for _, label := range q.groups {
		assert.Contains(t, any, label, "%s: %s", where, expr)
	}
}

// Every query of the dashboard and the rules uses metrics and labels that a node has.
func TestDashboardAndRules_MetricsExist(t *testing.T) {
	all := seriesOf(t)
	rules := promRules(t)
	for _, r := range rules {
		if r.Record != "" {
			all[r.Record] = nil
		}
	}
	for _, r := range rules {
		requireShown(t, r.Alert+r.Record, r.Expr, all)
	}
	panels, variables := dashboardQueries(t)
	for title, queries := range panels {
		for _, expr := range queries {
			requireShown(t, title, replaceVariables(expr), all)
		}
	}
	for _, v := range variables {
		of, ok := strings.CutPrefix(v, "label_values(")
		require.True(t, ok, v)
		name, label, _ := strings.Cut(strings.TrimSuffix(of, ")"), ", ")
		assert.Contains(t, all[name], label, v)
	}
}

// promtool accepts the queries of the dashboard, and the rules pass their tests.
func TestDashboardAndRules_Promtool(t *testing.T) {
	longtest.Require(t, "promtool") // of Debian's package prometheus
	out, err := exec.CommandContext(t.Context(), "promtool", "test", "rules", ruleTestsFile).CombinedOutput()
	require.NoError(t, err, string(out))
	panels, _ := dashboardQueries(t)
	type record struct {
		Record string `json:"record"`
		Expr   string `json:"expr"`
	}
	var records []record
	for _, queries := range panels {
		for _, expr := range queries {
			records = append(records, record{"panel", replaceVariables(expr)})
		}
	}
	text, err := json.Marshal(map[string]any{"groups": []any{map[string]any{"name": "panels", "rules": records}}})
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "panels.yml")
	require.NoError(t, os.WriteFile(file, text, 0o600))
	out, err = exec.CommandContext(t.Context(), "promtool", "check", "rules", "--lint=none", file).CombinedOutput()
	require.NoError(t, err, string(out))
}

// Every alert has a test in which it fires, a test in which it does not, and instructions in
// the operations page.
func TestRules_AlertsHaveTestsAndDocs(t *testing.T) {
	var file struct {
		Tests []struct {
			Rules []struct {
				Alertname string `json:"alertname"`
				Expect    []any  `json:"exp_alerts"`
			} `json:"alert_rule_test"`
		}
	}
	text, err := os.ReadFile(ruleTestsFile)
	require.NoError(t, err)
	require.NoError(t, yaml.Unmarshal(text, &file))
	fires, silent := map[string]bool{}, map[string]bool{}
	for _, test := range file.Tests {
		for _, r := range test.Rules {
			fires[r.Alertname] = fires[r.Alertname] || len(r.Expect) > 0
			silent[r.Alertname] = silent[r.Alertname] || len(r.Expect) == 0
		}
	}
	page, err := os.ReadFile("../../docs/operations.md")
	require.NoError(t, err)
	var alerts []string
	for _, r := range promRules(t) {
		if r.Alert == "" {
			continue
		}
		alerts = append(alerts, r.Alert)
		assert.True(t, fires[r.Alert], "%s is never seen to fire", r.Alert)
		assert.True(t, silent[r.Alert], "%s is never seen not to fire", r.Alert)
		assert.Contains(t, string(page), "\n| `"+r.Alert+"` |", "what to do about it")
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `(Streamcount\\w+|Etcd\\w+)` \\|").FindAllStringSubmatch(string(page), -1) {
		assert.Contains(t, alerts, row[1], "there is no such alert")
	}
}
