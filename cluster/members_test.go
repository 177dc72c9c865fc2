package cluster

import (
	"cmp"
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/testing/etcdtest"
)

// patient is a call timeout that no call of a test reaches, unless it waits in vain.
const patient = time.Minute

// keep returns a client that uses healthy members only.
func keep(t *testing.T, cfg ClientConfig, near ...string) (*Members, *clientv3.Client) {
	t.Helper()
	cfg.CallTimeout = cmp.Or(cfg.CallTimeout, patient)
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

// awaitPut puts a value. On a slow machine a put may be cancelled, because a member did not
// answer a check in time.
func awaitPut(t *testing.T, c *clientv3.Client, value string) {
	t.Helper()
	require.Eventually(t, func() bool {
		_, err := c.Put(t.Context(), "x", value)
		return err == nil
	}, soon, time.Millisecond)
}

// Calls leave a member that hangs. The member is used again when it answers.
func TestMembers_Hanging(t *testing.T) {
	t.Parallel()
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
	assert.Less(t, time.Since(began), patient/2, "no call waits for the deadline")
	rest := slices.Delete(slices.Clone(cl.config().Endpoints), follower, follower+1)
	awaitUsed(t, m, rest...)
	cl.relays[follower].Thaw()
	awaitUsed(t, m, cl.config().Endpoints...)
}

// Calls go to members of the own region while they are healthy.
func TestMembers_NearFirst(t *testing.T) {
	t.Parallel()
	cl := startRelayed(t)
	near := (cl.Leader(t) + 1) % 3
	m, c := keep(t, cl.config(), cl.address(near))
	awaitUsed(t, m, cl.address(near))
	awaitPut(t, c, "1")
	cl.relays[near].Freeze()
	rest := slices.Delete(slices.Clone(cl.config().Endpoints), near, near+1)
	awaitUsed(t, m, rest...)
	awaitPut(t, c, "2")
	cl.relays[near].Thaw()
	awaitUsed(t, m, cl.address(near))

	// A member that responds but has no leader is not used either.
	for i := range 3 {
		if i != near {
			cl.Members[i].Embed().Server.PauseSending()
			defer cl.Members[i].Embed().Server.ResumeSending()
		}
	}
	awaitUsed(t, m, cl.config().Endpoints...) // all are used: none is healthy
}

// A write to a former leader fails before its deadline. Other calls are not interrupted.
func TestMembers_LeaderChanges(t *testing.T) {
	t.Parallel()
	cl := startRelayed(t)
	leader := cl.Leader(t)
	near, next := (leader+1)%3, (leader+2)%3
	m, c := keep(t, cl.config(), cl.address(near))
	awaitUsed(t, m, cl.address(near))
	awaitPut(t, c, "1")
	require.Eventually(t, func() bool { // it has received the leader
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
	assert.Less(t, time.Since(began), patient/2, "no call waits for the deadline")
	awaitPut(t, c, "3")
}

// A learner serves neither writes nor linearizable reads. It is not used, even in the own region,
// until it is a voting member.
func TestMembers_Learner(t *testing.T) {
	t.Parallel()
	cl := etcdtest.StartCluster(t, 1)
	learner := cl.AddLearner(t)
	voter, endpoint := cl.Members[0].Endpoint(), learner.Endpoint()
	cfg := ClientConfig{Endpoints: []string{endpoint, voter}}
	c, err := Connect(t.Context(), cfg)
	require.NoError(t, err)
	require.NoError(t, c.Close())

	m, c := keep(t, cfg, endpoint)
	awaitUsed(t, m, voter)
	for range 6 {
		awaitPut(t, c, "1")
	}
	awaitAddress(t, follow(t, cfg), voter)
	alone := dial(t, ClientConfig{Endpoints: []string{endpoint}})
	require.ErrorContains(t, Ready(t.Context(), alone, "/p"), "learner")

	require.Eventually(t, func() bool { // once it has caught up
		_, err := c.MemberPromote(t.Context(), uint64(learner.Embed().Server.MemberID()))
		return err == nil
	}, soon, 50*time.Millisecond)
	awaitUsed(t, m, endpoint)
}

// An address may be that of a load balancer. Calls, watches and renewals leave a member behind it
// that hangs within seconds.
func TestMembers_OneAddress(t *testing.T) {
	t.Parallel()
	cl := startRelayed(t)
	balancer := etcdtest.NewRelay(t)
	first := (cl.Leader(t) + 1) % 3
	balancer.To(cl.address(first))
	cfg := ClientConfig{Endpoints: []string{"http://" + balancer.Address()}}
	_, c := keep(t, cfg)
	put(t, c, "x", "0")
	events := c.Watch(t.Context(), "x")
	put(t, c, "x", "1")
	require.Len(t, (<-events).Events, 1)
	lease, err := c.Grant(t.Context(), 60)
	require.NoError(t, err)

	cl.relays[first].Freeze()
	balancer.To(cl.address((first + 1) % 3))
	began := time.Now()
	awaitPut(t, c, "2")
	got := <-events
	require.NotEmpty(t, got.Events)
	require.NoError(t, renewOnStream(t.Context(), c, lease.ID))
	t.Log("served again after", time.Since(began))

	cl.relays[first].Thaw()
	put(t, c, "x", "3")
}

// The leader's own address may be unreachable from here, while that of a load
// balancer works.
func TestLeaderLease_OneAddress(t *testing.T) {
	t.Parallel()
	nowhere := etcdtest.Config{Advertise: "http://127.0.0.1:1"}
	cl := etcdtest.StartClusterOf(t, nowhere, nowhere, nowhere)
	balancer := etcdtest.NewRelay(t)
	balancer.To(cl.Members[(cl.Leader(t)+1)%3].Endpoint())
	cfg := ClientConfig{Endpoints: []string{"http://" + balancer.Address()}}
	l := follow(t, cfg)
	stream := openRenewals(t, l)
	for range 5 {
		require.NoError(t, stream.renew(t))
	}
	require.Eventually(t, func() bool { id, _ := l.Leader(); return id != 0 }, soon, time.Millisecond)
	for {
		err := stream.renew(t)
		if err == nil {
			break
		}
		stream = openRenewals(t, l)
	}
	_, address := l.Leader()
	assert.Empty(t, address, "it is not reached directly")
}
