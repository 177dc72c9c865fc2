package lease

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/etcdtest"
)

// Each outcome is counted once, where it belongs.
func TestMeasures_Outcomes(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 2, Region: "eu"})
	a := mustStart(t, l, "maya", Request{}).Stream
	b := mustStart(t, l, "maya", Request{Session: "tab"}).Stream
	mustStart(t, l, "maya", Request{Session: "tab"})
	mustStart(t, l, "maya", Request{OnLimit: ReplaceOldest})
	_, err := l.Start(t.Context(), "maya", Request{})
	require.ErrorIs(t, err, ErrLimit)
	_, err = l.Start(t.Context(), "no user", Request{})
	require.ErrorIs(t, err, ErrBadUser)
	hungUp, hangUp := context.WithCancel(t.Context())
	hangUp()
	_, err = l.Start(hungUp, "ben", Request{})
	require.Error(t, err)
	last := mustStart(t, l, "ben", Request{}).Stream
	require.Eventually(t, func() bool { return l.Measures().Streams == 3 }, soon, time.Millisecond)
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

	m := l.Measures()
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
	assert.Less(t, m.ViewAge, viewStale)
	assert.True(t, m.ViewCurrent)
}

// What the view knows: users by number, and numbers that were seen stay with 0.
func TestMeasures_View(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 2, Region: "eu"})
	assert.Equal(t, map[int]int{1: 0, 2: 0}, l.Measures().Users)
	assert.Equal(t, map[string]int{"eu": 0}, l.Measures().Regions)
	limit := 4
	for range 3 {
		mustStart(t, l, "maya", Request{Limit: &limit})
	}
	mustStart(t, l, "ben", Request{})
	require.Eventually(t, func() bool { return l.Measures().Streams == 4 }, soon, time.Millisecond)
	assert.Equal(t, map[int]int{1: 1, 2: 0, 3: 1}, l.Measures().Users)
	assert.Equal(t, map[string]int{"eu": 4}, l.Measures().Regions)
	_, err := l.Remove(t.Context(), "maya")
	require.NoError(t, err)
	require.Eventually(t, func() bool { return l.Measures().Streams == 1 }, soon, time.Millisecond)
	assert.Equal(t, map[int]int{1: 1, 2: 0, 3: 0}, l.Measures().Users)
}

// A dead etcd shows in the circuit, in failed calls and in the age of the view.
func TestMeasures_DeadEtcd(t *testing.T) {
	etcd := etcdtest.Start(t, etcdtest.Config{})
	l := newLimiter(t, etcd.Client(t), Config{Limit: 3})
	etcd.Stop()
	awaitCircuit(t, true, l)
	_, err := l.Start(t.Context(), "maya", Request{})
	require.ErrorIs(t, err, ErrUnavailable)
	require.Eventually(t, func() bool { return !l.Measures().ViewCurrent }, soon, time.Millisecond)
	m := l.Measures()
	assert.True(t, m.CircuitOpen)
	assert.EqualValues(t, 1, m.CircuitOpened)
	assert.EqualValues(t, 1, m.Starts["unavailable"])
	assert.Positive(t, m.CallsFailed["read"])
	assert.GreaterOrEqual(t, m.ViewAge, viewStale)
}

// An election is noticed by the term of the answers.
func TestMeasures_LeaderChange(t *testing.T) {
	cluster := etcdtest.StartCluster(t, 3)
	l := newLimiter(t, cluster.Client(t), Config{Limit: 3})
	mustStart(t, l, "maya", Request{})
	require.Zero(t, l.Measures().LeaderChanges)
	cluster.Stop(cluster.Leader(t))
	require.Eventually(t, func() bool { return l.Measures().LeaderChanges >= 1 }, soon, time.Millisecond)
}

// Expiries are a counter: the view takes one back when it learns better, and what
// is shown never falls.
func TestMeasures_ExpiredNeverFalls(t *testing.T) {
	l, err := New(Etcd{}, Config{Limit: 3, Secret: testSecret})
	require.NoError(t, err)
	l.view.lapsed.Store(5)
	assert.EqualValues(t, 5, l.Measures().Expired)
	l.view.lapsed.Add(-1)
	assert.EqualValues(t, 5, l.Measures().Expired)
	l.view.lapsed.Add(2)
	assert.EqualValues(t, 6, l.Measures().Expired)
}

func TestHistogram(t *testing.T) {
	h := newHistogram([]int64{1, 4, 16}, 1)
	for _, v := range []int64{1, 2, 4, 5, 16, 17, 100} {
		h.add(v)
	}
	d := h.read()
	assert.Equal(t, map[float64]uint64{1: 1, 4: 3, 16: 5}, d.Most)
	assert.EqualValues(t, 7, d.Count)
	assert.InDelta(t, 145, d.Sum, 0)
	seconds := newHistogram(boundsOf(time.Second), 1e9)
	seconds.add(int64(500 * time.Millisecond))
	assert.Equal(t, Distribution{Count: 1, Sum: 0.5, Most: map[float64]uint64{1: 1}}, seconds.read())
}

// What is noted of one call to etcd, and of one that a write waited for.
func BenchmarkMeasures_Called(b *testing.B) {
	m := newMeasures()
	for b.Loop() {
		began, span := m.begin(b.Context(), callWrite)
		m.called(callWrite, began, 1, nil)
		endCall(span, nil)
	}
}
