package lease

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m)) }

var testSecret = []byte("0123456789abcdef0123456789abcdef")

const testTTL = 60 * time.Second

// newLimiter returns a running Limiter; its background work ends before c does.
func newLimiter(t *testing.T, c *clientv3.Client, cfg Config) *Limiter {
	t.Helper()
	return runLimiter(t, FromClient(c), cfg)
}

func runLimiter(t *testing.T, e Etcd, cfg Config) *Limiter {
	t.Helper()
	cfg.Secret = testSecret
	if cfg.TTL == 0 {
		cfg.TTL = testTTL
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute // a slow machine may pause for seconds; the breaker opens after the timeout
	}
	l, err := New(e, cfg)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	require.Eventually(t, l.replica.Current, time.Minute, time.Millisecond)
	return l
}

// shortCall returns a context for a call that is to fail at its deadline.
func shortCall(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	t.Cleanup(cancel)
	return ctx
}

func mustStart(t *testing.T, l *Limiter, user string, r Request) Started {
	t.Helper()
	st, err := l.Start(t.Context(), user, r)
	require.NoError(t, err)
	return st
}

// keysOf returns how many keys user holds.
func keysOf(t *testing.T, l *Limiter, user string) int {
	t.Helper()
	s, err := l.readUser(t.Context(), user)
	require.NoError(t, err)
	return len(s.entries)
}

func requireEnded(t *testing.T, err error, want policy.Reason) *Replacement {
	t.Helper()
	var ended *EndedError
	require.ErrorAs(t, err, &ended)
	require.Equal(t, want, ended.Reason)
	return ended.By
}

// requireEndsSoon sends heartbeats until the node reports that the stream has ended on
// another node.
func requireEndsSoon(t *testing.T, l *Limiter, user, id string, want policy.Reason) *Replacement {
	t.Helper()
	var err error
	require.Eventually(t, func() bool {
		_, err = l.Heartbeat(context.Background(), user, id)
		return err != nil
	}, time.Minute, time.Millisecond)
	return requireEnded(t, err, want)
}

func TestStart_CountsToTheLimit(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 3, Region: "eu"})
	var ids []string
	for n := 1; n <= 3; n++ {
		before := time.Now()
		st := mustStart(t, l, "maya", Request{Device: Device{Name: fmt.Sprint("tv ", n)}, Content: Content{ID: "film"}})
		assert.Equal(t, Usage{User: "maya", Count: n, Limit: 3, Counted: n}, st.Usage)
		assert.Equal(t, "eu", st.Stream.Region)
		assert.Equal(t, Content{ID: "film"}, st.Stream.Content)
		assert.WithinRange(t, st.Stream.ExpiresAt, before.Add(testTTL*3/4), time.Now().Add(testTTL))
		ids = append(ids, st.Stream.ID)
	}
	_, err := l.Start(t.Context(), "maya", Request{})
	var full *LimitError
	require.ErrorAs(t, err, &full)
	assert.Equal(t, 3, full.Limit)
	require.Len(t, full.Active, 3)
	for i, s := range full.Active {
		assert.Equal(t, ids[i], s.ID, "oldest first")
		assert.Equal(t, fmt.Sprint("tv ", i+1), s.Device.Name)
		assert.WithinRange(t, s.ExpiresAt, time.Now().Add(testTTL/2), time.Now().Add(testTTL))
	}
	assert.InDelta(t, testTTL.Seconds()*3/4, full.RetryAfter.Seconds(), testTTL.Seconds()/4)

	u, err := l.List(t.Context(), "maya", Bounded)
	require.NoError(t, err)
	assert.Equal(t, 3, u.Count)
	assert.Len(t, u.Active, 3)

	mustStart(t, l, "ben", Request{}) // the limit is per user
}

func TestStart_BadInput(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 3})
	_, err := l.Start(t.Context(), "a\tb", Request{})
	assert.ErrorIs(t, err, ErrBadUser)
	_, err = l.Start(t.Context(), "maya", Request{Replaces: []string{"zzz"}})
	assert.ErrorIs(t, err, streamid.ErrMalformed)
	other := mustStart(t, l, "ben", Request{}).Stream
	_, err = l.Start(t.Context(), "maya", Request{Replaces: []string{other.ID}})
	assert.ErrorIs(t, err, streamid.ErrForeign)
	assert.Equal(t, 1, keysOf(t, l, "ben"))
}

func TestStart_LimitZeroBlocks(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 0})
	for range 2 {
		_, err := l.Start(t.Context(), "maya", Request{OnLimit: policy.ReplaceOldest})
		require.ErrorIs(t, err, ErrLimit)
	}
}

func TestStart_LargestLimit(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: policy.MaxLimit})
	for n := 1; n <= policy.MaxLimit; n++ {
		require.Equal(t, n, mustStart(t, l, "maya", Request{}).Count)
	}
	_, err := l.Start(t.Context(), "maya", Request{})
	require.ErrorIs(t, err, ErrLimit)
	u, err := l.Remove(t.Context(), "maya")
	require.NoError(t, err)
	assert.Zero(t, u.Count)
}

func TestStart_SessionTakesItsSlotOver(t *testing.T) {
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	l := newLimiter(t, c, Config{Prefix: prefix, Limit: 2})
	other := newLimiter(t, c, Config{Prefix: prefix, Limit: 2})
	first := mustStart(t, l, "maya", Request{Session: "tab-1"}).Stream
	mustStart(t, l, "maya", Request{Session: "tab-2"})
	again := mustStart(t, other, "maya", Request{Session: "tab-1", Device: Device{Name: "tab"}})
	assert.Equal(t, 2, again.Count, "a session counts once")
	assert.NotEqual(t, first.ID, again.Stream.ID)

	by := requireEndsSoon(t, l, "maya", first.ID, policy.ReasonReplaced)
	require.NotNil(t, by)
	assert.Equal(t, "tab", by.Device.Name)
	assert.Equal(t, again.Stream.StartedAt.UnixMilli(), by.StartedAt.UnixMilli())
	_, err := l.Stop(t.Context(), "maya", first.ID)
	requireEnded(t, err, policy.ReasonReplaced)
	_, err = l.Heartbeat(t.Context(), "maya", again.Stream.ID)
	assert.NoError(t, err, "a late stop of the old stream does not affect the new one")
}

func TestStart_Replaces(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 1})
	old := mustStart(t, l, "maya", Request{}).Stream
	st := mustStart(t, l, "maya", Request{Replaces: []string{old.ID}})
	assert.Equal(t, 1, st.Count)
	_, err := l.Heartbeat(t.Context(), "maya", old.ID)
	assert.NotNil(t, requireEnded(t, err, policy.ReasonReplaced))
	_, err = l.Start(t.Context(), "maya", Request{Replaces: []string{old.ID}})
	assert.ErrorIs(t, err, ErrLimit, "an ended stream frees no second slot")
}

func TestStart_EvictsTheOldest(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 2})
	a := mustStart(t, l, "maya", Request{}).Stream
	b := mustStart(t, l, "maya", Request{}).Stream
	c := mustStart(t, l, "maya", Request{OnLimit: policy.ReplaceOldest, Device: Device{Type: "tv"}})
	assert.Equal(t, 2, c.Count)
	_, err := l.Heartbeat(t.Context(), "maya", a.ID)
	by := requireEnded(t, err, policy.ReasonEvicted)
	require.NotNil(t, by)
	assert.Equal(t, Device{Type: "tv"}, by.Device)
	_, err = l.Heartbeat(t.Context(), "maya", b.ID)
	assert.NoError(t, err)
}

func TestStart_AfterTheLimitWasLowered(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	wide := newLimiter(t, c, Config{Prefix: prefix, Limit: 5})
	var ids []string
	for range 5 {
		ids = append(ids, mustStart(t, wide, "maya", Request{}).Stream.ID)
	}
	narrow := newLimiter(t, c, Config{Prefix: prefix, Limit: 2})
	for i, id := range ids[:4] { // the lower slots are freed first, and must not be used
		_, err := narrow.Start(t.Context(), "maya", Request{})
		require.ErrorIs(t, err, ErrLimit, "%d are left", 5-i)
		_, err = narrow.Heartbeat(t.Context(), "maya", ids[4])
		require.NoError(t, err, "running streams are not affected")
		u, err := narrow.Stop(t.Context(), "maya", id)
		require.NoError(t, err)
		require.Equal(t, 4-i, u.Count)
	}
	assert.Equal(t, 2, mustStart(t, narrow, "maya", Request{}).Count)
	_, err := narrow.Start(t.Context(), "maya", Request{})
	assert.ErrorIs(t, err, ErrLimit)
}

func TestStart_RefusalsWriteNothing(t *testing.T) {
	t.Parallel()
	c := etcdtest.Start(t, etcdtest.Config{}).Client(t) // a separate server, on which no other test writes
	l := newLimiter(t, c, Config{Limit: 1})
	mustStart(t, l, "maya", Request{})
	_, err := l.Start(t.Context(), "maya", Request{})
	require.ErrorIs(t, err, ErrLimit)
	requireStreamLeases(t, c, 1, l)
	before := settledRaftIndex(t, c)
	for range 50 {
		_, err := l.Start(t.Context(), "maya", Request{})
		require.ErrorIs(t, err, ErrLimit)
	}
	assert.Equal(t, before, raftIndex(t, c), "raft proposals for 50 refusals")
}

// requireStreamLeases waits until etcd has exactly n leases besides those of the nodes' pools
// and tombstones. A lease whose grant etcd's client has repeated exists until its TTL ends.
func requireStreamLeases(t *testing.T, c *clientv3.Client, n int, nodes ...*Limiter) {
	t.Helper()
	var left []clientv3.LeaseID
	require.Eventually(t, func() bool {
		resp, err := c.Leases(context.Background())
		if err != nil {
			return false
		}
		ours := map[int64]bool{}
		for _, l := range nodes {
			ready, toRevoke := l.pool.IDs()
			for _, id := range append(ready, toRevoke...) {
				ours[id] = true
			}
			ours[l.tombstoneLease.Current()] = true
		}
		left = left[:0]
		for _, s := range resp.Leases {
			if !ours[int64(s.ID)] {
				left = append(left, s.ID)
			}
		}
		return len(left) == n
	}, 2*testTTL, 10*time.Millisecond, "want %d leases of streams", n)
}

// settledRaftIndex returns etcd's raft index when the nodes have filled their pools.
func settledRaftIndex(t *testing.T, c *clientv3.Client) uint64 {
	t.Helper()
	var last uint64
	require.Eventually(t, func() bool {
		now := raftIndex(t, c)
		still := now == last
		last = now
		return still
	}, time.Minute, 300*time.Millisecond)
	return last
}

func raftIndex(t *testing.T, c *clientv3.Client) uint64 {
	t.Helper()
	s, err := c.Status(t.Context(), c.Endpoints()[0])
	require.NoError(t, err)
	return s.RaftIndex
}

func TestRun_LeavesNoGoroutine(t *testing.T) {
	c := etcdtest.Client(t)
	_, err := c.Get(t.Context(), "connect")
	require.NoError(t, err)
	before := goleak.IgnoreCurrent()
	etcd := FromClient(c)
	l, err := New(etcd, Config{Prefix: etcdtest.Prefix(t), Limit: 3, Secret: testSecret})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	mustStart(t, l, "maya", Request{})
	cancel()
	require.NoError(t, <-done)
	// If the context ends while etcd's client opens the stream of a watch, the client
	// keeps the stream until its watcher is closed.
	require.NoError(t, etcd.Watch.Close())
	goleak.VerifyNone(t, before)
}
