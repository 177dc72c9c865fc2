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

	"streamcount/internal/etcdtest"
)

func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m)) }

const testTTL = 60 * time.Second

// newLimiter returns a running Limiter; its background work ends before c does.
func newLimiter(t *testing.T, c *clientv3.Client, cfg Config) *Limiter {
	t.Helper()
	return runLimiter(t, Over(c), cfg)
}

func runLimiter(t *testing.T, e Etcd, cfg Config) *Limiter {
	t.Helper()
	cfg.Secret = testSecret
	if cfg.TTL == 0 {
		cfg.TTL = testTTL
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
	require.Eventually(t, l.view.current, time.Minute, time.Millisecond)
	return l
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
	s, err := l.read(t.Context(), user)
	require.NoError(t, err)
	return len(s.held)
}

func requireEnded(t *testing.T, err error, want Reason) *By {
	t.Helper()
	var ended *EndedError
	require.ErrorAs(t, err, &ended)
	require.Equal(t, want, ended.Reason)
	return ended.By
}

// requireEndsSoon beats until the node has heard of an ending on another node,
// which is a matter of milliseconds.
func requireEndsSoon(t *testing.T, l *Limiter, user, id string, want Reason) *By {
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
		assert.WithinRange(t, st.Stream.ExpiresAt, before.Add(testTTL), time.Now().Add(testTTL))
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
		assert.WithinDuration(t, time.Now().Add(testTTL), s.ExpiresAt, 5*time.Second)
	}
	assert.InDelta(t, testTTL.Seconds(), full.RetryAfter.Seconds(), 5)

	u, err := l.List(t.Context(), "maya", Bounded)
	require.NoError(t, err)
	assert.Equal(t, 3, u.Count)
	assert.Len(t, u.Active, 3)

	mustStart(t, l, "ben", Request{}) // somebody else's limit
}

func TestStart_BadInput(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 3})
	_, err := l.Start(t.Context(), "a/b", Request{})
	assert.ErrorIs(t, err, ErrBadUser)
	_, err = l.Start(t.Context(), "maya", Request{Replaces: "zzz"})
	assert.ErrorIs(t, err, ErrBadID)
	other := mustStart(t, l, "ben", Request{}).Stream
	_, err = l.Start(t.Context(), "maya", Request{Replaces: other.ID})
	assert.ErrorIs(t, err, ErrForeignID)
	assert.Equal(t, 1, keysOf(t, l, "ben"))
}

func TestStart_LimitZeroBlocks(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 0})
	for range 2 {
		_, err := l.Start(t.Context(), "maya", Request{OnLimit: ReplaceOldest})
		require.ErrorIs(t, err, ErrLimit)
	}
}

func TestStart_LargestLimit(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: MaxLimit})
	for n := 1; n <= MaxLimit; n++ {
		require.Equal(t, n, mustStart(t, l, "maya", Request{}).Count)
	}
	_, err := l.Start(t.Context(), "maya", Request{})
	require.ErrorIs(t, err, ErrLimit)
	u, err := l.Remove(t.Context(), "maya")
	require.NoError(t, err)
	assert.Zero(t, u.Count)
}

func TestStart_SessionTakesItsSlotOver(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	l := newLimiter(t, c, Config{Prefix: prefix, Limit: 2})
	other := newLimiter(t, c, Config{Prefix: prefix, Limit: 2})
	first := mustStart(t, l, "maya", Request{Session: "tab-1"}).Stream
	mustStart(t, l, "maya", Request{Session: "tab-2"})
	again := mustStart(t, other, "maya", Request{Session: "tab-1", Device: Device{Name: "tab"}})
	assert.Equal(t, 2, again.Count, "it never counts twice")
	assert.NotEqual(t, first.ID, again.Stream.ID)

	by := requireEndsSoon(t, l, "maya", first.ID, ReasonReplaced)
	require.NotNil(t, by)
	assert.Equal(t, "tab", by.Device.Name)
	assert.Equal(t, again.Stream.StartedAt.UnixMilli(), by.StartedAt.UnixMilli())
	_, err := l.Stop(t.Context(), "maya", first.ID)
	requireEnded(t, err, ReasonReplaced)
	_, err = l.Heartbeat(t.Context(), "maya", again.Stream.ID)
	assert.NoError(t, err, "a late stop of the old stream leaves the new one alone")
}

func TestStart_Replaces(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 1})
	old := mustStart(t, l, "maya", Request{}).Stream
	st := mustStart(t, l, "maya", Request{Replaces: old.ID})
	assert.Equal(t, 1, st.Count)
	_, err := l.Heartbeat(t.Context(), "maya", old.ID)
	assert.NotNil(t, requireEnded(t, err, ReasonReplaced))
	_, err = l.Start(t.Context(), "maya", Request{Replaces: old.ID})
	assert.ErrorIs(t, err, ErrLimit, "what has ended makes no room twice")
}

func TestStart_EvictsTheOldest(t *testing.T) {
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 2})
	a := mustStart(t, l, "maya", Request{}).Stream
	b := mustStart(t, l, "maya", Request{}).Stream
	c := mustStart(t, l, "maya", Request{OnLimit: ReplaceOldest, Device: Device{Type: "tv"}})
	assert.Equal(t, 2, c.Count)
	_, err := l.Heartbeat(t.Context(), "maya", a.ID)
	by := requireEnded(t, err, ReasonEvicted)
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
	for i, id := range ids[:4] { // the lower slots go first: free ones must not deceive
		_, err := narrow.Start(t.Context(), "maya", Request{})
		require.ErrorIs(t, err, ErrLimit, "%d are left", 5-i)
		_, err = narrow.Heartbeat(t.Context(), "maya", ids[4])
		require.NoError(t, err, "running streams are left alone")
		u, err := narrow.Stop(t.Context(), "maya", id)
		require.NoError(t, err)
		require.Equal(t, 4-i, u.Count)
	}
	assert.Equal(t, 2, mustStart(t, narrow, "maya", Request{}).Count)
	_, err := narrow.Start(t.Context(), "maya", Request{})
	assert.ErrorIs(t, err, ErrLimit)
}

func TestStart_RefusalsWriteNothing(t *testing.T) {
	c := etcdtest.Start(t, etcdtest.Config{}).Client(t) // a server of its own: nobody else writes
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

// requireStreamLeases waits until etcd has exactly n leases beside those that
// the nodes keep ready, or keep their tombstones under.
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
			l.pool.book.mu.Lock()
			for _, g := range append(l.pool.book.waiting, l.pool.book.spent...) {
				ours[g.lease] = true
			}
			l.pool.book.mu.Unlock()
			l.graves.mu.Lock()
			ours[l.graves.lease] = true
			l.graves.mu.Unlock()
		}
		left = left[:0]
		for _, s := range resp.Leases {
			if !ours[int64(s.ID)] {
				left = append(left, s.ID)
			}
		}
		return len(left) == n
	}, time.Minute, 10*time.Millisecond, "want %d leases of streams", n)
}

// settledRaftIndex is etcd's raft index once the nodes have what they keep ready.
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
	l, err := New(Over(c), Config{Prefix: etcdtest.Prefix(t), Limit: 3, Secret: testSecret})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	mustStart(t, l, "maya", Request{})
	cancel()
	require.NoError(t, <-done)
	require.NoError(t, c.Watcher.Close())
	goleak.VerifyNone(t, before)
}
