package lease

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
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"pgregory.net/rapid"

	"streamcount/internal/etcdtest"
)

func testView(e Etcd, prefix string) *view {
	return newView(e, keys{prefix}, viewConfig{
		timeout: 5 * time.Second, log: slog.New(slog.DiscardHandler), span: time.Minute,
	})
}

func runView(t *testing.T, c *clientv3.Client, prefix string) *view {
	t.Helper()
	v := testView(Over(c), prefix)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
		assert.False(t, v.current(), "a view that nobody keeps")
	})
	return v
}

func requireCurrent(t *testing.T, v *view) {
	t.Helper()
	require.Eventually(t, v.current, time.Minute, time.Millisecond)
}

func recordValue(n nonce, session string) []byte {
	b, err := json.Marshal(record{Nonce: n, Started: 1, TTL: 90, Region: "eu", Session: session})
	if err != nil {
		panic(err)
	}
	return b
}

// requireSame compares the view with what etcd holds at the view's own revision.
func requireSame(t *testing.T, c *clientv3.Client, v *view, prefix string, users []string) {
	t.Helper()
	now, err := c.Get(t.Context(), prefix+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	require.NoError(t, err)
	require.Eventually(t, func() bool { return v.reach(t.Context(), now.Header.Revision) }, time.Minute, time.Millisecond)
	streams, holders, regions := 0, 0, map[string]int{}
	for _, user := range users {
		s, current := v.user(user)
		require.True(t, current)
		resp, err := c.Get(t.Context(), v.keys.user(user), clientv3.WithPrefix(), clientv3.WithRev(s.rev))
		require.NoError(t, err)
		want := newSnapshot(user, v.keys, s.rev, 0, resp.Kvs)
		require.Len(t, s.held, len(want.held), user)
		for i, h := range want.held {
			require.Equal(t, h, s.held[i])
			regions[headOf(h.value).Region]++
			seen, _ := v.lookup(user, h.ident())
			require.Equal(t, h.slot >= 0, seen != nil, "%s: by its id", h.key)
		}
		if streams += len(want.held); len(want.held) > 0 {
			holders++
		}
	}
	got, _ := v.totals(2)
	assert.Equal(t, []int{streams, holders}, []int{got.Streams, got.Users})
	assert.Equal(t, regions, got.ByRegion)
}

// Random writes by others, compactions, and a member that restarts: whenever the
// view is current it shows what etcd holds at that revision.
func TestView_FollowsEtcd(t *testing.T) {
	m := etcdtest.Start(t, etcdtest.Config{})
	c := m.Client(t)
	v := runView(t, c, "/p")
	var users []string
	for i := range 12 {
		users = append(users, fmt.Sprint("user-", i))
	}
	ctx := t.Context()
	var leases []clientv3.LeaseID
	for step := range 600 {
		user := users[rand.N(len(users))]
		key := v.keys.slot(user, rand.N(4))
		var err error
		switch rand.N(10) {
		case 0, 1, 2, 3:
			lease, gerr := c.Grant(ctx, 60)
			require.NoError(t, gerr)
			leases = append(leases, lease.ID)
			_, err = c.Put(ctx, key, string(recordValue(nonce{1, byte(step), byte(step >> 8)}, "tab")), clientv3.WithLease(lease.ID))
		case 4:
			_, err = c.Delete(ctx, key)
		case 5:
			_, err = c.Delete(ctx, v.keys.user(user), clientv3.WithPrefix())
		case 6:
			if len(leases) > 0 {
				_, err = c.Revoke(ctx, leases[len(leases)-1])
				leases = leases[:len(leases)-1]
			}
		case 7: // whatever others may put there counts
			junk := []string{"000x", "70000", "a/b", "", "0001"}[rand.N(5)]
			_, err = c.Put(ctx, v.keys.user(user)+junk, "junk")
		case 8: // several users in one revision
			_, err = c.Txn(ctx).Then(clientv3.OpDelete(v.keys.slot(users[0], 0)),
				clientv3.OpPut(v.keys.slot(users[1], 0), string(recordValue(nonce{2, byte(step), byte(step >> 8)}, ""))),
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

// While etcd is away the view is not current, and says so; what was compacted
// meanwhile it lists anew.
func TestView_IsNotCurrentWhileEtcdIsAway(t *testing.T) {
	m := etcdtest.Start(t, etcdtest.Config{})
	c := m.Client(t)
	v := runView(t, c, "/p")
	requireCurrent(t, v)
	_, err := c.Put(t.Context(), v.keys.slot("gone", 0), string(recordValue(nonce{1}, "")))
	require.NoError(t, err)
	requireSame(t, c, v, "/p", []string{"gone"})
	m.Stop()
	require.Eventually(t, func() bool { return !v.current() }, viewStale+2*time.Second, 10*time.Millisecond)
	wait, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	assert.False(t, v.reach(wait, v.applied.Load()))
	_, current := v.user("gone")
	assert.False(t, current)
	m.Restart(t)
	requireCurrent(t, v)
	requireSame(t, c, v, "/p", []string{"gone"})
}

func TestView_ListsAnewAfterACompaction(t *testing.T) {
	c, prefix := etcdtest.Client(t), etcdtest.Prefix(t)
	v := testView(Over(c), prefix)
	require.NoError(t, v.list(t.Context()))
	put := func(user string, n nonce) int64 {
		resp, err := c.Put(t.Context(), v.keys.slot(user, 0), string(recordValue(n, "")))
		require.NoError(t, err)
		return resp.Header.Revision
	}
	put("stays", nonce{1})
	put("goes", nonce{2})
	require.NoError(t, v.list(t.Context()))
	before, _ := v.lookup("stays", ident{nonce: nonce{1}})
	require.NotNil(t, before)
	renewed := time.Now()
	before.renew(renewed)
	_, err := c.Delete(t.Context(), v.keys.slot("goes", 0))
	require.NoError(t, err)
	_, err = c.Compact(t.Context(), put("comes", nonce{3}))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- v.run(ctx) }() // begins where the last list was
	requireCurrent(t, v)
	requireSame(t, c, v, prefix, []string{"stays", "goes", "comes"})
	after, _ := v.lookup("stays", ident{nonce: nonce{1}})
	assert.Same(t, before, after, "a stream that goes on keeps what is known of it")
	assert.WithinDuration(t, renewed, after.renewedAt(), 0)
	cancel()
	require.NoError(t, <-done)
}

func TestView_SaysHowStreamsEnd(t *testing.T) {
	v := testView(Etcd{}, "/p")
	rev := int64(10)
	event := func(put bool, key string, value []byte) *mvccpb.Event {
		kv := &mvccpb.KeyValue{Key: []byte(key), Value: value, ModRevision: rev}
		if put {
			return &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: kv}
		}
		return &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: kv}
	}
	for i := range 6 {
		v.apply([]*mvccpb.Event{event(true, v.keys.slot(fmt.Sprint("u", i), 0), recordValue(nonce{byte(i + 1)}, ""))})
	}
	rev++
	v.note(grave{Nonce: nonce{3}, Reason: ReasonStopped}) // by this node, without a tombstone
	v.apply([]*mvccpb.Event{
		event(false, v.keys.slot("u0", 0), nil),                       // stopped
		event(true, v.keys.slot("u1", 0), recordValue(nonce{99}, "")), // taken over
		event(false, v.keys.slot("u2", 0), nil),                       // noted
		event(false, v.keys.slot("u3", 0), nil),                       // expired
		event(true, v.keys.ended()+"x", gravesValue([]grave{{Nonce: nonce{1}, Reason: ReasonStopped},
			{Nonce: nonce{2}, Reason: ReasonReplaced, By: &by{Started: 7}},
			{Nonce: nonce{5}, Reason: ReasonEvicted}})), // of a plan that failed: nonce 5 lives on
		event(true, v.keys.ended()+"y", []byte("junk")),
	})
	for n, want := range map[byte]Reason{1: ReasonStopped, 2: ReasonReplaced, 3: ReasonStopped, 4: ReasonExpired} {
		g, ok := v.ended(nonce{n})
		require.True(t, ok, n)
		assert.Equal(t, want, g.Reason, n)
	}
	_, ok := v.ended(nonce{5})
	assert.False(t, ok, "nobody ended it")
	assert.EqualValues(t, 1, v.expiries())
	rev++
	v.apply([]*mvccpb.Event{event(false, v.keys.slot("u4", 0), nil)})
	g, _ := v.ended(nonce{5})
	assert.Equal(t, ReasonExpired, g.Reason)
	assert.EqualValues(t, rev, v.applied.Load())
}

func TestView_HintsMeetTheirStreams(t *testing.T) {
	v := testView(Etcd{}, "/p")
	who, sent := ident{0, 7, nonce{1}}, time.Now()
	v.hint("maya", who, sent)
	put := &mvccpb.KeyValue{Key: []byte(v.keys.slot("maya", 0)), Lease: 7, ModRevision: 3, Value: recordValue(nonce{1}, "")}
	v.apply([]*mvccpb.Event{{Type: mvccpb.Event_PUT, Kv: put}})
	s, _ := v.lookup("maya", who)
	require.NotNil(t, s)
	assert.WithinDuration(t, sent, s.renewedAt(), 0)
	v.hint("maya", who, sent.Add(-time.Second))
	assert.WithinDuration(t, sent, s.renewedAt(), 0, "only forward")
	v.hint("maya", who, sent.Add(time.Second))
	assert.WithinDuration(t, sent.Add(time.Second), s.renewedAt(), 0)
}

// Puts and deletes in any order, some of them twice, against plain maps.
func TestView_AgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := testView(Etcd{}, "/p")
		model := map[string]map[string]nonce{}
		rev := int64(1)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			rev++
			user := fmt.Sprint("u", rapid.IntRange(0, 3).Draw(t, "user"))
			rest := rapid.SampledFrom([]string{"000", "001", "002", "junk", "0001"}).Draw(t, "key")
			kv := &mvccpb.KeyValue{Key: []byte(v.keys.user(user) + rest), ModRevision: rev}
			e := &mvccpb.Event{Type: mvccpb.Event_DELETE, Kv: kv}
			if rapid.Bool().Draw(t, "put") {
				n := nonce{byte(rev), byte(rev >> 8)}
				e.Type, kv.Value = mvccpb.Event_PUT, recordValue(n, "")
				if model[user] == nil {
					model[user] = map[string]nonce{}
				}
				model[user][rest] = n
			} else {
				delete(model[user], rest)
			}
			for range rapid.IntRange(1, 2).Draw(t, "times") {
				v.apply([]*mvccpb.Event{e})
			}
			streams, users := 0, 0
			for user, held := range model {
				s, _ := v.user(user)
				require.Len(t, s.held, len(held))
				for _, h := range s.held {
					require.Equal(t, held[h.key[len(v.keys.user(user)):]], h.nonce, h.key)
				}
				if streams += len(held); len(held) > 0 {
					users++
				}
			}
			got, _ := v.totals(3)
			require.Equal(t, []int{streams, users}, []int{got.Streams, got.Users})
		}
	})
}

func TestScanHead_ReadsWhatIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := record{
			Started: rapid.Int64Min(0).Draw(t, "started"), TTL: rapid.Int64Min(0).Draw(t, "ttl"),
			Region: rapid.String().Draw(t, "region"), Session: rapid.String().Draw(t, "session"),
			Device: &Device{Name: rapid.String().Draw(t, "device")},
		}
		copy(r.Nonce[:], rapid.SliceOfN(rapid.Byte(), 12, 12).Draw(t, "nonce"))
		value, err := json.Marshal(r)
		require.NoError(t, err)
		var want head
		require.NoError(t, json.Unmarshal(value, &want))
		require.Equal(t, want, headOf(value))
		if got, ok := scanHead(value); ok {
			require.Equal(t, want, got)
		}
		cut := value[:rapid.IntRange(0, len(value)-1).Draw(t, "cut")]
		_, _ = scanHead(cut) // no panic
	})
	h, ok := scanHead(recordValue(nonce{1}, "tab-1"))
	assert.True(t, ok, "the short way is taken")
	assert.Equal(t, head{nonce{1}, 90, "eu", "tab-1"}, h)
}

func BenchmarkView_Apply(b *testing.B) {
	v := testView(Etcd{}, "/p")
	b.ReportAllocs()
	rev := int64(1)
	for i := 0; b.Loop(); i++ {
		key := []byte(v.keys.slot(fmt.Sprint("viewer-", i), 0))
		rev += 2
		v.apply([]*mvccpb.Event{{Type: mvccpb.Event_PUT, Kv: &mvccpb.KeyValue{
			Key: key, Lease: rev, ModRevision: rev, Value: recordValue(nonce{byte(i)}, "tab"),
		}}})
		v.apply([]*mvccpb.Event{{Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: key, ModRevision: rev + 1}}})
	}
}

// BenchmarkView_Memory holds a million streams of as many users.
func BenchmarkView_Memory(b *testing.B) {
	const n = 1_000_000
	for b.Loop() {
		before := liveHeap()
		v := testView(Etcd{}, "/p")
		for i := range n {
			r := record{Nonce: nonce{byte(i), byte(i >> 8), byte(i >> 16)}, Started: 1_800_000_000_000, TTL: 90, Region: "eu",
				Device: &Device{ID: "b8d0", Name: "Living room TV", Type: "tv"}, Content: &Content{ID: "film-77"}}
			value, _ := json.Marshal(r)
			v.put(fmt.Sprintf("viewer-%013d", i), "000", &mvccpb.KeyValue{Lease: int64(i), ModRevision: int64(i), Value: value})
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
