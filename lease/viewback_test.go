package lease

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"streamcount/internal/etcdtest"
)

// savedEtcd is an etcd that can be set back to what it was when it was saved.
type savedEtcd struct {
	*etcdtest.Member
	client      *clientv3.Client
	dir, backup string
}

func newSavedEtcd(t *testing.T) *savedEtcd {
	t.Helper()
	dir := t.TempDir()
	m := etcdtest.Start(t, etcdtest.Config{Dir: dir})
	return &savedEtcd{Member: m, client: m.Client(t), dir: dir}
}

func (s *savedEtcd) save(t *testing.T) {
	t.Helper()
	s.backup = t.TempDir() + "/backup"
	s.replace(t, s.backup, s.dir)
}

func (s *savedEtcd) setBack(t *testing.T) {
	t.Helper()
	s.replace(t, s.dir, s.backup)
}

// replace restarts etcd, having put a copy of one directory in the place of another.
func (s *savedEtcd) replace(t *testing.T, old, by string) {
	t.Helper()
	s.Stop()
	require.NoError(t, os.RemoveAll(old))
	require.NoError(t, os.CopyFS(old, os.DirFS(by)))
	s.Restart(t)
	require.Eventually(t, func() bool { // the client has to connect again
		_, err := s.client.Get(t.Context(), "x")
		return err == nil
	}, time.Minute, 10*time.Millisecond)
}

// An etcd restored from a backup has another history from there on. The view
// must not take it for the rest of the one that it has seen.
func TestView_ListsAnEtcdThatWasSetBack(t *testing.T) {
	e := newSavedEtcd(t)
	c := e.client
	put := func(user string, n int) {
		for i := range n {
			_, err := c.Put(t.Context(), keys{"/t"}.slot(fmt.Sprint(user, i), 0), string(recordValue(nonce{1}, "")))
			require.NoError(t, err)
		}
	}
	put("old", 1)
	e.save(t)
	put("lost", 20)
	v := runView(t, e.Client(t), "/t")
	requireCurrent(t, v)
	v.own.Store(v.applied.Load())

	e.setBack(t)
	put("new", 10) // still before the revision that the view had seen
	require.Eventually(t, func() bool { return !v.current() }, time.Minute, time.Millisecond)
	requireCurrent(t, v)
	assert.Zero(t, v.own.Load(), "a write that was lost is waited for by nobody")
	put("newer", 20)
	resp, err := c.Get(t.Context(), "x")
	require.NoError(t, err)
	require.True(t, v.reach(t.Context(), resp.Header.Revision))
	for user, want := range map[string]int{"old0": 1, "lost0": 0, "lost19": 0, "new0": 1, "newer0": 1} {
		s, _ := v.user(user)
		assert.Len(t, s.held, want, user)
	}
}

// What happened while the view did not watch is no restore. Keys that it had seen go
// are one, and so is a revision before its own; each is told once.
func TestView_TellsARestoreFromALateList(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	v, restores := testView(Over(c), prefix), 0
	v.onRestore = func() { restores++ }
	put := func(user string, n nonce) {
		_, err := c.Put(t.Context(), v.keys.slot(user, 0), string(recordValue(n, "")))
		require.NoError(t, err)
	}
	requireRestores := func(want int) {
		t.Helper()
		for range 2 {
			require.NoError(t, v.list(t.Context()))
			require.Equal(t, want, restores)
		}
	}
	put("goes", nonce{1})
	put("stays", nonce{2})
	put("ends", nonce{3})
	requireRestores(0)
	_, err := c.Delete(t.Context(), v.keys.slot("goes", 0))
	require.NoError(t, err)
	put("comes", nonce{4})
	put("ends", nonce{5}) // another stream in its place
	requireRestores(0)
	v.remove("ends", "000") // of the last revision
	requireRestores(1)
	v.applied.Add(100)
	requireRestores(2)
}

// brokenLists fails lists of plans, which come after those of streams.
type brokenLists struct {
	pb.KVClient
	left atomic.Int32
}

func (b *brokenLists) Range(ctx context.Context, r *pb.RangeRequest, o ...grpc.CallOption) (*pb.RangeResponse, error) {
	if bytes.Contains(r.Key, []byte("/plans/")) && b.left.Add(-1) >= 0 {
		return nil, errors.New("cut off")
	}
	return b.KVClient.Range(ctx, r, o...)
}

// A lease that waits in a node was a stream's that has ended. Where etcd is set back
// to before that, the stream is there again: the node must not keep it alive with
// the lease, nor give that to another.
func TestRestored_NoLeaseKeepsAliveWhatHadEnded(t *testing.T) {
	e := newSavedEtcd(t)
	on := Over(e.Client(t))
	lists := &brokenLists{KVClient: on.KV}
	on.KV = lists
	l := runLimiter(t, on, Config{Limit: 3, TTL: 10 * time.Minute})
	stopped, living := mustStart(t, l, "maya", Request{}).Stream, mustStart(t, l, "ben", Request{}).Stream
	e.save(t)
	require.Eventually(t, l.view.current, time.Minute, 10*time.Millisecond)
	_, err := l.Stop(t.Context(), "maya", stopped.ID)
	require.NoError(t, err)
	lease := leaseOfID(t, l, stopped).lease
	waits := func() bool {
		l.pool.book.mu.Lock()
		defer l.pool.book.mu.Unlock()
		return slices.ContainsFunc(l.pool.book.waiting, func(g granted) bool { return g.lease == lease })
	}
	require.True(t, waits(), "its lease waits for another stream")
	require.Eventually(t, func() bool { s, _ := l.view.user("maya"); return len(s.held) == 0 }, time.Minute, time.Millisecond)

	lists.left.Store(math.MaxInt32)
	e.setBack(t)
	require.Eventually(t, func() bool { return lists.left.Load() < math.MaxInt32 }, time.Minute, time.Millisecond)
	require.False(t, l.view.current())
	for i := range 5 { // before the node knows
		var st Started
		require.Eventually(t, func() bool {
			st, err = l.Start(t.Context(), fmt.Sprint("user-", i), Request{})
			return err == nil
		}, time.Minute, 10*time.Millisecond)
		require.NotEqual(t, lease, leaseOfID(t, l, st.Stream).lease)
	}
	require.True(t, waits())
	lists.left.Store(1) // what the list that fails has found out is not forgotten
	require.Eventually(t, l.view.current, time.Minute, time.Millisecond)
	assert.Negative(t, lists.left.Load())
	assert.False(t, waits())
	require.Eventually(t, func() bool { return keysOf(t, l, "maya") == 0 }, time.Minute, 10*time.Millisecond,
		"the slot is free again long before the TTL")
	_, err = l.Heartbeat(t.Context(), "maya", stopped.ID)
	requireEnded(t, err, ReasonStopped)
	_, err = l.Heartbeat(t.Context(), "ben", living.ID)
	require.NoError(t, err, "who went on watching has his stream")
	assert.Equal(t, 1, keysOf(t, l, "ben"))
}

// A tombstone may hold graves of plans that failed. A listing believes none of
// streams that are still there.
func TestView_DoubtsGravesOfTheLivingWhenItLists(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	k, n := keys{prefix}, nonce{7}
	lease, err := c.Grant(t.Context(), 600)
	require.NoError(t, err)
	_, err = c.Put(t.Context(), k.slot("maya", 0), string(recordValue(n, "")), clientv3.WithLease(lease.ID))
	require.NoError(t, err)
	_, err = c.Put(t.Context(), k.ended()+"x", string(gravesValue([]grave{{Nonce: n, Reason: ReasonEvicted}})))
	require.NoError(t, err)
	v := runView(t, c, prefix)
	requireCurrent(t, v)
	_, err = c.Revoke(t.Context(), lease.ID)
	require.NoError(t, err)
	require.Eventually(t, func() bool { _, told := v.ended(n); return told }, time.Minute, time.Millisecond)
	g, _ := v.ended(n)
	assert.Equal(t, ReasonExpired, g.Reason)
	assert.EqualValues(t, 1, v.expiries())
}

// Without a tombstone the watch takes a stop of this node's own for an expiry,
// until the stop itself says otherwise.
func TestView_AStopIsNoExpiry(t *testing.T) {
	v := newView(Etcd{}, keys{"/t"}, viewConfig{span: time.Minute})
	for _, n := range []nonce{{1}, {2}} {
		v.bury(n, nil)
	}
	require.EqualValues(t, 2, v.expiries())
	for range 2 { // however often it is said
		v.note(grave{Nonce: nonce{1}, Reason: ReasonStopped})
	}
	assert.EqualValues(t, 1, v.expiries())
	g, _ := v.ended(nonce{1})
	assert.Equal(t, ReasonStopped, g.Reason)
}
