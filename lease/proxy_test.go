package lease

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/etcdtest"
	"streamcount/internal/testing/longtest"
	"streamcount/lease/policy"
)

// Behind etcd's gRPC proxy, which answers no progress requests and merges watches and
// renewals, a node receives the changes of all nodes, and its streams expire after their TTL.
func TestGRPCProxy(t *testing.T) {
	longtest.Require(t)
	t.Parallel()
	m := etcdtest.Start(t, etcdtest.Config{})
	proxy := etcdtest.StartGRPCProxy(t, m.Endpoint())
	var logged bytes.Buffer
	cfg := Config{Limit: 3, TTL: 3 * MinTTL}
	direct := newLimiter(t, m.Client(t), cfg)
	cfg.Log = slog.New(slog.NewTextHandler(&logged, nil))
	began := time.Now()
	l := newLimiter(t, etcdtest.FaultyClient(t, []string{proxy}, nil), cfg)
	assert.Less(t, time.Since(began), soon)
	second := newLimiter(t, etcdtest.FaultyClient(t, []string{proxy}, nil), Config{Limit: 3, TTL: 3 * MinTTL})
	nodes := []*Limiter{l, second, direct}

	silent := mustStart(t, l, "maya", Request{}).Stream
	alive := mustStart(t, direct, "maya", Request{}).Stream
	third := mustStart(t, second, "maya", Request{}).Stream
	for _, node := range nodes {
		_, err := node.Start(t.Context(), "maya", Request{})
		require.ErrorIs(t, err, ErrLimit)
		require.Eventually(t, func() bool {
			tot, err := node.Totals(t.Context())
			return err == nil && tot.Streams == 3
		}, soon, 10*time.Millisecond)
	}
	_, err := second.Stop(t.Context(), "maya", third.ID)
	require.NoError(t, err)
	stopped := time.Now()
	var freed time.Duration
	for i := 0; time.Since(began) < 4*MinTTL+5*time.Second && freed == 0 || i < 50; i++ {
		s, err := nodes[i%3].Heartbeat(t.Context(), "maya", alive.ID)
		require.NoError(t, err, "heartbeat %d", i)
		require.False(t, s.Degraded, "heartbeat %d", i)
		require.True(t, l.replica.Current() && second.replica.Current(), "heartbeat %d", i)
		_, err = nodes[i%3].Heartbeat(t.Context(), "maya", third.ID)
		require.ErrorIs(t, err, ErrEnded)
		if time.Since(stopped) < cfg.TTL/2 { // tombstones expire
			requireEnded(t, err, policy.ReasonStopped)
		}
		if freed == 0 && keysOf(t, direct, "maya") == 1 {
			freed = time.Since(silent.StartedAt)
		}
		<-time.After(100 * time.Millisecond)
	}
	t.Logf("a silent stream was gone after %v", freed.Round(100*time.Millisecond))
	assert.NotZero(t, freed)
	for _, node := range nodes {
		_, err := node.Heartbeat(t.Context(), "maya", silent.ID)
		requireEnded(t, err, policy.ReasonExpired)
	}
	assert.True(t, l.replica.NeedsBeacons())
	assert.False(t, direct.replica.NeedsBeacons())
	assert.Equal(t, 1, strings.Count(logged.String(), "does not answer progress requests"), logged.String())
}
