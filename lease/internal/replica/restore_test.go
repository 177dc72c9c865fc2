package replica

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// An etcd that was restored from a backup has another history after the backup. The
// replica must not continue the history that was lost.
func TestReplica_RelistsAfterRestore(t *testing.T) {
	t.Parallel()
	e := etcdtest.StartWithBackup(t)
	c := e.Conn
	put := func(user string, n int) {
		for i := range n {
			_, err := c.Put(t.Context(), schema.Keys{Prefix: "/t"}.Slot(fmt.Sprint(user, i), 0), string(recordValue(streamid.Nonce{1}, "")))
			require.NoError(t, err)
		}
	}
	put("old", 1)
	e.Backup(t)
	put("lost", 20)
	v := runReplica(t, e.Client(t), "/t")
	requireCurrent(t, v)
	v.lastOwnWrite.Store(v.applied.Load())

	lists := v.lists.Load()
	e.Restore(t)
	put("new", 10) // a lower revision than the replica had applied
	require.Eventually(t, func() bool { return v.lists.Load() > lists }, time.Minute, time.Millisecond)
	requireCurrent(t, v)
	assert.Zero(t, v.lastOwnWrite.Load(), "no call waits for a lost write")
	put("newer", 20)
	resp, err := c.Get(t.Context(), "x")
	require.NoError(t, err)
	require.True(t, v.WaitApplied(t.Context(), resp.Header.Revision))
	for user, want := range map[string]int{"old0": 1, "lost0": 0, "lost19": 0, "new0": 1, "newer0": 1} {
		entries, _, _ := v.UserEntries(user)
		assert.Len(t, entries, want, user)
	}
}

// Changes while the replica did not watch are no sign of a restore. Deleted keys that exist
// again are one, and so is a revision lower than the replica's. Each is reported once.
func TestReplica_DetectsRestoreInList(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	v, restores := newTestReplica(c, prefix), 0
	v.cfg.OnRestore = func() { restores++ }
	put := func(user string, n streamid.Nonce) {
		_, err := c.Put(t.Context(), v.keys.Slot(user, 0), string(recordValue(n, "")))
		require.NoError(t, err)
	}
	requireRestores := func(want int) {
		t.Helper()
		for range 2 {
			require.NoError(t, v.list(t.Context()))
			require.Equal(t, want, restores)
		}
	}
	put("goes", streamid.Nonce{1})
	put("stays", streamid.Nonce{2})
	put("ends", streamid.Nonce{3})
	requireRestores(0)
	_, err := c.Delete(t.Context(), v.keys.Slot("goes", 0))
	require.NoError(t, err)
	put("comes", streamid.Nonce{4})
	put("ends", streamid.Nonce{5}) // another stream in the slot
	requireRestores(0)
	v.removeEntry("ends", "000") // as if its deletion had been applied
	requireRestores(1)
	v.applied.Add(100)
	requireRestores(2)
}

// A tombstone may belong to a failed decision, so a list ignores those of streams that
// still exist.
func TestReplica_IgnoresTombstonesOfLiveStreams(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	k, n := schema.Keys{Prefix: prefix}, streamid.Nonce{7}
	lease, err := c.Grant(t.Context(), 600)
	require.NoError(t, err)
	_, err = c.Put(t.Context(), k.Slot("maya", 0), string(recordValue(n, "")), clientv3.WithLease(lease.ID))
	require.NoError(t, err)
	_, err = c.Put(t.Context(), k.TombstonesPrefix()+"x", string(schema.EncodeTombstones([]schema.Tombstone{{Nonce: n, Reason: policy.ReasonEvicted}})))
	require.NoError(t, err)
	v := runReplica(t, c, prefix)
	requireCurrent(t, v)
	_, err = c.Revoke(t.Context(), lease.ID)
	require.NoError(t, err)
	require.Eventually(t, func() bool { _, told := v.Ending(n); return told }, time.Minute, time.Millisecond)
	g, _ := v.Ending(n)
	assert.Equal(t, policy.ReasonExpired, g.Reason)
	assert.EqualValues(t, 1, v.Expiries())
}

// Without a tombstone the watch counts a stop by this node as an expiry, until the stop
// records its reason.
func TestReplica_OwnStopIsNotAnExpiry(t *testing.T) {
	v := New(nil, nil, schema.Keys{Prefix: "/t"}, Config{EndingsTTL: time.Minute})
	for _, n := range []streamid.Nonce{{1}, {2}} {
		v.recordEnding(n, nil)
	}
	require.EqualValues(t, 2, v.Expiries())
	for range 2 { // recorded twice
		v.RecordOwnEnding("maya", schema.Tombstone{Nonce: streamid.Nonce{1}, Reason: policy.ReasonStopped})
	}
	assert.EqualValues(t, 1, v.Expiries())
	g, _ := v.Ending(streamid.Nonce{1})
	assert.Equal(t, policy.ReasonStopped, g.Reason)
}

// The answer to a stop may arrive when its stream has ended without a tombstone and the session
// has started another one. Such a session has no bar.
func TestReplica_OwnStopDoesNotBarARunningSession(t *testing.T) {
	for name, started := range map[string]bool{"the session has no stream": false, "the session has started another": true} {
		t.Run(name, func(t *testing.T) {
			v := New(nil, nil, schema.Keys{Prefix: "/t"}, Config{EndingsTTL: time.Minute})
			key := []byte(v.keys.Slot("maya", 0))
			events := []*mvccpb.Event{
				{Type: mvccpb.Event_PUT, Kv: &mvccpb.KeyValue{Key: key, Value: recordValue(streamid.Nonce{1}, "tab"), ModRevision: 10}},
				{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: key, ModRevision: 11}},
			}
			if started {
				events = append(events, &mvccpb.Event{
					Type: mvccpb.Event_PUT, Kv: &mvccpb.KeyValue{Key: key, Value: recordValue(streamid.Nonce{2}, "tab"), ModRevision: 12},
				})
			}
			v.Apply(events)
			bar := schema.BarKeyOf("maya", "tab")
			v.RecordOwnEnding("maya", schema.Tombstone{Nonce: streamid.Nonce{1}, Reason: policy.ReasonStopped, Bar: bar})
			_, _, barred := v.Bars().Check(bar, false)
			assert.Equal(t, !started, barred)
		})
	}
}

// A replica resumes its watch only in the history that it has applied, not in another one
// with the same revisions.
func TestReplica_DetectsAnotherHistory(t *testing.T) {
	t.Parallel()
	type step struct{ key, value string } // an empty value deletes
	put, drop := func(v string) step { return step{"/t/users/maya/000", v} }, step{"/t/users/maya/000", ""}
	other := step{"/elsewhere", "x"}
	a, b := string(recordValue(streamid.Nonce{1}, "")), string(recordValue(streamid.Nonce{2}, ""))
	for name, c := range map[string]struct {
		listed, seen, restored []step // restored is the complete other history
	}{
		"another put":                 {nil, []step{put(a)}, []step{put(b), other}},
		"no deletion":                 {nil, []step{put(a), drop}, []step{put(a), other, other}},
		"another stream of the slot":  {nil, []step{put(a), drop}, []step{put(a), put(b), other}},
		"nothing seen since the list": {[]step{put(a)}, nil, []step{put(b), other}},
		"listed after a deletion":     {[]step{put(a), drop, put(a)}, nil, []step{put(a), drop, other, other}},
	} {
		t.Run(name, func(t *testing.T) {
			write := func(c *clientv3.Client, steps []step) {
				for _, s := range steps {
					var err error
					if s.value == "" {
						_, err = c.Delete(t.Context(), s.key)
					} else {
						_, err = c.Put(t.Context(), s.key, s.value)
					}
					require.NoError(t, err)
				}
			}
			first, second := etcdtest.Start(t, etcdtest.Config{}).Client(t), etcdtest.Start(t, etcdtest.Config{}).Client(t)
			write(first, c.listed)
			v := newTestReplica(first, "/t")
			require.NoError(t, v.list(t.Context()))
			write(first, c.seen)
			ctx, stop := context.WithCancel(t.Context())
			end := make(chan error, 1)
			go func() { end <- v.watch(ctx) }()
			resp, err := first.Get(t.Context(), "x")
			require.NoError(t, err)
			require.Eventually(t, func() bool { return v.applied.Load() == resp.Header.Revision }, time.Minute, time.Millisecond)
			stop()
			require.ErrorIs(t, <-end, context.Canceled)

			same, err := v.sameHistory(t.Context())
			require.NoError(t, err)
			assert.True(t, same)
			write(second, c.restored)
			v.kv, v.watcher = clientv3.RetryKVClient(second), NewWatcher(second)
			same, err = v.sameHistory(t.Context())
			require.NoError(t, err)
			assert.False(t, same)

			require.NoError(t, v.list(t.Context()))
			want, err := second.Get(t.Context(), "/t/users/", clientv3.WithPrefix())
			require.NoError(t, err)
			entries, _, _ := v.UserEntries("maya")
			require.Len(t, entries, len(want.Kvs))
			for i, kv := range want.Kvs {
				assert.Equal(t, string(kv.Value), string(entries[i].Value), "also if another put had the same revision")
			}
		})
	}
}
