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

	"streamcount/internal/etcdtest"
)

// rig is a Limiter whose etcd client suffers faults, on a server that it shares
// with an honest client.
type rig struct {
	*Limiter
	faults *etcdtest.Faults
	honest *clientv3.Client
}

func newRig(t *testing.T, cfg Config) rig {
	t.Helper()
	m := etcdtest.Start(t, etcdtest.Config{})
	f := &etcdtest.Faults{}
	l := newLimiter(t, etcdtest.FaultyClient(t, []string{m.Endpoint()}, f), cfg)
	t.Cleanup(f.Heal)
	return rig{l, f, m.Client(t)}
}

// requireKeys waits until maya holds exactly n keys.
func (r rig) requireKeys(t *testing.T, n int64) {
	t.Helper()
	require.Eventually(t, func() bool {
		resp, err := r.honest.Get(context.Background(), r.keys.user("maya"), clientv3.WithPrefix(), clientv3.WithCountOnly())
		return err == nil && resp.Count == n
	}, time.Minute, 10*time.Millisecond, "maya holds %d keys", n)
}

// Every message of a start is lost once, before and after etcd acts on it. The
// start succeeds all the same, holds one slot, and leaves no other lease.
func TestStart_SurvivesALostMessage(t *testing.T) {
	starts := map[string]Request{
		"plain":   {},
		"session": {Session: "tab"},
		"evict":   {OnLimit: ReplaceOldest},
	}
	for name, req := range starts {
		for _, method := range []string{etcdtest.Grant, etcdtest.Txn, etcdtest.Range} {
			for _, side := range []string{"request", "reply"} {
				t.Run(name+"/"+method[len("/etcdserverpb."):]+"/"+side, func(t *testing.T) {
					r := newRig(t, Config{Limit: 1})
					held := mustStart(t, r.Limiter, "maya", Request{Session: "tab"}).Stream // evicted, taken over, or in the way
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
					requireStreamLeases(t, r.honest, 1, r.Limiter)
				})
			}
		}
	}
}

// A start whose outcome cannot be settled in time is an error, and what it
// wrote is revoked as soon as etcd can be reached.
func TestStart_UnknownOutcomeIsAbandoned(t *testing.T) {
	r := newRig(t, Config{Limit: 3, Timeout: 300 * time.Millisecond})
	release := r.faults.HoldReply(etcdtest.Txn)
	_, err := r.Start(t.Context(), "maya", Request{})
	require.ErrorIs(t, err, ErrUnavailable)
	release()
	r.requireKeys(t, 0)
	requireStreamLeases(t, r.honest, 0, r.Limiter)

	// With reads and revokes lost as well, only the background can clean up.
	releases := []func(){
		r.faults.HoldReply(etcdtest.Txn), r.faults.Hold(etcdtest.Range), r.faults.Hold(etcdtest.Revoke),
	}
	_, err = r.Start(t.Context(), "maya", Request{})
	require.ErrorIs(t, err, ErrUnavailable)
	r.requireKeys(t, 1) // the ghost
	for _, release := range releases {
		release()
	}
	r.requireKeys(t, 0)
	requireStreamLeases(t, r.honest, 0, r.Limiter)
}

// A caller who hangs up before the answer leaves no key behind.
func TestStart_CallerHangsUp(t *testing.T) {
	r := newRig(t, Config{Limit: 3})
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
	requireStreamLeases(t, r.honest, 0, r.Limiter)
}

func TestStop_SurvivesALostMessage(t *testing.T) {
	for _, side := range []string{"request", "reply"} {
		for _, call := range []string{"stop", "quietest", "remove"} {
			t.Run(call+"/"+side, func(t *testing.T) {
				r := newRig(t, Config{Limit: 3})
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
				case "quietest":
					u, err = r.StopQuietest(t.Context(), "maya")
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

// A removal whose answer is lost does not end what was started after it.
func TestRemove_IsCarriedOutOnce(t *testing.T) {
	r := newRig(t, Config{Limit: 3})
	other := newLimiter(t, r.honest, Config{Prefix: r.cfg.Prefix, Limit: 3})
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
	require.NoError(t, err, "it began after the removal")
	assert.False(t, s.Degraded)
	assert.Equal(t, 1, keysOf(t, other, "maya"))
}

// A stop that etcd never answered is carried out once it does.
func TestStop_IsCarriedOutLater(t *testing.T) {
	r := newRig(t, Config{Limit: 3, Timeout: 300 * time.Millisecond})
	s := mustStart(t, r.Limiter, "maya", Request{}).Stream
	release := r.faults.Hold(etcdtest.Txn)
	_, err := r.Stop(t.Context(), "maya", s.ID)
	require.ErrorIs(t, err, ErrUnavailable)
	release()
	r.requireKeys(t, 0)
}

// No heartbeat is answered with an ending because etcd is away.
func TestHeartbeat_IsDegradedWhileEtcdIsAway(t *testing.T) {
	r := newRig(t, Config{Limit: 3, TTL: MinTTL, Timeout: 300 * time.Millisecond})
	s := mustStart(t, r.Limiter, "maya", Request{}).Stream
	awaitUnrested(t, s)
	for _, method := range []string{etcdtest.KeepAlive} {
		for name, hold := range map[string]func(string) func(){"request": r.faults.Hold, "reply": r.faults.HoldReply} {
			release := hold(method)
			began := time.Now()
			got, err := r.Heartbeat(t.Context(), "maya", s.ID)
			require.NoError(t, err, "%s %s", method, name)
			assert.True(t, got.Degraded)
			assert.Equal(t, s.ID, got.ID)
			assert.Zero(t, got.ExpiresAt)
			assert.Less(t, time.Since(began), 2*time.Second)
			release()
		}
	}
	got, err := r.Heartbeat(t.Context(), "maya", s.ID)
	require.NoError(t, err)
	assert.False(t, got.Degraded)
	r.requireKeys(t, 1)
}

// awaitUnrested waits until a heartbeat would renew the stream's lease again.
func awaitUnrested(t *testing.T, s Stream) {
	t.Helper()
	renewed := s.ExpiresAt.Add(-s.TTL)
	require.Eventually(t, func() bool { return time.Since(renewed) > s.TTL/4 }, time.Minute, 10*time.Millisecond)
}

func TestStart_EtcdIsFull(t *testing.T) {
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
	for i := range 10 { // with leases that were ready, and without
		began, ready := time.Now(), l.pool.book.stats().reserved
		_, err = l.Start(t.Context(), fmt.Sprint("user-", i), Request{})
		require.ErrorIs(t, err, ErrUnavailable)
		assert.ErrorContains(t, err, "database space exceeded", "the log says why")
		require.Less(t, time.Since(began), l.cfg.Timeout/2, "nobody waits in vain for somebody to make room")
		require.LessOrEqual(t, l.pool.book.stats().reserved, ready+1, "nor tries again with each lease that is ready")
	}
	s, err := l.Heartbeat(t.Context(), "maya", running.ID)
	require.NoError(t, err)
	assert.False(t, s.Degraded, "running streams go on")
	// Slots come back, if without a reason.
	u, err := l.Stop(t.Context(), "maya", running.ID)
	require.NoError(t, err)
	assert.Zero(t, u.Count)
	u, err = l.Remove(t.Context(), "ben")
	require.NoError(t, err)
	assert.Zero(t, u.Count)
}

// The leader dies under load: starts wait for the election or get an error, no
// living stream is lost, and nobody passes the limit.
func TestLeaderChange(t *testing.T) {
	const limit = 2
	cluster := etcdtest.StartCluster(t, 3)
	leader := cluster.Leader(t)
	survivor := (leader + 1) % 3
	l := newLimiter(t, cluster.Client(t), Config{Limit: limit, TTL: 10 * time.Second})
	finish := audit(t, cluster.Client(t, survivor), "/streamcount", limit)
	var living []Beat
	for i := range 20 {
		user := fmt.Sprint("user-", i)
		living = append(living, Beat{user, mustStart(t, l, user, Request{}).Stream.ID})
	}
	cluster.Stop(leader)
	admitted, failed := 0, 0
	killed := time.Now()
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
			window = time.Since(killed)
		}
	}
	for i, r := range l.Heartbeats(t.Context(), living) {
		require.NoError(t, r.Err, "%s lives on", living[i].User)
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
	t.Logf("first start admitted %v after the leader died; %d admitted, %d refused or failed; %d revisions checked",
		window.Round(10*time.Millisecond), admitted, failed, finish())
	require.Positive(t, admitted)
}

// A node that dies takes nothing with it: another serves its users at once.
func TestNodeDies(t *testing.T) {
	prefix := etcdtest.Prefix(t)
	victim := etcdtest.Client(t)
	dying, err := New(Over(victim), Config{Prefix: prefix, Limit: 2, Secret: testSecret, TTL: testTTL})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- dying.Run(ctx) }()
	s := mustStart(t, dying, "maya", Request{}).Stream
	require.NoError(t, victim.Close()) // no good-bye can reach etcd
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

// Streams outlive a restart of etcd on the same data.
func TestRestartOnTheSameData(t *testing.T) {
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
