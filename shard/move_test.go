package shard

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/lease"
	"streamcount/lease/policy"
	"streamcount/lease/rules"
)

// viewers start, keep and stop streams through nodes. They record each stream from the answer
// to its start until they request its stop.
type viewers struct {
	t     *testing.T
	nodes []*Router

	mu   sync.Mutex
	held map[string]map[string]bool // by user: the ids of the streams that must be live

	starts, refusals, heartbeats, degraded, stops, failed atomic.Int64
}

const limit = 3

// watch runs one viewer of user until ctx ends.
func (a *viewers) watch(ctx context.Context, user string) {
	for ctx.Err() == nil {
		node := a.nodes[rand.IntN(len(a.nodes))]
		id := a.anyOf(user)
		switch n := rand.IntN(10); {
		case n < 5 || id == "":
			a.start(node, user)
		case n < 8:
			a.heartbeat(node, user, id)
		default:
			a.stop(node, user, id)
		}
	}
}

func (a *viewers) start(node *Router, user string) {
	st, err := node.Start(a.t.Context(), user, lease.Request{Device: lease.Device{Name: "TV"}})
	switch {
	case err == nil:
		a.starts.Add(1)
		a.mu.Lock()
		defer a.mu.Unlock()
		a.held[user][st.Stream.ID] = true
		if n := len(a.held[user]); n > limit {
			a.t.Errorf("%s has %d streams, by node %p: %v", user, n, node, a.held[user])
		}
	case errors.Is(err, lease.ErrLimit):
		a.refusals.Add(1)
	default:
		a.failed.Add(1)
		a.t.Logf("start of %s: %v", user, err)
	}
}

// heartbeat sends a heartbeat. It removes the stream from held in the meantime, so that no stop of
// the same stream runs concurrently.
func (a *viewers) heartbeat(node *Router, user, id string) {
	var s lease.HeartbeatResult
	if rand.IntN(2) == 0 {
		s = lease.NewHeartbeatResult(node.Heartbeat(a.t.Context(), user, id))
	} else {
		s = node.Heartbeats(a.t.Context(), []lease.HeartbeatRequest{{User: "nobody", ID: id}, {User: user, ID: id}})[1]
	}
	err := s.Err
	a.heartbeats.Add(1)
	if err != nil {
		a.mu.Lock()
		still := a.held[user][id]
		a.mu.Unlock()
		if still {
			a.t.Errorf("heartbeat of a stream of %s that no viewer stopped: %v", user, err)
		}
	}
	if s.Degraded {
		a.degraded.Add(1)
	}
}

func (a *viewers) stop(node *Router, user, id string) {
	a.mu.Lock()
	mine := a.held[user][id]
	delete(a.held[user], id)
	a.mu.Unlock()
	if !mine {
		return
	}
	if _, err := node.Stop(a.t.Context(), user, id); err != nil {
		a.failed.Add(1)
		a.t.Errorf("stop of a stream of %s: %v", user, err)
	}
	a.stops.Add(1)
}

func (a *viewers) anyOf(user string) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	for id := range a.held[user] {
		return id
	}
	return ""
}

// Users move from two shards to three and back while they start, keep and stop streams through
// nodes that receive the map at different times. No user is ever over the limit, and no stream
// ends that its viewer did not stop.
func TestMove_UnderLoad(t *testing.T) {
	t.Parallel()
	e := startShards(t, "a", "b", "c")
	nodes := []*Router{
		e.node(t, 0, "a", "b"), e.node(t, 300*time.Millisecond, "a", "b"), e.node(t, time.Second, "a", "b"),
	}
	a := &viewers{t: t, nodes: nodes, held: map[string]map[string]bool{}}
	const users = 60
	for i := range users {
		a.held[fmt.Sprint("user-", i)] = map[string]bool{}
	}
	five := 5
	_, err := nodes[0].SetOverride(t.Context(), "silent", policy.Override{Limit: &five})
	require.NoError(t, err)
	load, stop := context.WithCancel(t.Context())
	defer stop()
	var watching sync.WaitGroup
	for user := range a.held {
		for range 2 {
			watching.Go(func() { a.watch(load, user) })
		}
	}
	pass := func(n int64) {
		from := a.starts.Load()
		require.Eventually(t, func() bool { return a.starts.Load() > from+n }, soon, time.Millisecond)
	}
	pass(500)
	mover := e.node(t, 0, "a", "b")
	for _, to := range [][]string{{"a", "b", "c"}, {"c", "b"}, {"a", "b"}} {
		var moved int64
		began := time.Now()
		require.NoError(t, mover.Move(t.Context(), e.shards(to...), func(p Progress) { moved = p.Moved }))
		t.Logf("to %v: %d users moved by the mover, %v; epoch %d", to, moved, time.Since(began), mover.Map().Epoch)
		pass(500)
	}
	stop()
	watching.Wait()
	t.Logf("%d starts, %d refusals, %d heartbeats (%d degraded), %d stops, %d failures",
		a.starts.Load(), a.refusals.Load(), a.heartbeats.Load(), a.degraded.Load(), a.stops.Load(), a.failed.Load())
	assert.Zero(t, a.failed.Load())

	a.check(e, "a", "b")
	o, err := nodes[2].Override(t.Context(), "silent")
	require.NoError(t, err)
	assert.Equal(t, 5, *o.Limit, "rules move, too")
	for _, name := range []string{"a", "b", "c"} {
		kv := read(t, e[name].Client(t), "/streamcount/departed/")
		assert.Empty(t, kv, "exported users on %s", name)
		assert.Empty(t, read(t, e[name].Client(t), "/streamcount/arrived/"), "on %s", name)
	}
}

// An override that ends has a lease for the remaining time on the user's new shard, and ends
// there.
func TestMove_OverridesThatEnd(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	e := startShards(t, "a", "b")
	r := e.node(t, 0, "a")
	numbers := map[string]int{"tv": 2}
	later, soonest := time.Now().Add(time.Hour).Truncate(time.Second).UTC(), time.Now().Add(10*time.Second).Truncate(time.Second).UTC()
	_, err := r.SetOverride(ctx, "maya", policy.Override{Limits: numbers, Until: later})
	require.NoError(t, err)
	_, err = r.SetOverride(ctx, "tom", policy.Override{Limits: numbers, Until: soonest})
	require.NoError(t, err)
	require.NoError(t, r.Move(ctx, e.shards("b"), func(Progress) {}))

	o, err := r.Override(ctx, "maya")
	require.NoError(t, err)
	assert.Equal(t, policy.Override{Limits: numbers, Until: later}, o)
	c := e["b"].Client(t)
	resp, err := c.Get(ctx, "/streamcount/limits/maya")
	require.NoError(t, err)
	require.Len(t, resp.Kvs, 1)
	left, err := c.TimeToLive(ctx, clientv3.LeaseID(resp.Kvs[0].Lease))
	require.NoError(t, err)
	assert.InDelta(t, time.Until(later).Seconds(), float64(left.TTL), 60)
	require.Eventually(t, func() bool { return len(read(t, c, "/streamcount/limits/tom")) == 0 }, soon, 10*time.Millisecond)
	assert.False(t, time.Now().Before(soonest))
	_, err = r.Override(ctx, "tom")
	require.ErrorIs(t, err, rules.ErrNoOverride)
	assert.Empty(t, read(t, e["a"].Client(t), "/streamcount/limits/"))
}

// A session whose stream was stopped before its user moved stays out afterwards, on every node
// that has received the stop. A stream that moves has no bar.
func TestMove_Bars(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	e := startShards(t, "a", "b")
	nodes := []*Router{e.node(t, 0, "a"), e.node(t, 0, "a")}
	edge := lease.Request{Session: "tab", Join: true, Via: "edge:vod"}
	attend := func(r *Router, user string) lease.Attendance {
		a, err := r.Attend(ctx, user, "tab", false)
		require.NoError(t, err)
		return a
	}
	ids := map[string]string{}
	for _, user := range []string{"stopped", "removed", "lifted", "running"} {
		st, err := nodes[0].Start(ctx, user, edge)
		require.NoError(t, err)
		ids[user] = st.Stream.ID
	}
	_, err := nodes[0].Stop(ctx, "stopped", ids["stopped"])
	require.NoError(t, err)
	_, err = nodes[1].Remove(ctx, "removed")
	require.NoError(t, err)
	_, err = nodes[1].Stop(ctx, "lifted", ids["lifted"])
	require.NoError(t, err)
	reasons := map[string]policy.Reason{"stopped": policy.ReasonStopped, "removed": policy.ReasonRemoved, "lifted": policy.ReasonStopped}
	check := func() {
		t.Helper()
		for _, r := range nodes {
			for user, reason := range reasons {
				var a lease.Attendance
				require.Eventually(t, func() bool { a = attend(r, user); return a.Bar != nil }, soon, time.Millisecond, user)
				assert.Equal(t, reason, a.Bar.Reason)
				_, err := r.Start(ctx, user, edge)
				var bar *lease.Bar
				require.ErrorAs(t, err, &bar, user)
			}
			require.Eventually(t, func() bool { return attend(r, "running").Stream.ID == ids["running"] }, soon, time.Millisecond)
		}
	}
	check()
	require.NoError(t, e.node(t, 0, "a").Move(ctx, e.shards("b"), func(Progress) {}))
	check()
	for _, r := range nodes {
		require.Eventually(t, func() bool { return len(r.Map().Previous) == 0 && r.Map().Epoch > 1 }, soon, time.Millisecond)
	}
	check()

	st, err := nodes[0].Start(ctx, "lifted", lease.Request{Session: "tab"})
	require.NoError(t, err)
	require.Eventually(t, func() bool { return attend(nodes[1], "lifted").Stream.ID == st.Stream.ID }, soon, time.Millisecond)
	require.NoError(t, nodes[0].Leave(ctx, "lifted", "tab"))
	for _, r := range nodes {
		require.Eventually(t, func() bool { a := attend(r, "lifted"); return a.Stream.User == "" && a.Bar == nil }, soon, time.Millisecond)
	}
}

// check compares etcd's keys with the viewers' records.
func (a *viewers) check(e etcds, homes ...string) {
	m := Map{Shards: e.shards(homes...)}
	for name, member := range e {
		found := map[string]int{}
		for _, key := range read(a.t, member.Client(a.t), "/streamcount/users/") {
			user, _, _ := strings.Cut(strings.TrimPrefix(key, "/streamcount/users/"), "/")
			assert.Equal(a.t, name, m.Shard(user), "shard of %s", user)
			found[user]++
		}
		for user, ids := range a.held {
			if m.Shard(user) == name {
				assert.Len(a.t, ids, found[user], "streams of %s", user)
			}
		}
	}
	for user, ids := range a.held {
		for id := range ids {
			s, err := a.nodes[0].Heartbeat(a.t.Context(), user, id)
			require.NoError(a.t, err)
			assert.False(a.t, s.Degraded)
		}
	}
}

func read(t *testing.T, c *clientv3.Client, prefix string) []string {
	t.Helper()
	resp, err := c.Get(t.Context(), prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly())
	require.NoError(t, err)
	var keys []string
	for _, kv := range resp.Kvs {
		keys = append(keys, string(kv.Key))
	}
	return keys
}
