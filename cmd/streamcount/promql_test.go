package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// A query contains the metrics of a PromQL expression: their selected labels, and the labels
// that the expression groups or joins by.
type query struct {
	metrics map[string][]string
	groups  []string
}

var (
	promToken   = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|[A-Za-z_:][A-Za-z0-9_:]*|[0-9][0-9A-Za-z.]*|\[[^\]]*\]|[{}(),]|[^\s]`)
	promGroups  = []string{"by", "without", "on", "ignoring", "group_left", "group_right"}
	promKeyword = []string{"and", "or", "unless", "bool", "offset"}
)

// parseQuery parses a valid expression as far as the metrics and labels need it. promtool
// validates expressions.
func parseQuery(expr string) query {
	q := query{metrics: map[string][]string{}}
	tokens := promToken.FindAllString(expr, -1)
	at := func(i int) string {
		if i < len(tokens) {
			return tokens[i]
		}
		return ""
	}
	for i := 0; i < len(tokens); i++ {
		word := tokens[i]
		switch {
		case !regexp.MustCompile(`^[A-Za-z_:]`).MatchString(word), slices.Contains(promKeyword, word):
		case slices.Contains(promGroups, word):
			for i += 2; at(i) != ")" && i < len(tokens); i++ {
				if at(i) != "," {
					q.groups = append(q.groups, at(i))
				}
			}
		case at(i+1) == "(": // a function, or an aggregation
		case slices.Contains(promGroups, at(i+1)):
		default:
			labels := q.metrics[word]
			if at(i+1) == "{" {
				for i += 2; at(i) != "}" && i < len(tokens); i++ {
					if regexp.MustCompile(`^[A-Za-z_]`).MatchString(at(i)) {
						labels = append(labels, at(i))
					}
				}
			}
			q.metrics[word] = labels
		}
	}
	return q
}

func TestParseQuery(t *testing.T) {
	got := parseQuery(`sum by (a, b) (rate(x_total{job="y{z}",c=~"$d"}[$__rate_interval])) / on (e) group_left (f) max(g) > 3 * h offset 10m`)
	assert.Equal(t, query{
		metrics: map[string][]string{"x_total": {"job", "c"}, "g": nil, "h": nil},
		groups:  []string{"a", "b", "e", "f"},
	}, got)
	got = parseQuery(`a:b:rate5m > 0.05 and avg_over_time(a:b:rate5m[1h] offset 10m) or vector(0) unless time() > 7 * 86400`)
	assert.Equal(t, []string{"a:b:rate5m"}, keysOf(got.metrics))
}

func keysOf[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// replaceVariables replaces the variables of Grafana.
func replaceVariables(expr string) string {
	return strings.NewReplacer("$__rate_interval", "5m", "$shard", ".*", "$node", ".*").Replace(expr)
}
