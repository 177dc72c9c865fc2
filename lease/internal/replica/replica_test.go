package replica

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"pgregory.net/rapid"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

func newTestReplica(c *clientv3.Client, prefix string) *Replica {
	var kv pb.KVClient
	var watcher clientv3.Watcher
	if c != nil {
		kv, watcher = clientv3.RetryKVClient(c), NewWatcher(c)
	}
	return New(kv, watcher, schema.Keys{Prefix: prefix}, Config{
		Timeout: 5 * time.Second, Log: slog.New(slog.DiscardHandler), EndingsTTL: time.Minute,
	})
}

func runReplica(t *testing.T, c *clientv3.Client, prefix string) *Replica {
	t.Helper()
	v := newTestReplica(c, prefix)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
		assert.False(t, v.Current(), "a replica whose Run has returned")
	})
	return v
}

func requireCurrent(t *testing.T, v *Replica) {
	t.Helper()
	require.Eventually(t, v.Current, time.Minute, time.Millisecond)
}

func recordValue(n streamid.Nonce, session string) []byte {
	b, err := json.Marshal(schema.Record{Nonce: n, Started: 1, TTLSeconds: 90, Region: "eu", Session: session})
	if err != nil {
		panic(err)
	}
	return b
}

// requireSame compares the replica with etcd at the replica's revision.
func requireSame(t *testing.T, c *clientv3.Client, v *Replica, prefix string, users []string) {
	t.Helper()
	now, err := c.Get(t.Context(), prefix+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return v.WaitApplied(t.Context(), now.Header.Revision) }, time.Minute, time.Millisecond)
	streams, holders, regions := 0, 0, map[string]int{}
	for _, user := range users {
		entries, rev, current := v.UserEntries(user)
		require.True(t, current)
		resp, err := c.Get(t.Context(), v.keys.UserPrefix(user), clientv3.WithPrefix(), clientv3.WithRev(rev))
		require.NoError(t, err)
		want := schema.NewEntries(v.keys, user, resp.Kvs)
		require.Len(t, entries, len(want), user)
		for i, h := range want {
			require.Equal(t, h, entries[i])
			regions[schema.DecodeHead(h.Value).Region]++
			seen, _ := v.Lookup(user, h.StreamID())
			require.Equal(t, h.Slot >= 0, seen != nil, "%s: by its id", h.Key)
		}
		if streams += len(want); len(want) > 0 {
			holders++
		}
	}
	got := v.Total(2)
	assert.Equal(t, []int{streams, holders}, []int{got.Streams, got.Users})
	assert.Equal(t, regions, got.ByRegion)
}

// Under random writes, compactions and restarts of the member, a current replica equals
// etcd at the replica's revision.
func TestReplica_FollowsEtcd(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t, etcdtest.Config{})
	c := m.Client(t)
	v := runReplica(t, c, "/p")
	var users []string
	for i := range 12 {
		users = append(users, fmt.Sprint("user-", i))
	}
	ctx := t.Context()
	var leases []clientv3.LeaseID
	for step := range 600 {
		user := users[rand.N(len(users))]
		key := v.keys.Slot(user, rand.N(4))
		var err error
		switch rand.N(10) {
		case 0, 1, 2, 3:
			lease, gerr := c.Grant(ctx, 60)
			require.NoError(t, gerr)
			leases = append(leases, lease.ID)
			_, err = c.Put(ctx, key, string(recordValue(streamid.Nonce{1, byte(step), byte(step >> 8)}, "tab")), clientv3.WithLease(lease.ID))
		case 4:
			_, err = c.Delete(ctx, key)
		case 5:
			_, err = c.Delete(ctx, v.keys.UserPrefix(user), clientv3.WithPrefix())
		case 6:
			if len(leases) > 0 {
				_, err = c.Revoke(ctx, leases[len(leases)-1])
				leases = leases[:len(leases)-1]
			}
		case 7: // keys of other programs count
			junk := []string{"000x", "70000", "a/b", "", "0001"}[rand.N(5)]
			_, err = c.Put(ctx, v.keys.UserPrefix(user)+junk, "junk")
		case 8: // several users in one revision
			_, err = c.Txn(ctx).Then(clientv3.OpDelete(v.keys.Slot(users[0], 0)),
				clientv3.OpPut(v.keys.Slot(users[1], 0), string(recordValue(streamid.Nonce{2, byte(step), byte(step >> 8)}, ""))),
				clientv3.OpPut("/p/limits/x", "5")).Commit()
		case 9:
			_, err = c.Put(ctx, "/elsewhere", "x")
		}
		require.NoError(t, err)
		switch {
		case step%100 == 50:
			requireSame(t, c, v, "/p", users)
		case step%200 == 99:
			m.Restart(t)
			require.Eventually(t, func() bool {
				_, err := c.Get(ctx, "x")
				return err == nil
			}, time.Minute, 10*time.Millisecond)
		case step%200 == 149:
			now, err := c.Get(ctx, "x")
			require.NoError(t, err)
			_, err = c.Compact(ctx, now.Header.Revision)
			require.NoError(t, err)
		}
	}
	requireSame(t, c, v, "/p", users)
}

// While etcd is unavailable the replica is not current. It is current again when etcd is
// available.
func TestReplica_NotCurrentWhileEtcdIsUnavailable(t *testing.T) {
	t.Parallel()
	m := etcdtest.Start(t, etcdtest.Config{})
	c := m.Client(t)
	v := runReplica(t, c, "/p")
	requireCurrent(t, v)
	_, err := c.Put(t.Context(), v.keys.Slot("gone", 0), string(recordValue(streamid.Nonce{1}, "")))
	require.NoError(t, err)
	requireSame(t, c, v, "/p", []string{"gone"})
	m.Stop()
	require.Eventually(t, func() bool { return !v.Current() }, time.Minute, 10*time.Millisecond)
	wait, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	assert.False(t, v.WaitApplied(wait, v.applied.Load()))
	_, _, current := v.UserEntries("gone")
	assert.False(t, current)
	m.Restart(t)
	requireCurrent(t, v)
	requireSame(t, c, v, "/p", []string{"gone"})
}

func TestReplica_RelistsAfterCompaction(t *testing.T) {
	c, prefix := etcdtest.Start(t, etcdtest.Config{}).Client(t), "/t"
	v := newTestReplica(c, prefix)
	require.NoError(t, v.list(t.Context()))
	put := func(user string, n streamid.Nonce) int64 {
		resp, err := c.Put(t.Context(), v.keys.Slot(user, 0), string(recordValue(n, "")))
		require.NoError(t, err)
		return resp.Header.Revision
	}
	put("stays", streamid.Nonce{1})
	put("goes", streamid.Nonce{2})
	require.NoError(t, v.list(t.Context()))
	before, _ := v.Lookup("stays", streamid.ID{Nonce: streamid.Nonce{1}})
	require.NotNil(t, before)
	renewed := time.Now()
	before.RecordRenewal(renewed)
	_, err := c.Delete(t.Context(), v.keys.Slot("goes", 0))
	require.NoError(t, err)
	_, err = c.Compact(t.Context(), put("comes", streamid.Nonce{3}))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }() // watches from the revision of the last list
	requireCurrent(t, v)
	requireSame(t, c, v, prefix, []string{"stays", "goes", "comes"})
	after, _ := v.Lookup("stays", streamid.ID{Nonce: streamid.Nonce{1}})
	assert.Same(t, before, after, "the entry of an unchanged stream is kept")
	assert.WithinDuration(t, renewed, after.LastRenewal(), 0)
	cancel()
	require.NoError(t, <-done)
}

func TestReplica_RecordsEndReasons(t *testing.T) {
	v := newTestReplica(nil, "/p")
	rev := int64(10)
	event := func(put bool, key string, value []byte) *mvccpb.Event {
		kv := &mvccpb.KeyValue{Key: []byte(key), Value: value, ModRevision: rev}
		if put {
			return &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: kv}
		}
		return &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: kv}
	}
	for i := range 6 {
		v.Apply([]*mvccpb.Event{event(true, v.keys.Slot(fmt.Sprint("u", i), 0), recordValue(streamid.Nonce{byte(i + 1)}, ""))})
	}
	rev++
	v.RecordOwnEnding("u2", schema.Tombstone{Nonce: streamid.Nonce{3}, Reason: policy.ReasonStopped}) // by this node, without a tombstone
	v.RecordIntendedEnding(schema.Tombstone{Nonce: streamid.Nonce{6}, Reason: policy.ReasonStopped})
	v.Apply([]*mvccpb.Event{
		event(false, v.keys.Slot("u0", 0), nil),                                // stopped
		event(true, v.keys.Slot("u1", 0), recordValue(streamid.Nonce{99}, "")), // taken over
		event(false, v.keys.Slot("u2", 0), nil),                                // recorded by this node
		event(false, v.keys.Slot("u3", 0), nil),                                // expired
		event(true, v.keys.TombstonesPrefix()+"x", schema.EncodeTombstones([]schema.Tombstone{{Nonce: streamid.Nonce{1}, Reason: policy.ReasonStopped},
			{Nonce: streamid.Nonce{2}, Reason: policy.ReasonReplaced, By: &schema.Replacement{Started: 7}},
			{Nonce: streamid.Nonce{5}, Reason: policy.ReasonEvicted}})), // of a failed decision: the stream with nonce 5 still exists
		event(true, v.keys.TombstonesPrefix()+"y", []byte("junk")),
	})
	for n, want := range map[byte]policy.Reason{1: policy.ReasonStopped, 2: policy.ReasonReplaced, 3: policy.ReasonStopped, 4: policy.ReasonExpired} {
		g, ok := v.Ending(streamid.Nonce{n})
		require.True(t, ok, n)
		assert.Equal(t, want, g.Reason, n)
	}
	_, ok := v.Ending(streamid.Nonce{5})
	assert.False(t, ok, "it has not ended")
	assert.EqualValues(t, 1, v.Expiries())
	rev++
	v.Apply([]*mvccpb.Event{event(false, v.keys.Slot("u4", 0), nil)})
	g, _ := v.Ending(streamid.Nonce{5})
	assert.Equal(t, policy.ReasonExpired, g.Reason)
	g, _ = v.Ending(streamid.Nonce{6})
	assert.True(t, g.Intended, "it still exists")
	v.Apply([]*mvccpb.Event{event(false, v.keys.Slot("u5", 0), nil)})
	g, _ = v.Ending(streamid.Nonce{6})
	assert.Equal(t, schema.Tombstone{Nonce: streamid.Nonce{6}, Reason: policy.ReasonStopped}, g)
	assert.EqualValues(t, rev, v.applied.Load())
}

func TestReplica_AppliesRenewalHints(t *testing.T) {
	v := newTestReplica(nil, "/p")
	who, sent := streamid.ID{Slot: 0, Lease: 7, Nonce: streamid.Nonce{1}}, time.Now()
	v.AddRenewalHint("maya", who, sent)
	put := &mvccpb.KeyValue{Key: []byte(v.keys.Slot("maya", 0)), Lease: 7, ModRevision: 3, Value: recordValue(streamid.Nonce{1}, "")}
	v.Apply([]*mvccpb.Event{{Type: mvccpb.Event_PUT, Kv: put}})
	s, _ := v.Lookup("maya", who)
	require.NotNil(t, s)
	assert.WithinDuration(t, sent, s.LastRenewal(), 0)
	v.AddRenewalHint("maya", who, sent.Add(-time.Second))
	assert.WithinDuration(t, sent, s.LastRenewal(), 0, "an older hint changes nothing")
	v.AddRenewalHint("maya", who, sent.Add(time.Second))
	assert.WithinDuration(t, sent.Add(time.Second), s.LastRenewal(), 0)
}

// Puts and deletions in any order, some of them applied twice, agree with plain maps.
func TestReplica_AgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := newTestReplica(nil, "/p")
		model := map[string]map[string]streamid.Nonce{}
		rev := int64(1)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			rev++
			user := fmt.Sprint("u", rapid.IntRange(0, 3).Draw(t, "user"))
			rest := rapid.SampledFrom([]string{"000", "001", "002", "junk", "0001"}).Draw(t, "key")
			kv := &mvccpb.KeyValue{Key: []byte(v.keys.UserPrefix(user) + rest), ModRevision: rev}
			e := &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: kv}
			if rapid.Bool().Draw(t, "put") {
				n := streamid.Nonce{byte(rev), byte(rev >> 8)}
				e.Type, kv.Value = mvccpb.Event_PUT, recordValue(n, "")
				if model[user] == nil {
					model[user] = map[string]streamid.Nonce{}
				}
				model[user][rest] = n
			} else {
				delete(model[user], rest)
			}
			for range rapid.IntRange(1, 2).Draw(t, "times") {
				v.Apply([]*mvccpb.Event{e})
			}
			streams, users := 0, 0
			for user, held := range model {
				entries, _, _ := v.UserEntries(user)
				require.Len(t, entries, len(held))
				for _, h := range entries {
					require.Equal(t, held[h.Key[len(v.keys.UserPrefix(user)):]], h.Nonce, h.Key)
				}
				if streams += len(held); len(held) > 0 {
					users++
				}
			}
			got := v.Total(3)
			require.Equal(t, []int{streams, users}, []int{got.Streams, got.Users})
		}
	})
}

func BenchmarkReplica_Apply(b *testing.B) {
	v := newTestReplica(nil, "/p")
	b.ReportAllocs()
	rev := int64(1)
	for i := 0; b.Loop(); i++ {
		key := []byte(v.keys.Slot(fmt.Sprint("viewer-", i), 0))
		rev += 2
		v.Apply([]*mvccpb.Event{{Type: mvccpb.Event_PUT, Kv: &mvccpb.KeyValue{
			Key: key, Lease: rev, ModRevision: rev, Value: recordValue(streamid.Nonce{byte(i)}, "tab"),
		}}})
		v.Apply([]*mvccpb.Event{{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: key, ModRevision: rev + 1}}})
	}
}

// BenchmarkReplica_Memory measures a replica of a million streams of as many users.
func BenchmarkReplica_Memory(b *testing.B) {
	const n = 1_000_000
	for b.Loop() {
		before := liveHeap()
		v := newTestReplica(nil, "/p")
		for i := range n {
			r := schema.Record{Nonce: streamid.Nonce{byte(i), byte(i >> 8), byte(i >> 16)}, Started: 1_800_000_000_000, TTLSeconds: 90, Region: "eu",
				Device: &schema.Device{ID: "b8d0", Name: "Living room TV", Type: "tv"}, Content: &schema.Content{ID: "film-77"}}
			value, _ := json.Marshal(r)
			v.putEntry(fmt.Sprintf("viewer-%013d", i), "000", &mvccpb.KeyValue{Lease: int64(i), ModRevision: int64(i), Value: value})
		}
		b.ReportMetric(float64(liveHeap()-before)/n, "B/stream")
		runtime.KeepAlive(v)
	}
}

func liveHeap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
