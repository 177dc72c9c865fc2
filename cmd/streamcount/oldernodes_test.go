package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/internal/testing/etcdtest"
)

// A node names the rules that it cannot read, and the nodes that do not support the rules in
// use, and serves everyone else.
func TestServe_RulesOfOtherVersions(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t, etcdtest.Config{})
	etcd := m.Client(t)
	p, c := serve(t, "--etcd-endpoints="+m.Endpoint(), "--node=new-1")
	put := func(key, value string) {
		t.Helper()
		_, err := etcd.Put(t.Context(), "/streamcount/"+key, value)
		require.NoError(t, err)
	}
	eventually := func(want string, path string) {
		t.Helper()
		require.Eventually(t, func() bool {
			code, body := status(t, c.server+path)
			return code == 200 && strings.Contains(body, want)
		}, time.Minute, 10*time.Millisecond, "no %q in %s", want, path)
	}
	_, body := status(t, c.server+"/readyz")
	assert.Equal(t, "ready\n", body)

	put("plans/gold", `{"limit":9,"needs":["teleport"]}`)
	put("limits/tom", `{"limit":9,"needs":["teleport"]}`)
	eventually(`"gold"`, "/readyz")
	eventually(`"tom"`, "/readyz")
	eventually("\n"+`streamcount_unreadable_rules{kind="user",shard="default"} 1`+"\n", "/metrics")
	c.run(exitError, "start", "maya", "--plan=gold")
	c.run(exitError, "start", "tom")
	c.run(exitOK, "start", "ida")
	out, _ := c.run(exitOK, "health")
	assert.Contains(t, out, "ready; this version cannot read 1 plan")
	c.run(exitOK, "limits", "rm", "tom")
	c.run(exitOK, "plans", "rm", "gold")
	eventually("\n"+`streamcount_unreadable_rules{kind="plan",shard="default"} 0`+"\n", "/metrics")
	c.run(exitOK, "start", "tom")
	assert.Equal(t, 2, strings.Count(p.errOut.String(), "this version cannot read a stored rule"))

	put("plans/tv", `{"limit":3,"limits":[{"name":"tv","limit":1}],"needs":["limits"]}`)
	put("nodes/old-1", `{"id":"old-1","region":"eu","version":"0.1.0"}`)
	eventually(`1 node does not support the rules in use and may admit too many streams: "old-1 (region eu, version 0.1.0)"`, "/readyz")
	eventually("\nstreamcount_older_nodes 1\n", "/metrics")
	assert.Contains(t, p.errOut.String(), "registered nodes do not support the rules in use")
	var s apitype.Stats
	c.json(exitOK, &s, "ls")
	for _, n := range s.Nodes {
		assert.Equal(t, n.ID == "new-1", len(n.Supports) > 0, n.ID)
	}
	_, err := etcd.Delete(t.Context(), "/streamcount/nodes/old-1")
	require.NoError(t, err)
	eventually("\nstreamcount_older_nodes 0\n", "/metrics")
	_, body = status(t, c.server+"/readyz")
	assert.Equal(t, "ready\n", body)
	assert.Equal(t, 1, strings.Count(p.errOut.String(), "registered nodes do not support the rules in use"))
	assert.Equal(t, exitOK, p.interrupt(t))
}
