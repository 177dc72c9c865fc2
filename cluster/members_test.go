package cluster

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// keep returns a client that is kept to members that are well.
func keep(t *testing.T, cfg ClientConfig, near ...string) (*Members, *clientv3.Client) {
	t.Helper()
	m := NewMembers(cfg, near)
	c := dial(t, m.Config())
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx, c) }()
	t.Cleanup(func() {
		stop()
		assert.NoError(t, <-done)
	})
	return m, c
}

func awaitUsed(t *testing.T, m *Members, want ...string) {
	t.Helper()
	slices.Sort(want)
	require.Eventually(t, func() bool {
		got := m.Used()
		slices.Sort(got)
		return slices.Equal(got, want)
	}, soon, time.Millisecond, "want %v", want)
}

// A member that hangs is left, with the calls that wait there, and used again when
// it answers.
func TestMembers_Hanging(t *testing.T) {
	cl := startRelayed(t)
	m, c := keep(t, cl.config())
	follower := (cl.Leader(t) + 1) % 3
	for range 6 { // every member has been spoken to
		_, err := c.Get(t.Context(), "x")
		require.NoError(t, err)
	}
	cl.relays[follower].Freeze()
	began := time.Now()
	for range 6 {
		_, err := c.Get(t.Context(), "x")
		require.NoError(t, err, "reads begin again")
	}
	t.Log("six reads in", time.Since(began))
	assert.Less(t, time.Since(began), defaultCallTimeout, "nobody waited for the deadline")
	rest := slices.Delete(slices.Clone(cl.config().Endpoints), follower, follower+1)
	awaitUsed(t, m, rest...)
	cl.relays[follower].Thaw()
	awaitUsed(t, m, cl.config().Endpoints...)
}

// Calls go to the region's own members while they are fit for use.
func TestMembers_NearFirst(t *testing.T) {
	cl := startRelayed(t)
	near := (cl.Leader(t) + 1) % 3
	m, c := keep(t, cl.config(), cl.address(near))
	awaitUsed(t, m, cl.address(near))
	_, err := c.Put(t.Context(), "x", "1")
	require.NoError(t, err)
	cl.relays[near].Freeze()
	rest := slices.Delete(slices.Clone(cl.config().Endpoints), near, near+1)
	awaitUsed(t, m, rest...)
	_, err = c.Put(t.Context(), "x", "2")
	require.NoError(t, err)
	cl.relays[near].Thaw()
	awaitUsed(t, m, cl.address(near))

	// One that answers but knows no leader is of no use either.
	for i := range 3 {
		if i != near {
			cl.Members[i].Embed().Server.PauseSending()
			defer cl.Members[i].Embed().Server.ResumeSending()
		}
	}
	awaitUsed(t, m, cl.config().Endpoints...) // all the same: nobody is well
}

// A write that was on its way to a leader that went is not waited for until its
// deadline, while those that go on well are left alone.
func TestMembers_LeaderChanges(t *testing.T) {
	cl := startRelayed(t)
	leader := cl.Leader(t)
	near, next := (leader+1)%3, (leader+2)%3
	m, c := keep(t, cl.config(), cl.address(near))
	awaitUsed(t, m, cl.address(near))
	_, err := c.Put(t.Context(), "x", "1")
	require.NoError(t, err)
	require.Eventually(t, func() bool { // it has heard of the leader
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.leader != 0
	}, soon, time.Millisecond)

	cl.Members[near].Embed().Server.PauseSending() // what it passes on is lost
	began := time.Now()
	lost := make(chan error, 1)
	go func() {
		_, err := c.Put(t.Context(), "x", "2")
		lost <- err
	}()
	require.Never(t, func() bool { return len(lost) > 0 }, 100*time.Millisecond, 10*time.Millisecond)
	cl.Members[near].Embed().Server.ResumeSending()
	cl.MoveLeader(t, next)
	require.Error(t, <-lost, "its outcome is unknown")
	t.Log("broken off after", time.Since(began))
	assert.Less(t, time.Since(began), defaultCallTimeout-500*time.Millisecond, "nobody waited for the deadline")
	_, err = c.Put(t.Context(), "x", "3")
	require.NoError(t, err)
}
