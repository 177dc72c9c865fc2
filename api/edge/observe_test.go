package edge

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/edge/profile"
	"streamcount/internal/testing/etcdtest"
	"streamcount/internal/testing/testlog"
	"streamcount/lease"
	"streamcount/metrics"
)

// A profile that only observes allows every request, and counts those that it would refuse.
func TestObserve(t *testing.T) {
	t.Parallel()
	var log testlog.Buffer
	l := newLimiter(t, etcdtest.Client(t), lease.Config{Prefix: etcdtest.Prefix(t), Limit: 1})
	cfg := Config{Metrics: metrics.NewEdge(), Log: slog.New(slog.NewTextHandler(&log, nil))}
	n := newNode(t, cfg, l)
	wants := map[string]int{}
	refused := func(got reply, reason string) {
		t.Helper()
		assert.Equal(t, 200, got.StatusCode)
		assert.Equal(t, "allow", got.Header.Get("X-Streamcount-Decision"))
		assert.Equal(t, reason, got.Header.Get("X-Streamcount-Would-Refuse"))
		assert.Empty(t, got.reason())
		assert.Equal(t, "0", got.Header.Get("X-Accel-Expires"), "a proxy does not keep it")
		assert.Empty(t, got.body)
		wants[reason]++
	}
	first := n.check(t, "observe", "/vod/film/1.ts?sid=a")
	assert.Equal(t, 200, first.StatusCode)
	assert.Empty(t, first.Header.Get("X-Streamcount-Would-Refuse"))
	all := streams(t, l, "maya")
	require.Len(t, all, 1, "streams are counted")

	refused(n.check(t, "observe", "/vod/film/1.ts?sid=b"), "limit")
	assert.Equal(t, all, streams(t, l, "maya"), "it starts nothing and evicts nothing")
	refused(n.checkAs(t, "observe", http.MethodGet, "/vod/film/1.ts?sid=b", ""), "identity")
	refused(n.check(t, "observe", "/vod/a%2Fb/1.ts"), "uri")
	_, err := l.Stop(t.Context(), "maya", all[0].ID)
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		return n.check(t, "vod", "/vod/film/1.ts?sid=a").reason() == "stopped"
	}, soon, time.Millisecond, "a profile that does not observe refuses")
	refused(n.check(t, "observe", "/vod/film/1.ts?sid=a"), "stopped")
	n.SetBackend(Backend{Limiter: unavailable{l}, Key: make([]byte, 32)})
	refused(n.check(t, "observe", "/vod/film/1.ts?sid=c"), "unavailable")

	text := "# HELP streamcount_edge_would_refuse_total Requests of players that were allowed because the profile only observes " +
		"(observe: true), by the reason of the refusal.\n# TYPE streamcount_edge_would_refuse_total counter\n"
	for reason, n := range wants {
		text += fmt.Sprintf("streamcount_edge_would_refuse_total{profile=\"observe\",reason=%q} %d\n", reason, n)
	}
	require.NoError(t, testutil.CollectAndCompare(cfg.Metrics, strings.NewReader(text), "streamcount_edge_would_refuse_total"))
	assert.Contains(t, log.String(), "user=maya reason=limit")

	n.cfg.Allow = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	refused(n.check(t, "observe", "/vod/film/1.ts?sid=a"), "edge-key")
	assert.Equal(t, 403, n.check(t, "vod", "/vod/film/1.ts?sid=a").StatusCode)
	assert.Equal(t, 403, send(t, http.MethodPost, n.url+"/edge/v1/observe/explain", nil).StatusCode)
	assert.Equal(t, 403, send(t, http.MethodPost, n.url+"/edge/v1/observe/leave?sid=a", nil).StatusCode)
}

// An explanation shows what the profile would decide, and that it only observes.
func TestObserve_Explain(t *testing.T) {
	t.Parallel()
	n, _ := startNode(t)
	require.Equal(t, 200, n.check(t, "observe", "/vod/film/1.ts?sid=a").StatusCode)
	p := (*n.profiles.Load())["observe"].Profile
	r := profile.Request{Method: http.MethodGet, Target: "/vod/film/1.ts?sid=b", Header: http.Header{"X-User": {"maya"}}}
	got := n.Explain(t.Context(), p, r)
	assert.Equal(t, "deny", got.Decision)
	assert.Equal(t, "limit", got.Reason)
	assert.True(t, got.Observe)
	assert.False(t, n.Explain(t.Context(), (*n.profiles.Load())["vod"].Profile, r).Observe)
}
