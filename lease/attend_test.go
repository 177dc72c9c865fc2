package lease

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/testing/etcdsim"
	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/policy"
	"streamcount/lease/userdata"
)

var edge = Request{Session: "tab", Join: true, Via: "edge:vod", Content: Content{ID: "film"}}

// awaitAttended waits until the replica of a node contains the stream of the session "tab",
// or until it does not.
func awaitAttended(t *testing.T, l *Limiter, user string, running bool) {
	t.Helper()
	require.Eventually(t, func() bool {
		e, _, _ := l.replica.LookupSession(user, "tab")
		return (e != nil) == running
	}, soon, time.Millisecond)
}

func attend(t *testing.T, l *Limiter, user string) Attendance {
	t.Helper()
	a, err := l.Attend(t.Context(), user, "tab", false)
	require.NoError(t, err)
	return a
}

// Concurrent starts of a session with Join, on several nodes, start one stream.
func TestJoin_OneStream(t *testing.T) {
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	var nodes []*Limiter
	for range 3 {
		nodes = append(nodes, newLimiter(t, c, Config{Prefix: prefix, Limit: 1}))
	}
	before, err := c.Get(t.Context(), "x")
	require.NoError(t, err)
	for _, user := range []string{"maya", "tom", "ida", "ben", "eva"} {
		var mu sync.Mutex
		ids, joined := map[string]int{}, 0
		var starts sync.WaitGroup
		for i := range 12 {
			starts.Go(func() {
				st, err := nodes[i%3].Start(t.Context(), user, edge)
				if !assert.NoError(t, err) {
					return
				}
				assert.Equal(t, 1, st.Count)
				assert.Empty(t, st.Ended)
				mu.Lock()
				defer mu.Unlock()
				ids[st.Stream.ID]++
				if st.Joined {
					joined++
				}
			})
		}
		starts.Wait()
		assert.Len(t, ids, 1, "one stream")
		assert.Equal(t, 11, joined)
		puts := 0
		for r := range c.Watch(clientv3.WithRequireLeader(t.Context()), nodes[0].keys.UserPrefix(user), clientv3.WithPrefix(), clientv3.WithRev(before.Header.Revision+1)) {
			puts += len(r.Events)
			break
		}
		assert.Equal(t, 1, puts, "one put, and nothing replaced")
	}
	admitted := int64(0)
	for _, l := range nodes {
		admitted += l.admitted.Load()
	}
	assert.EqualValues(t, 5, admitted)
}

// A start with Join is rejected like any other start, and one without takes over the slot.
func TestJoin_OtherStreams(t *testing.T) {
	t.Parallel()
	c := etcdtest.Client(t)
	l := newLimiter(t, c, Config{Prefix: etcdtest.Prefix(t), Limit: 1})
	st := mustStart(t, l, "maya", edge)
	who, err := l.ids.Parse("maya", st.Stream.ID)
	require.NoError(t, err)
	_, err = c.Revoke(t.Context(), clientv3.LeaseID(who.Lease))
	require.NoError(t, err)
	awaitAttended(t, l, "maya", false)
	again := mustStart(t, l, "maya", edge)
	assert.NotEqual(t, st.Stream.ID, again.Stream.ID)
	assert.False(t, again.Joined)
	other := edge
	other.Session = "tab 2"
	_, err = l.Start(t.Context(), "maya", other)
	require.ErrorIs(t, err, ErrLimit)
	other.Session = ""
	_, err = l.Start(t.Context(), "maya", other)
	require.ErrorIs(t, err, ErrLimit, "without a session there is nothing to join")
	moved := edge
	moved.Join, moved.Content.ID = false, "another film"
	third := mustStart(t, l, "maya", moved)
	assert.NotEqual(t, again.Stream.ID, third.Stream.ID)
	awaitAttended(t, l, "maya", true)
	a := attend(t, l, "maya")
	assert.Equal(t, third.Stream.ID, a.Stream.ID, "the session continues: its own start has not barred it")
	assert.Equal(t, "another film", a.Stream.Content.ID)
	assert.Equal(t, "edge:vod", a.Stream.Via)
	require.NoError(t, l.Leave(t.Context(), "maya", "tab"))
	awaitAttended(t, l, "maya", false)
	requireBar(t, attend(t, l, "maya"), "")
}

// Attend renews the lease of a stream without another call.
func TestAttend_KeepsAlive(t *testing.T) {
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	l := newLimiter(t, c, Config{Prefix: prefix, Limit: 1, TTL: MinTTL})
	other := newLimiter(t, c, Config{Prefix: prefix, Limit: 1, TTL: MinTTL})
	a := attend(t, l, "maya")
	assert.Empty(t, a.Stream.User)
	assert.Nil(t, a.Bar)
	st := mustStart(t, l, "maya", edge)
	awaitAttended(t, l, "maya", true)
	awaitAttended(t, other, "maya", true)
	deadline := time.Now().Add(2 * MinTTL)
	for time.Now().Before(deadline) {
		for _, node := range []*Limiter{l, other} {
			a := attend(t, node, "maya")
			if a.Stream.User == "" { // a machine that paused for a whole TTL
				t.Skipf("the stream has expired: the machine is too slow for a TTL of %v", MinTTL)
			}
			require.Equal(t, st.Stream.ID, a.Stream.ID)
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-t.Context().Done():
		}
	}
	assert.Equal(t, 1, keysOf(t, l, "maya"))
	_, err := l.Attend(t.Context(), "a\x00b", "tab", false)
	require.ErrorIs(t, err, ErrBadUser)
}

// A session whose stream was ended on purpose is barred on every node, also on one that starts
// later. It is not barred after an expiry, nor after its player has left.
func TestAttend_Bars(t *testing.T) {
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	cfg := Config{Prefix: prefix, Limit: 1}
	nodes := []*Limiter{newLimiter(t, c, cfg), newLimiter(t, c, cfg)}
	l := nodes[0]
	_, err := l.Rules().SetPlan(t.Context(), policy.DefaultPlan, policy.Plan{Limit: 1, OnLimit: policy.ReplaceOldest})
	require.NoError(t, err)
	reasons := map[string]policy.Reason{}
	for user, end := range map[string]struct {
		reason policy.Reason
		call   func(ctx context.Context, user, id string) error
	}{
		"stopped": {policy.ReasonStopped, func(ctx context.Context, user, id string) error { _, err := l.Stop(ctx, user, id); return err }},
		"removed": {policy.ReasonRemoved, func(ctx context.Context, user, _ string) error { _, err := l.Remove(ctx, user); return err }},
		"erased": {policy.ReasonRemoved, func(ctx context.Context, user, _ string) error {
			_, err := l.UserData().Erase(ctx, user, userdata.Options{})
			return err
		}},
		"oldest": {policy.ReasonStopped, func(ctx context.Context, user, _ string) error {
			_, err := l.StopOldestHeartbeat(ctx, user)
			return err
		}},
		"evicted": {policy.ReasonEvicted, func(ctx context.Context, user, _ string) error {
			_, err := l.Start(ctx, user, Request{Session: "tv", OnLimit: policy.ReplaceOldest})
			return err
		}},
		"replaced": {policy.ReasonReplaced, func(ctx context.Context, user, id string) error {
			_, err := l.Start(ctx, user, Request{Session: "tv", Replaces: []string{id}})
			return err
		}},
		"left": {"", func(ctx context.Context, user, _ string) error { return l.Leave(ctx, user, "tab") }},
		"expired": {"", func(ctx context.Context, user, id string) error {
			who, err := l.ids.Parse(user, id)
			require.NoError(t, err)
			_, err = c.Revoke(ctx, clientv3.LeaseID(who.Lease))
			return err
		}},
	} {
		st := mustStart(t, l, user, edge)
		for _, node := range nodes {
			awaitAttended(t, node, user, true)
		}
		require.NoError(t, end.call(t.Context(), user, st.Stream.ID), user)
		for _, node := range nodes {
			awaitAttended(t, node, user, false)
			requireBar(t, attend(t, node, user), end.reason)
		}
		reasons[user] = end.reason
	}
	late := newLimiter(t, c, cfg)
	require.Eventually(t, late.replica.Current, soon, time.Millisecond)
	for user, reason := range reasons {
		requireBar(t, attend(t, late, user), reason)
	}
	explicit := Request{Session: "tab"}
	mustStart(t, l, "stopped", explicit)
	for _, node := range append(nodes, late) {
		awaitAttended(t, node, "stopped", true)
	}
	require.NoError(t, l.Leave(t.Context(), "stopped", "tab"))
	require.NoError(t, l.Leave(t.Context(), "stopped", "tab"), "it may be repeated")
	for _, node := range append(nodes, late) {
		awaitAttended(t, node, "stopped", false)
		requireBar(t, attend(t, node, "stopped"), "")
	}
}

func requireBar(t *testing.T, a Attendance, reason policy.Reason) {
	t.Helper()
	require.Empty(t, a.Stream.User)
	if reason == "" {
		require.Nil(t, a.Bar)
		return
	}
	require.NotNil(t, a.Bar, reason)
	assert.Equal(t, reason, a.Bar.Reason)
	assert.Positive(t, a.Bar.RetryAfter)
}

// A stream that was started by its player has no bar when it ends.
func TestAttend_ExplicitStreamsHaveNoBar(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 1})
	st := mustStart(t, l, "maya", Request{Session: "tab"})
	_, err := l.Stop(t.Context(), "maya", st.Stream.ID)
	require.NoError(t, err)
	awaitAttended(t, l, "maya", false)
	requireBar(t, attend(t, l, "maya"), "")
}

// The streams of a node are counted by what started them. The start, the lists, the events and
// the export contain it.
func TestVia(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 3})
	for session, via := range map[string]string{"a": "edge:vod", "b": "edge:live", "c": "later:x", "d": ""} {
		st := mustStart(t, l, session, Request{Session: session, Via: via})
		assert.Equal(t, via, st.Stream.Via)
		list, err := l.List(t.Context(), session, Linearizable)
		require.NoError(t, err)
		require.Len(t, list.Active, 1)
		assert.Equal(t, via, list.Active[0].Via)
		data, err := l.UserData().Read(t.Context(), session, userdata.Options{})
		require.NoError(t, err)
		require.Len(t, data.Streams, 1)
		assert.Equal(t, via, data.Streams[0].Via)
	}
	require.Eventually(t, func() bool { return l.replica.Total(3).Streams == 4 }, soon, time.Millisecond)
	totals, err := l.Totals(t.Context())
	require.NoError(t, err)
	assert.Equal(t, map[string]int{"edge": 2, "other": 1}, totals.ByVia)
	assert.Equal(t, map[string]int{"player": 1, "edge": 2, "other": 1}, l.Stats().Via)
	require.NoError(t, l.Leave(t.Context(), "a", "a"))
	require.Eventually(t, func() bool { return l.Stats().Via["edge"] == 1 }, soon, time.Millisecond)
}

// LookUpSession returns what Attend returns, and has no effect.
func TestLookUpSession(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, etcdtest.Client(t), Config{Prefix: etcdtest.Prefix(t), Limit: 7})
	_, err := l.LookUpSession(t.Context(), "", "tab", false)
	require.ErrorIs(t, err, ErrBadUser)
	look := func() Attendance {
		a, err := l.LookUpSession(t.Context(), "maya", "tab", false)
		require.NoError(t, err)
		return a
	}
	assert.Equal(t, Attendance{Current: true}, look())
	st := mustStart(t, l, "maya", edge)
	mustStart(t, l, "maya", Request{})
	awaitAttended(t, l, "maya", true)
	a := look()
	assert.Equal(t, st.Stream.ID, a.Stream.ID)
	require.Eventually(t, func() bool { return look().Streams == 2 }, soon, time.Millisecond)
	assert.Equal(t, 7, a.Limit)
	_, err = l.Stop(t.Context(), "maya", st.Stream.ID)
	require.NoError(t, err)
	awaitAttended(t, l, "maya", false)
	require.Eventually(t, func() bool { return look().Bar != nil }, soon, time.Millisecond)
	assert.Equal(t, policy.ReasonStopped, look().Bar.Reason)
}

// Leave reports an unknown outcome as ErrUnavailable.
func TestLeave_EtcdIsUnavailable(t *testing.T) {
	t.Parallel()
	r := newFaultyLimiter(t, Config{Limit: 1})
	mustStart(t, r.Limiter, "maya", edge)
	awaitAttended(t, r.Limiter, "maya", true)
	release := r.faults.Hold(etcdtest.Txn)
	err := r.Leave(shortCall(t), "maya", "tab")
	require.ErrorIs(t, err, ErrUnavailable)
	release()
	require.NoError(t, r.Leave(t.Context(), "maya", "tab"))
	r.requireKeys(t, 0)
}

// A removal that finds that a stream has ended in between keeps its reason, and sets no bar.
func TestRemove_OfAStreamThatHasLeft(t *testing.T) {
	t.Parallel()
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	l, other := newLimiter(t, c, Config{Prefix: prefix, Limit: 1}), newLimiter(t, c, Config{Prefix: prefix, Limit: 1})
	st := mustStart(t, l, "maya", edge)
	s, err := l.readUser(t.Context(), "maya")
	require.NoError(t, err)
	require.Len(t, s.entries, 1)
	require.NoError(t, other.Leave(t.Context(), "maya", "tab"))
	now, err := l.remove(t.Context(), "maya", s)
	require.NoError(t, err)
	require.Nil(t, now, "the transaction was applied")
	awaitAttended(t, l, "maya", false)
	requireBar(t, attend(t, l, "maya"), "")
	_, err = l.Heartbeat(t.Context(), "maya", st.Stream.ID)
	requireEnded(t, err, policy.ReasonStopped)
}

// Each tombstone exists for at least three quarters of a TTL, so that a node that starts within
// that time has its bar.
func TestTombstones_Lifetime(t *testing.T) {
	t.Parallel()
	const ttl = 40 * time.Second
	etcdsim.Bubble(t, func(t *testing.T) {
		t.Helper()
		e := etcdsim.New()
		put, gone := map[string]time.Time{}, map[string]time.Duration{}
		e.Audit = func(e *etcdsim.Etcd, _ etcdsim.Cause) {
			now := map[string]bool{}
			for _, kv := range e.Locked("/p/ended/") {
				now[string(kv.Key)] = true
				if put[string(kv.Key)].IsZero() {
					put[string(kv.Key)] = time.Now()
				}
			}
			for key, at := range put {
				if _, known := gone[key]; !now[key] && !known {
					gone[key] = time.Since(at)
				}
			}
		}
		link := &etcdsim.Link{Etcd: e}
		l, err := New(Etcd{KV: link.KV(), Lease: link.Lease(), Watch: link.Watcher()}, Config{
			Prefix: "/p", Limit: 1, TTL: ttl, Secret: []byte("0123456789abcdef"),
		})
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		running.Go(func() { assert.NoError(t, l.Run(ctx)) })
		running.Go(func() {
			for !sleep(ctx, 500*time.Millisecond) {
				e.Tick()
			}
		})
		for i := range 60 {
			time.Sleep(time.Duration(i%20+1) * time.Second) // the next lease is granted when the current one is used
			st := mustStart(t, l, fmt.Sprint("user ", i), edge).Stream
			_, err := l.Stop(ctx, st.User, st.ID)
			require.NoError(t, err)
		}
		stop()
		running.Wait()
		require.NotEmpty(t, gone)
		for key, age := range gone {
			assert.GreaterOrEqual(t, age, ttl*3/4, key)
		}
	})
}
