package lease

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/etcdtest"
)

const soon = 30 * time.Second

func awaitCircuit(t *testing.T, open bool, nodes ...*Limiter) {
	t.Helper()
	for _, l := range nodes {
		require.Eventually(t, func() bool { return l.circuit.open.Load() == open }, soon, time.Millisecond, "open: %v", open)
	}
}

// A dead etcd is found out, calls fail at once, heartbeats are answered, and
// everything goes on when it is back.
func TestCircuit_DeadEtcd(t *testing.T) {
	m := etcdtest.Start(t, etcdtest.Config{})
	l := newLimiter(t, m.Client(t), Config{Limit: 3})
	st := mustStart(t, l, "maya", Request{})
	m.Stop()
	awaitCircuit(t, true, l)
	began := time.Now()
	_, err := l.Start(t.Context(), "maya", Request{})
	require.ErrorIs(t, err, ErrUnavailable)
	require.ErrorIs(t, err, errCircuitOpen)
	_, err = l.List(t.Context(), "maya", Linearizable)
	require.ErrorIs(t, err, ErrUnavailable)
	_, err = l.Stop(t.Context(), "ben", l.ids.sign("ben", ident{lease: 7}))
	require.ErrorIs(t, err, ErrUnavailable)
	s, err := l.Heartbeat(t.Context(), "maya", st.Stream.ID)
	require.NoError(t, err)
	t.Logf("four calls in %v, degraded %v", time.Since(began), s.Degraded)
	assert.Less(t, time.Since(began), l.cfg.Timeout/2, "nobody waits for a deadline")

	m.Restart(t)
	awaitCircuit(t, false, l)
	require.Eventually(t, func() bool {
		s, err := l.Heartbeat(t.Context(), "maya", st.Stream.ID)
		return err == nil && !s.Degraded
	}, soon, time.Millisecond)
	_, err = l.Start(t.Context(), "maya", Request{})
	require.NoError(t, err)
}

// Two nodes admit on what they know while etcd is away. When it is back, as many
// streams go on as the limit allows, and the others learn that they are over it.
func TestOutage_Admit(t *testing.T) {
	m := etcdtest.Start(t, etcdtest.Config{})
	cfg := Config{Limit: 3, Outage: OutageAdmit}
	one, two := newLimiter(t, m.Client(t), cfg), newLimiter(t, m.Client(t), cfg)
	nodes := []*Limiter{one, two}
	kept := mustStart(t, one, "maya", Request{})
	require.Eventually(t, func() bool {
		u, err := two.List(t.Context(), "maya", Bounded)
		return err == nil && u.Count == 1
	}, soon, time.Millisecond)
	m.Stop()
	awaitCircuit(t, true, nodes...)

	ids := map[string]*Limiter{}
	for _, l := range nodes {
		for want := 2; want <= 3; want++ {
			began := time.Now()
			st := mustStart(t, l, "maya", Request{})
			assert.Less(t, time.Since(began), time.Second)
			assert.True(t, st.Stream.Degraded)
			assert.Equal(t, want, st.Count)
			ids[st.Stream.ID] = l
		}
		_, err := l.Start(t.Context(), "maya", Request{})
		var full *LimitError
		require.ErrorAs(t, err, &full, "each node counts what it has admitted")
		assert.Len(t, full.Active, 3)
	}
	stopped := mustStart(t, one, "ben", Request{})
	again, err := one.Start(t.Context(), "ben", Request{Session: "s"})
	require.NoError(t, err)
	moved, err := one.Start(t.Context(), "ben", Request{Session: "s"})
	require.NoError(t, err)
	_, err = one.Stop(t.Context(), "ben", stopped.Stream.ID)
	require.NoError(t, err)
	for id, l := range ids {
		s, err := l.Heartbeat(t.Context(), "maya", id)
		require.NoError(t, err)
		assert.True(t, s.Degraded)
	}

	m.Restart(t)
	awaitCircuit(t, false, nodes...)
	for _, l := range nodes {
		require.Eventually(t, func() bool { return len(l.pending.all()) == 0 }, soon, time.Millisecond)
	}
	u, err := one.List(t.Context(), "maya", Linearizable)
	require.NoError(t, err)
	assert.Equal(t, 3, u.Count, "never more than the limit in etcd")
	alive, over := 0, 0
	for id, l := range ids {
		_, err := l.Heartbeat(t.Context(), "maya", id)
		var ended *EndedError
		switch {
		case err == nil:
			alive++
		case errors.As(err, &ended) && ended.Reason == ReasonEvicted:
			over++
		default:
			require.NoError(t, err)
		}
	}
	assert.Equal(t, []int{2, 2}, []int{alive, over})
	s, err := one.Heartbeat(t.Context(), "maya", kept.Stream.ID)
	require.NoError(t, err, "who was there before is not touched")
	assert.False(t, s.Degraded)

	u, err = two.List(t.Context(), "ben", Linearizable)
	require.NoError(t, err)
	require.Len(t, u.Active, 1, "the one that took over")
	assert.Equal(t, moved.Stream.ID, u.Active[0].ID)
	assert.NotEqual(t, again.Stream.ID, moved.Stream.ID)
	_, err = two.Stop(t.Context(), "ben", moved.Stream.ID)
	require.NoError(t, err, "it is a stream like any other now")
}

// A node that has never seen what users hold admits nobody.
func TestOutage_NodeThatKnowsNothing(t *testing.T) {
	l, err := New(Over(etcdtest.Client(t)), Config{Limit: 3, Outage: OutageAdmit, Secret: testSecret})
	require.NoError(t, err)
	l.circuit.open.Store(true)
	_, err = l.Start(t.Context(), "maya", Request{})
	require.ErrorIs(t, err, ErrUnavailable)
}
