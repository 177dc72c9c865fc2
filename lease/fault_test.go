package lease

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/testing/etcdtest"
	"streamcount/internal/testing/longtest"
	"streamcount/lease/policy"
)

// faultyLimiter is a Limiter whose etcd client injects faults. The client direct injects none
// on the same server.
type faultyLimiter struct {
	*Limiter
	faults *etcdtest.Faults
	direct *clientv3.Client
}

func newFaultyLimiter(t *testing.T, cfg Config) faultyLimiter {
	t.Helper()
	m := etcdtest.Start(t, etcdtest.Config{})
	f := &etcdtest.Faults{}
	l := newLimiter(t, etcdtest.FaultyClient(t, []string{m.Endpoint()}, f), cfg)
	t.Cleanup(f.Heal)
	return faultyLimiter{l, f, m.Client(t)}
}

// requireKeys waits until maya has exactly n keys.
func (r faultyLimiter) requireKeys(t *testing.T, n int64) {
	t.Helper()
	require.Eventually(t, func() bool {
		resp, err := r.direct.Get(context.Background(), r.keys.UserPrefix("maya"), clientv3.WithPrefix(), clientv3.WithCountOnly())
		return err == nil && resp.Count == n
	}, time.Minute, 10*time.Millisecond, "maya has %d keys", n)
}

// Each request and each reply of a start is lost once. The start still succeeds, occupies
// one slot, and leaves no other lease.
func TestStart_SurvivesALostMessage(t *testing.T) {
	t.Parallel()
	starts := map[string]Request{
		"plain":   {},
		"session": {Session: "tab"},
		"evict":   {OnLimit: policy.ReplaceOldest},
	}
	for name, req := range starts {
		for _, method := range []string{etcdtest.Grant, etcdtest.Txn, etcdtest.Range} {
			for _, side := range []string{"request", "reply"} {
				t.Run(name+"/"+method[len("/etcdserverpb."):]+"/"+side, func(t *testing.T) {
					r := newFaultyLimiter(t, Config{Limit: 1})
					held := mustStart(t, r.Limiter, "maya", Request{Session: "tab"}).Stream // evicted, taken over, or stopped below
					if name == "plain" {
						_, err := r.Stop(t.Context(), "maya", held.ID)
						require.NoError(t, err)
					}
					if side == "request" {
						r.faults.CutRequest(method, 1)
					} else {
						r.faults.CutReply(method, 1)
					}
					st, err := r.Start(t.Context(), "maya", req)
					require.NoError(t, err)
					assert.Equal(t, 1, st.Count)
					r.requireKeys(t, 1)
					s, err := r.Heartbeat(t.Context(), "maya", st.Stream.ID)
					require.NoError(t, err)
					assert.False(t, s.Degraded)
					requireStreamLeases(t, r.direct, 1, r.Limiter)
				})
			}
		}
	}
}

// A start whose outcome is still unknown at its deadline is an error. The lease that it
// wrote under is revoked when etcd can be reached again.
func TestStart_UnknownOutcomeIsAbandoned(t *testing.T) {
	t.Parallel()
	r := newFaultyLimiter(t, Config{Limit: 3})
	release := r.faults.HoldReply(etcdtest.Txn)
	_, err := r.Start(shortCall(t), "maya", Request{})
	require.ErrorIs(t, err, ErrUnavailable)
	release()
	r.requireKeys(t, 0)
	requireStreamLeases(t, r.direct, 0, r.Limiter)

	// If reads and revokes are lost as well, only the background cleaner can delete the key.
	releases := []func(){
		r.faults.HoldReply(etcdtest.Txn), r.faults.Hold(etcdtest.Range), r.faults.Hold(etcdtest.Revoke),
	}
	_, err = r.Start(shortCall(t), "maya", Request{})
	require.ErrorIs(t, err, ErrUnavailable)
	r.requireKeys(t, 1) // the key of the failed start
	for _, release := range releases {
		release()
	}
	r.requireKeys(t, 0)
	requireStreamLeases(t, r.direct, 0, r.Limiter)
}

// A caller that disconnects before the answer leaves no key.
func TestStart_CallerDisconnects(t *testing.T) {
	r := newFaultyLimiter(t, Config{Limit: 3})
	release := r.faults.HoldReply(etcdtest.Txn)
	ctx, cancel := context.WithCancel(t.Context())
	got := make(chan error, 1)
	go func() {
		_, err := r.Start(ctx, "maya", Request{})
		got <- err
	}()
	r.requireKeys(t, 1)
	cancel()
	release()
	require.ErrorIs(t, <-got, context.Canceled)
	r.requireKeys(t, 0)
	requireStreamLeases(t, r.direct, 0, r.Limiter)
}

func TestStop_SurvivesALostMessage(t *testing.T) {
	t.Parallel()
	for _, side := range []string{"request", "reply"} {
		for _, call := range []string{"stop", "oldest heartbeat", "remove"} {
			t.Run(call+"/"+side, func(t *testing.T) {
				r := newFaultyLimiter(t, Config{Limit: 3})
				s := mustStart(t, r.Limiter, "maya", Request{}).Stream
				if side == "request" {
					r.faults.CutRequest(etcdtest.Txn, 1)
				} else {
					r.faults.CutReply(etcdtest.Txn, 1)
				}
				var err error
				var u Usage
				switch call {
				case "stop":
					u, err = r.Stop(t.Context(), "maya", s.ID)
				case "oldest heartbeat":
					u, err = r.StopOldestHeartbeat(t.Context(), "maya")
				case "remove":
					u, err = r.Remove(t.Context(), "maya")
				}
				require.NoError(t, err)
				assert.Zero(t, u.Count)
				r.requireKeys(t, 0)
				_, err = r.Heartbeat(t.Context(), "maya", s.ID)
				assert.ErrorIs(t, err, ErrEnded)
			})
		}
	}
}

// A removal whose answer is lost does not end a stream that was started after it.
func TestRemove_IsCarriedOutOnce(t *testing.T) {
	t.Parallel()
	r := newFaultyLimiter(t, Config{Limit: 3})
	other := newLimiter(t, r.direct, Config{Prefix: r.cfg.Prefix, Limit: 3})
	mustStart(t, r.Limiter, "maya", Request{})
	r.faults.CutReply(etcdtest.Txn, 1)
	release := r.faults.HoldReply(etcdtest.Txn)
	removed := make(chan error, 1)
	go func() {
		_, err := r.Remove(context.Background(), "maya")
		removed <- err
	}()
	r.requireKeys(t, 0)
	later := mustStart(t, other, "maya", Request{}).Stream
	release()
	require.NoError(t, <-removed)
	s, err := other.Heartbeat(t.Context(), "maya", later.ID)
	require.NoError(t, err, "it was started after the removal")
	assert.False(t, s.Degraded)
	assert.Equal(t, 1, keysOf(t, other, "maya"))
}

// A stop that etcd did not answer in time is carried out when etcd answers again.
func TestStop_IsCarriedOutLater(t *testing.T) {
	t.Parallel()
	r := newFaultyLimiter(t, Config{Limit: 3})
	s := mustStart(t, r.Limiter, "maya", Request{}).Stream
	release := r.faults.Hold(etcdtest.Txn)
	_, err := r.Stop(shortCall(t), "maya", s.ID)
	require.ErrorIs(t, err, ErrUnavailable)
	release()
	r.requireKeys(t, 0)
}

// A stop whose outcome is unknown has not ended the stream yet. Until etcd has carried it
// out, the heartbeats of the stream are answered as before, and its slot is occupied.
func TestStop_UnknownOutcomeIsNotAnEnding(t *testing.T) {
	t.Parallel()
	r := newFaultyLimiter(t, Config{Limit: 1})
	s := mustStart(t, r.Limiter, "maya", Request{}).Stream
	release := r.faults.Hold(etcdtest.Txn)
	_, err := r.Stop(shortCall(t), "maya", s.ID)
	require.ErrorIs(t, err, ErrUnavailable)
	got, err := r.Heartbeat(shortCall(t), "maya", s.ID)
	require.NoError(t, err, "the stream occupies its slot")
	assert.True(t, got.Degraded, "whether the stop was carried out is not known")
	r.requireKeys(t, 1)
	release()
	r.requireKeys(t, 0)
	_, err = r.Heartbeat(t.Context(), "maya", s.ID)
	requireEnded(t, err, policy.ReasonStopped)
	_, err = r.Stop(t.Context(), "maya", s.ID)
	requireEnded(t, err, policy.ReasonStopped)
}

// No heartbeat reports an ending because etcd is unavailable.
func TestHeartbeat_IsDegradedWhileEtcdIsUnavailable(t *testing.T) {
	longtest.Require(t)
	t.Parallel()
	r := newFaultyLimiter(t, Config{Limit: 3, TTL: 3 * MinTTL, Timeout: 300 * time.Millisecond})
	s := mustStart(t, r.Limiter, "maya", Request{}).Stream
	waitUntilRenewable(t, s)
	for _, method := range []string{etcdtest.KeepAlive} {
		for name, hold := range map[string]func(string) func(){"request": r.faults.Hold, "reply": r.faults.HoldReply} {
			release := hold(method)
			began := time.Now()
			got, err := r.Heartbeat(t.Context(), "maya", s.ID)
			require.NoError(t, err, "%s %s", method, name)
			assert.True(t, got.Degraded)
			assert.Equal(t, s.ID, got.ID)
			assert.Zero(t, got.ExpiresAt)
			assert.Less(t, time.Since(began), soon, "the heartbeat does not wait for etcd")
			release()
		}
	}
	require.Eventually(t, func() bool {
		got, err := r.Heartbeat(t.Context(), "maya", s.ID)
		return assert.NoError(t, err) && !got.Degraded
	}, soon, time.Millisecond)
	r.requireKeys(t, 1)
}

// waitUntilRenewable waits until a heartbeat renews the stream's lease again.
func waitUntilRenewable(t *testing.T, s Stream) {
	t.Helper()
	renewed := s.ExpiresAt.Add(-s.TTL)
	require.Eventually(t, func() bool { return time.Since(renewed) > s.TTL/4 }, time.Minute, 10*time.Millisecond)
}

func TestStart_EtcdIsFull(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t, etcdtest.Config{QuotaBytes: 2 << 20})
	c := m.Client(t)
	l := newLimiter(t, c, Config{Limit: 3, Timeout: 20 * time.Second})
	running := mustStart(t, l, "maya", Request{}).Stream
	mustStart(t, l, "ben", Request{})
	_, err := l.Stop(t.Context(), "eve", mustStart(t, l, "eve", Request{}).Stream.ID) // grants a lease for tombstones
	require.NoError(t, err)
	var full error
	for i := 0; full == nil && i < 1000; i++ {
		_, full = c.Put(t.Context(), fmt.Sprint("filler-", i), string(make([]byte, 64<<10)))
	}
	require.ErrorIs(t, full, rpctypes.ErrNoSpace)
	for i := range 10 { // with leases from the pool, and without
		began, taken := time.Now(), l.pool.Moves().Taken
		_, err = l.Start(t.Context(), fmt.Sprint("user-", i), Request{})
		require.ErrorIs(t, err, ErrUnavailable)
		assert.ErrorContains(t, err, "database space exceeded", "the error names the cause")
		require.Less(t, time.Since(began), l.cfg.Timeout/2, "the start fails at once")
		require.LessOrEqual(t, l.pool.Moves().Taken, taken+1, "the start is not retried with each lease of the pool")
	}
	s, err := l.Heartbeat(t.Context(), "maya", running.ID)
	require.NoError(t, err)
	assert.False(t, s.Degraded, "running streams continue")
	// Streams can be stopped. Their tombstones cannot be written.
	u, err := l.Stop(t.Context(), "maya", running.ID)
	require.NoError(t, err)
	assert.Zero(t, u.Count)
	u, err = l.Remove(t.Context(), "ben")
	require.NoError(t, err)
	assert.Zero(t, u.Count)
}

// The leader crashes under load. Starts wait for the election or fail, no live stream is
// lost, and no user exceeds the limit.
func TestLeaderChange(t *testing.T) {
	t.Parallel()
	const limit = 2
	cluster := etcdtest.StartCluster(t, 3)
	leader := cluster.Leader(t)
	survivor := (leader + 1) % 3
	l := newLimiter(t, cluster.Client(t), Config{Limit: limit})
	finish := audit(t, cluster.Client(t, survivor), "/streamcount", limit)
	var living []HeartbeatRequest
	for i := range 20 {
		user := fmt.Sprint("user-", i)
		living = append(living, HeartbeatRequest{user, mustStart(t, l, user, Request{}).Stream.ID})
	}
	cluster.Stop(leader)
	admitted, failed := 0, 0
	crashed := time.Now()
	var window time.Duration
	for i := range 60 {
		user := fmt.Sprint("user-", i%20)
		st, err := l.Start(t.Context(), user, Request{})
		if err != nil {
			failed++
			continue
		}
		assert.LessOrEqual(t, st.Count, limit)
		if admitted++; admitted == 1 {
			window = time.Since(crashed)
		}
	}
	for i, r := range l.Heartbeats(t.Context(), living) {
		require.NoError(t, r.Err, "the stream of %s continues", living[i].User)
	}
	for _, b := range living {
		require.Eventually(t, func() bool {
			s, err := l.Heartbeat(context.Background(), b.User, b.ID)
			return err == nil && !s.Degraded
		}, time.Minute, 50*time.Millisecond)
	}
	for i := range 20 {
		require.LessOrEqual(t, keysOf(t, l, fmt.Sprint("user-", i)), limit)
	}
	cluster.Restart(t, leader)
	t.Logf("first start admitted %v after the leader crashed; %d admitted, %d refused or failed; %d revisions checked",
		window.Round(10*time.Millisecond), admitted, failed, finish())
	require.Positive(t, admitted)
}

// When a node crashes, another node serves its users at once, and no stream is lost.
func TestNodeCrash(t *testing.T) {
	t.Parallel()
	prefix := etcdtest.Prefix(t)
	victim := etcdtest.Client(t)
	crashing, err := New(FromClient(victim), Config{Prefix: prefix, Limit: 2, Secret: testSecret, TTL: testTTL})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- crashing.Run(ctx) }()
	s := mustStart(t, crashing, "maya", Request{}).Stream
	require.NoError(t, victim.Close()) // so that it cannot revoke its leases
	cancel()
	require.NoError(t, <-done)
	other := newLimiter(t, etcdtest.Client(t), Config{Prefix: prefix, Limit: 2})
	got, err := other.Heartbeat(t.Context(), "maya", s.ID)
	require.NoError(t, err)
	assert.False(t, got.Degraded)
	assert.Equal(t, 2, mustStart(t, other, "maya", Request{}).Count)
	u, err := other.Stop(t.Context(), "maya", s.ID)
	require.NoError(t, err)
	assert.Equal(t, 1, u.Count)
}

// Streams continue after a restart of etcd on the same data.
func TestRestartOnTheSameData(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t, etcdtest.Config{})
	l := newLimiter(t, m.Client(t), Config{Limit: 2})
	s := mustStart(t, l, "maya", Request{}).Stream
	m.Restart(t)
	require.Eventually(t, func() bool {
		got, err := l.Heartbeat(context.Background(), "maya", s.ID)
		require.NoError(t, err)
		return !got.Degraded
	}, time.Minute, 50*time.Millisecond)
	assert.Equal(t, 2, mustStart(t, l, "maya", Request{}).Count)
}
