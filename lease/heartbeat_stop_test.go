package lease

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"

	"streamcount/internal/testing/etcdtest"
	"streamcount/internal/testing/longtest"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

func TestStream_ExpiresWithoutHeartbeats(t *testing.T) {
	longtest.Require(t)
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	l := newLimiter(t, c, Config{Prefix: prefix, Limit: 2, TTL: MinTTL})
	other := newLimiter(t, c, Config{Prefix: prefix, Limit: 2, TTL: MinTTL})
	began := time.Now()
	silent := mustStart(t, l, "maya", Request{}).Stream
	alive := mustStart(t, l, "maya", Request{}).Stream

	var freed time.Duration
	for n := 0; time.Since(began) < 2*MinTTL; n++ {
		sent := time.Now()
		s, err := other.Heartbeat(t.Context(), "maya", alive.ID)
		require.NoError(t, err, "heartbeat %d", n)
		require.False(t, s.Degraded)
		require.WithinRange(t, s.ExpiresAt, sent.Add(MinTTL*3/4), time.Now().Add(MinTTL))
		if keysOf(t, l, "maya") == 1 && freed == 0 {
			freed = time.Since(began)
			for _, node := range []*Limiter{l, other} { // at once, because a node forgets the reason
				_, err := node.Heartbeat(t.Context(), "maya", silent.ID)
				requireEnded(t, err, policy.ReasonExpired)
			}
		}
		<-time.After(100 * time.Millisecond)
	}
	require.NotZero(t, freed, "the slot of the silent stream is free")
	assert.False(t, began.Add(freed).Before(silent.ExpiresAt), "it was freed %v before it expired", silent.ExpiresAt.Sub(began.Add(freed)))
	t.Logf("the slot of a silent stream with a TTL of %v was free after %v", MinTTL, freed.Round(100*time.Millisecond))
	tot, err := other.Totals(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, 1, tot.Expired)
}

func TestHeartbeat_OfAnotherUsersStream(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 2})
	s := mustStart(t, l, "maya", Request{}).Stream
	mustStart(t, l, "ben", Request{})
	_, err := l.Heartbeat(t.Context(), "ben", s.ID)
	require.ErrorIs(t, err, streamid.ErrForeign)
	_, err = l.Stop(t.Context(), "ben", s.ID)
	require.ErrorIs(t, err, streamid.ErrForeign)
	_, err = l.Heartbeat(t.Context(), "a\tb", s.ID)
	require.ErrorIs(t, err, ErrBadUser)
	assert.Equal(t, 1, keysOf(t, l, "maya"))
	assert.Equal(t, 1, keysOf(t, l, "ben"))
}

// A client that continues to send heartbeats after its stream has ended renews no lease.
func TestHeartbeat_OfAnEndedStreamRenewsNothing(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.Config{}).Client(t)
	l := newLimiter(t, c, Config{Limit: 1})
	old := mustStart(t, l, "maya", Request{}).Stream
	mustStart(t, l, "maya", Request{OnLimit: policy.ReplaceOldest})
	for range 20 {
		_, err := l.Heartbeat(t.Context(), "maya", old.ID)
		requireEnded(t, err, policy.ReasonEvicted)
	}
	requireStreamLeases(t, c, 1, l)
}

func TestHeartbeats_AnswersEachRequest(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 3})
	var requests []HeartbeatRequest
	for i := range 200 {
		user := fmt.Sprint("user-", i)
		requests = append(requests, HeartbeatRequest{user, mustStart(t, l, user, Request{}).Stream.ID})
	}
	_, err := l.Stop(t.Context(), requests[1].User, requests[1].ID)
	require.NoError(t, err)
	requests[2].ID = "zzz"
	requests[3].ID = requests[4].ID
	requests[5].User = "a\tb"
	began := time.Now()
	for i, r := range l.Heartbeats(t.Context(), requests) {
		switch i {
		case 1:
			requireEnded(t, r.Err, policy.ReasonStopped)
		case 2:
			assert.ErrorIs(t, r.Err, streamid.ErrMalformed)
		case 3:
			assert.ErrorIs(t, r.Err, streamid.ErrForeign)
		case 5:
			assert.ErrorIs(t, r.Err, ErrBadUser)
		default:
			require.NoError(t, r.Err)
			assert.WithinRange(t, r.ExpiresAt, began.Add(testTTL*3/4), time.Now().Add(testTTL))
			assert.False(t, r.Degraded)
		}
	}
}

func TestStop_FreesTheSlotAndRevokesTheLease(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Config{}).Client(t)
	l := newLimiter(t, c, Config{Limit: 2})
	other := newLimiter(t, c, Config{Limit: 2})
	a := mustStart(t, l, "maya", Request{}).Stream
	b := mustStart(t, l, "maya", Request{}).Stream
	u, err := other.Stop(t.Context(), "maya", a.ID)
	require.NoError(t, err)
	assert.Equal(t, 1, u.Count)
	for _, node := range []*Limiter{l, other} {
		_, err = node.Stop(t.Context(), "maya", a.ID)
		requireEnded(t, err, policy.ReasonStopped)
		_, err = node.Heartbeat(t.Context(), "maya", a.ID)
		requireEnded(t, err, policy.ReasonStopped)
	}
	u, err = l.Stop(t.Context(), "maya", b.ID)
	require.NoError(t, err)
	assert.Zero(t, u.Count)
	requireStreamLeases(t, c, 0, l, other)
	_, err = l.List(t.Context(), "maya", Linearizable)
	assert.ErrorIs(t, err, ErrNoStreams)
}

func TestStopOldestHeartbeat(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 3, TTL: 20 * time.Second})
	_, err := l.StopOldestHeartbeat(t.Context(), "maya")
	require.ErrorIs(t, err, ErrNoStreams)
	a := mustStart(t, l, "maya", Request{}).Stream
	b := mustStart(t, l, "maya", Request{}).Stream
	require.Eventually(t, func() bool { // until they differ in etcd's whole seconds
		_, err := l.Heartbeat(t.Context(), "maya", a.ID)
		u, lerr := l.List(t.Context(), "maya", Bounded)
		return err == nil && lerr == nil && u.Active[0].ExpiresAt.Sub(u.Active[1].ExpiresAt) > 2*time.Second
	}, time.Minute, 100*time.Millisecond)
	u, err := l.StopOldestHeartbeat(t.Context(), "maya")
	require.NoError(t, err)
	assert.Equal(t, 1, u.Count)
	_, err = l.Heartbeat(t.Context(), "maya", b.ID)
	requireEnded(t, err, policy.ReasonStopped)
	u, err = l.StopOldestHeartbeat(t.Context(), "maya")
	require.NoError(t, err)
	assert.Zero(t, u.Count)
}

func TestRemove_EndsAll(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.Config{}).Client(t)
	l := newLimiter(t, c, Config{Limit: 3})
	_, err := l.Remove(t.Context(), "maya")
	require.ErrorIs(t, err, ErrNoStreams)
	var ids []string
	for range 3 {
		ids = append(ids, mustStart(t, l, "maya", Request{}).Stream.ID)
	}
	ben := mustStart(t, l, "maya2", Request{}).Stream
	u, err := l.Remove(t.Context(), "maya")
	require.NoError(t, err)
	assert.Zero(t, u.Count)
	for _, id := range ids {
		_, err = l.Heartbeat(t.Context(), "maya", id)
		assert.Nil(t, requireEnded(t, err, policy.ReasonRemoved))
	}
	_, err = l.Heartbeat(t.Context(), "maya2", ben.ID)
	assert.NoError(t, err, "a user whose id has the same prefix is not affected")
	requireStreamLeases(t, c, 1, l)
}

// When all streams have ended, etcd has no keys and no leases of them.
func TestNothingIsLeftBehind(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Config{}).Client(t)
	l := newLimiter(t, c, Config{Limit: 2, TTL: MinTTL})
	mustStart(t, l, "a", Request{})
	s := mustStart(t, l, "b", Request{Session: "x"}).Stream
	mustStart(t, l, "b", Request{Session: "x"})
	mustStart(t, l, "b", Request{OnLimit: policy.ReplaceOldest})
	mustStart(t, l, "b", Request{OnLimit: policy.ReplaceOldest})
	mustStart(t, l, "c", Request{})
	_, err := l.Remove(t.Context(), "c")
	require.NoError(t, err)
	_, err = l.Stop(t.Context(), "b", s.ID)
	requireEnded(t, err, policy.ReasonReplaced)
	require.Eventually(t, func() bool {
		kvs, err := c.Get(context.Background(), "/streamcount/", clientv3.WithPrefix(), clientv3.WithCountOnly())
		return err == nil && kvs.Count == 0
	}, time.Minute, 50*time.Millisecond)
	requireStreamLeases(t, c, 0, l)
}

// When thousands of streams expire at once, etcd revokes at most 1,000 leases per second.
// A start does not wait for that.
// It is not parallel, because other tests would delay its starts until the streams expire.
func TestStart_TakesOverAnExpiredSlot(t *testing.T) {
	longtest.Require(t)
	c := etcdtest.Start(t, etcdtest.Config{}).Client(t)
	l := newLimiter(t, c, Config{Limit: 2, TTL: silentTTL})
	taken := 0
	for round := range 4 { // on a busy machine etcd may revoke all leases before the test reads them
		if taken = expiredSlotsTaken(t, c, l, round); taken > 0 {
			break
		}
	}
	require.Positive(t, taken, "slots whose lease had expired but was not yet revoked")
}

const (
	silentTTL  = 2 * MinTTL // long enough for the starts of a round on a busy machine
	fillerLife = 5 * MinTTL // long enough to grant the fillers
)

func expiredSlotsTaken(t *testing.T, c *clientv3.Client, l *Limiter, round int) (taken int) {
	t.Helper()
	// The fillers expire together, so that etcd revokes the leases below seconds after they
	// have expired: it revokes 1,000 per second.
	fillersExpire := time.Now().Add(fillerLife)
	var fillers errgroup.Group
	fillers.SetLimit(64)
	for range 5000 {
		fillers.Go(func() error {
			_, err := c.Grant(context.Background(), max(1, int64(time.Until(fillersExpire)/time.Second)))
			return err
		})
	}
	require.NoError(t, fillers.Wait())
	require.Eventually(t, func() bool { return time.Until(fillersExpire) < silentTTL }, time.Minute, 20*time.Millisecond)
	var users []string
	firstExpiry := time.Now().Add(silentTTL)
	for i := range 50 {
		users = append(users, fmt.Sprint("user-", round, "-", i))
		for _, session := range []string{"", "silent"} {
			s := mustStart(t, l, users[i], Request{Session: session}).Stream
			if s.ExpiresAt.Before(firstExpiry) {
				firstExpiry = s.ExpiresAt
			}
		}
	}
	last := time.Now()
	for _, u := range users {
		_, err := l.Start(t.Context(), u, Request{})
		if !time.Now().Before(firstExpiry) {
			t.Log("the machine is too busy: streams expire before this round has started them all")
			return 0
		}
		require.ErrorIs(t, err, ErrLimit, "no stream has expired yet")
	}
	require.Eventually(t, func() bool { return time.Since(last) >= silentTTL+time.Second }, time.Minute, 20*time.Millisecond)
	for _, u := range users {
		s, err := l.readUser(t.Context(), u)
		if err != nil || len(s.entries) < 2 {
			continue // etcd has already revoked it
		}
		st, err := l.Start(t.Context(), u, Request{})
		if assert.NoError(t, err, "both streams of %s have been silent for longer than a TTL", u) {
			taken++
			assert.LessOrEqual(t, st.Count, 2)
		}
	}
	t.Logf("%d of %d users took over a slot before etcd had revoked its lease", taken, len(users))
	return taken
}

func TestTotals(t *testing.T) {
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	eu := newLimiter(t, c, Config{Prefix: prefix, Limit: 2, Region: "eu"})
	us := newLimiter(t, c, Config{Prefix: prefix, Limit: 2, Region: "us"})
	for i := range 30 {
		mustStart(t, eu, fmt.Sprint("user-", i), Request{})
	}
	mustStart(t, us, "user-1", Request{})
	_, err := eu.Start(t.Context(), "user-1", Request{})
	require.ErrorIs(t, err, ErrLimit)
	now, err := us.readUser(t.Context(), "user-1")
	require.NoError(t, err)
	require.True(t, eu.replica.WaitApplied(t.Context(), now.rev))
	got, err := eu.Totals(t.Context())
	require.NoError(t, err)
	assert.Positive(t, got.Revision)
	got.Revision = 0
	assert.Equal(t, Totals{
		Streams: 31, Users: 30, UsersAtLimit: 1, ByRegion: map[string]int{"eu": 30, "us": 1},
		Admitted: 30, Refused: 1,
	}, got)
}

// A late heartbeat whose renewal blocks is answered soon, and does not delay the others of
// its batch.
func TestHeartbeats_SlowRenewalDoesNotDelayOthers(t *testing.T) {
	longtest.Require(t)
	t.Parallel()
	r := newFaultyLimiter(t, Config{Limit: 3, TTL: MinTTL})
	s := mustStart(t, r.Limiter, "maya", Request{}).Stream
	renewed := s.ExpiresAt.Add(-s.TTL)
	require.Eventually(t, func() bool { return time.Since(renewed) > MinTTL*7/8 }, 2*MinTTL, time.Millisecond)
	release := r.faults.Hold(etcdtest.KeepAlive)
	defer release()
	began := time.Now()
	got := r.Heartbeats(t.Context(), []HeartbeatRequest{{"maya", s.ID}})[0]
	require.NoError(t, got.Err)
	assert.True(t, got.Degraded)
	assert.Less(t, time.Since(began), soon, "the heartbeat does not wait for the renewal")
}

// A stream that this node has not renewed for long may have been renewed by another node.
// Then its heartbeat is not late, and does not wait for those that are.
func TestHeartbeat_RenewedByAnotherNode(t *testing.T) {
	longtest.Require(t)
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	here := newLimiter(t, c, Config{Prefix: prefix, Limit: 3, TTL: MinTTL})
	there := newLimiter(t, c, Config{Prefix: prefix, Limit: 3, TTL: MinTTL})
	s := mustStart(t, here, "maya", Request{}).Stream
	renewed := s.ExpiresAt.Add(-s.TTL)
	waitUntilRenewable(t, s)
	require.Eventually(t, func() bool { return time.Since(renewed) > MinTTL/2 }, MinTTL, time.Millisecond)
	renewedThere, err := there.Heartbeat(t.Context(), "maya", s.ID)
	require.NoError(t, err)
	require.False(t, renewedThere.Degraded)
	for range cap(here.slowRenewals) { // as many late renewals as there can be
		here.slowRenewals <- struct{}{}
	}
	require.Eventually(t, func() bool { return time.Since(renewed) > MinTTL*7/8 }, MinTTL, time.Millisecond)
	got, err := here.Heartbeat(t.Context(), "maya", s.ID)
	require.NoError(t, err)
	assert.False(t, got.Degraded)
}

// An expired lease that this node has never renewed blocks a shared stream of renewals once.
// Then the node queries etcd about the lease.
func TestHeartbeat_ExpiredLeaseOfAnotherNode(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t, etcdtest.Config{})
	s := mustStart(t, newLimiter(t, m.Client(t), Config{Limit: 3}), "maya", Request{}).Stream
	f := &etcdtest.Faults{}
	e := FromClient(etcdtest.FaultyClient(t, []string{m.Endpoint()}, f))
	e.Lease = deposed{e.Lease, 0} // reports every lease as expired
	l := runLimiter(t, e, Config{Limit: 3})
	t.Cleanup(f.Heal)
	require.Eventually(t, func() bool { at, _, _ := l.replica.UserEntries("maya"); return len(at) == 1 }, time.Minute, time.Millisecond)
	before := f.Calls(etcdtest.KeepAlive)
	defer f.Hold(etcdtest.KeepAlive)()
	began := time.Now()
	got, err := l.Heartbeat(t.Context(), "maya", s.ID)
	require.NoError(t, err)
	assert.True(t, got.Degraded)
	assert.Less(t, time.Since(began), l.cfg.Timeout/2, "the answer does not take the whole timeout")
	assert.LessOrEqual(t, f.Calls(etcdtest.KeepAlive)-before, 2, "one on a shared stream, one on a separate stream")
}
