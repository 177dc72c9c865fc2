package api

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"streamcount/lease/rules"
)

// A node that cannot read some rules is ready. /readyz names users only to callers who may
// read their limits.
func TestReadyz_Compatibility(t *testing.T) {
	const (
		hidden = "call with a credential that may read limits to see which\n"
		plans  = "ready\nthis version cannot read 1 plan, whose users cannot start streams on this node: \"gold\"\n" +
			"this version cannot read the limits of 1 user, who cannot start streams on this node: "
		nodes = "1 node does not support the rules in use and may admit too many streams: "
		named = plans + "\"maya\"\n" + nodes + "\"old-1 (region eu, version 0.1.0)\"\n"
		short = plans + hidden + nodes + hidden
	)
	c := rules.Compatibility{
		Plans: []string{"gold"}, Users: []string{"maya"}, Older: []rules.Node{{ID: "old-1", Region: "eu", Version: "0.1.0"}},
	}
	ask := func(cfg Config, host string, header ...string) string {
		s := newServer(t, cfg, &fake{})
		s.SetBackend(Backend{Compatibility: func() rules.Compatibility { return c }})
		w := callHost(s, "/readyz", host, header...)
		assert.Equal(t, 200, w.Code)
		assert.Contains(t, callHost(s, "/metrics", "localhost", asHeader, "scraper").Body.String(), "\nstreamcount_older_nodes 1\n")
		return w.Body.String()
	}
	open := Config{Ingress: IngressConfig{LocalHosts: true}}
	assert.Equal(t, named, ask(open, "localhost"), "every caller may read everything")
	assert.Equal(t, short, ask(open, "evil.example"), "a page of another host")

	keys := Config{Access: callers}
	assert.Equal(t, short, ask(keys, "localhost"))
	for as, want := range map[string]string{
		"reader": named, "operator": named, "service": named, "scraper": short, "maya": short, "bad": short, "anonymous": short,
	} {
		assert.Equal(t, want, ask(keys, "localhost", "Authorization", "Bearer x", asHeader, as), as)
	}

	c = rules.Compatibility{}
	s := newServer(t, open, &fake{})
	assert.Equal(t, "ready\n", call(s, "GET", "/readyz", "").Body.String())
}
