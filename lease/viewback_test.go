package lease

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/etcdtest"
)

// An etcd restored from a backup has another history from there on. The view
// must not take it for the rest of the one that it has seen.
func TestView_ListsAnEtcdThatWasSetBack(t *testing.T) {
	dir, backup := t.TempDir(), t.TempDir()+"/backup"
	m := etcdtest.Start(t, etcdtest.Config{Dir: dir})
	c := m.Client(t)
	put := func(user string, n int) {
		for i := range n {
			_, err := c.Put(t.Context(), keys{"/t"}.slot(fmt.Sprint(user, i), 0), string(recordValue(nonce{1}, "")))
			require.NoError(t, err)
		}
	}
	put("old", 1)
	m.Stop()
	require.NoError(t, os.CopyFS(backup, os.DirFS(dir)))
	m.Restart(t)
	put("lost", 20)
	v := runView(t, m.Client(t), "/t")
	requireCurrent(t, v)
	v.own.Store(v.applied.Load())

	m.Stop()
	require.NoError(t, os.RemoveAll(dir))
	require.NoError(t, os.CopyFS(dir, os.DirFS(backup)))
	m.Restart(t)
	require.Eventually(t, func() bool { // the client has to connect again
		_, err := c.Get(t.Context(), "x")
		return err == nil
	}, time.Minute, 10*time.Millisecond)
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
