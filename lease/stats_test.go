package lease

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/internal/replica"
	"streamcount/lease/policy"
)

// Each call is counted once, under its outcome.
func TestStats_Outcomes(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 2, Region: "eu"})
	a := mustStart(t, l, "maya", Request{}).Stream
	b := mustStart(t, l, "maya", Request{Session: "tab"}).Stream
	mustStart(t, l, "maya", Request{Session: "tab"})
	mustStart(t, l, "maya", Request{OnLimit: policy.ReplaceOldest})
	_, err := l.Start(t.Context(), "maya", Request{})
	require.ErrorIs(t, err, ErrLimit)
	_, err = l.Start(t.Context(), "no\tuser", Request{})
	require.ErrorIs(t, err, ErrBadUser)
	hungUp, hangUp := context.WithCancel(t.Context())
	hangUp()
	_, err = l.Start(hungUp, "ben", Request{})
	require.Error(t, err)
	last := mustStart(t, l, "ben", Request{}).Stream
	require.Eventually(t, func() bool { return l.Stats().Streams == 3 }, soon, time.Millisecond)
	_, err = l.Heartbeat(t.Context(), "ben", last.ID)
	require.NoError(t, err)
	for _, id := range []string{a.ID, b.ID} {
		_, err = l.Heartbeat(t.Context(), "maya", id)
		require.ErrorIs(t, err, ErrEnded)
	}
	_, err = l.Heartbeat(t.Context(), "ben", "zzz")
	require.Error(t, err)
	_, err = l.Stop(t.Context(), "ben", last.ID)
	require.NoError(t, err)
	_, err = l.Stop(t.Context(), "ben", last.ID)
	require.ErrorIs(t, err, ErrEnded)
	_, err = l.Remove(t.Context(), "eve")
	require.ErrorIs(t, err, ErrNoStreams)

	m := l.Stats()
	assert.Equal(t, map[string]int64{
		"admitted": 3, "took-over": 1, "evicted": 1, "refused": 1, "invalid": 1, "abandoned": 1,
		"provisional": 0, "unavailable": 0,
	}, m.Starts)
	assert.Equal(t, map[string]int64{"alive": 1, "ended": 2, "invalid": 1, "degraded": 0}, m.Heartbeats)
	assert.Equal(t, map[string]int64{"stopped": 1, "gone": 2, "unavailable": 0, "invalid": 0}, m.Stops)
	assert.EqualValues(t, 1, m.Renewals["coalesced"])
	assert.GreaterOrEqual(t, m.BatchSize.Sum, 6.0, "starts that were admitted, and stops")
	assert.EqualValues(t, m.BatchSize.Sum, m.BatchWait.Count)
	assert.Positive(t, m.Calls["write"].Count)
	assert.Positive(t, m.Calls["read"].Sum)
	assert.Positive(t, m.Calls["grant"].Count)
	assert.Positive(t, m.Leases["granted"])
	assert.Zero(t, m.LeaderChanges)
	require.Eventually(t, func() bool {
		m := l.Stats()
		return m.ReplicaAge < replica.MaxProgressAge && m.ReplicaCurrent
	}, soon, time.Millisecond)
}

// Users are counted by their number of streams. A number that was reported once stays, with 0.
func TestStats_UsersByStreams(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 2, Region: "eu"})
	assert.Equal(t, map[int]int{1: 0, 2: 0}, l.Stats().Users)
	assert.Equal(t, map[string]int{"eu": 0}, l.Stats().Regions)
	limit := 4
	for range 3 {
		mustStart(t, l, "maya", Request{Limit: &limit})
	}
	mustStart(t, l, "ben", Request{})
	require.Eventually(t, func() bool { return l.Stats().Streams == 4 }, soon, time.Millisecond)
	assert.Equal(t, map[int]int{1: 1, 2: 0, 3: 1}, l.Stats().Users)
	assert.Equal(t, map[string]int{"eu": 4}, l.Stats().Regions)
	_, err := l.Remove(t.Context(), "maya")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return l.Stats().Streams == 1 }, soon, time.Millisecond)
	assert.Equal(t, map[int]int{1: 1, 2: 0, 3: 0}, l.Stats().Users)
}

// While etcd does not answer, the breaker is open, calls fail, and the replica ages.
func TestStats_DeadEtcd(t *testing.T) {
	t.Parallel()
	etcd := etcdtest.Start(t, etcdtest.Config{})
	l := newLimiter(t, etcd.Client(t), Config{Limit: 3, Timeout: 10 * time.Second})
	etcd.Stop()
	awaitBreaker(t, true, l)
	_, err := l.Start(t.Context(), "maya", Request{})
	require.ErrorIs(t, err, ErrUnavailable)
	require.Eventually(t, func() bool { return !l.Stats().ReplicaCurrent }, soon, time.Millisecond)
	m := l.Stats()
	assert.True(t, m.BreakerOpen)
	assert.EqualValues(t, 1, m.BreakerOpenings)
	assert.EqualValues(t, 1, m.Starts["unavailable"])
	assert.Positive(t, m.CallsFailed["read"])
	assert.GreaterOrEqual(t, m.ReplicaAge, replica.MaxProgressAge)
}

// A leader change is counted when an answer has a higher raft term.
func TestStats_LeaderChange(t *testing.T) {
	t.Parallel()
	cluster := etcdtest.StartCluster(t, 3)
	l := newLimiter(t, cluster.Client(t), Config{Limit: 3})
	mustStart(t, l, "maya", Request{})
	require.Zero(t, l.Stats().LeaderChanges)
	cluster.Stop(cluster.Leader(t))
	require.Eventually(t, func() bool { return l.Stats().LeaderChanges >= 1 }, soon, time.Millisecond)
}
