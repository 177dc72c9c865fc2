package commit

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"pgregory.net/rapid"

	"streamcount/internal/testing/etcdsim"
	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/leasepool"
	"streamcount/lease/internal/schema"
)

// batchModel applies writes in batches to a simulated etcd, and one after the other to a
// map.
type batchModel struct {
	b       *Batcher
	link    *etcdsim.Link
	pending []*Write
	all     []*Write
	slots   map[string]string // the map
	value   int
}

// write puts the slot of a user if it is free, or deletes it. Each value is unique.
func (m *batchModel) write(t *rapid.T) {
	if len(m.pending) >= 2*MaxWrites {
		return
	}
	m.value++
	user := fmt.Sprint("u", rapid.IntRange(0, 12).Draw(t, "user"))
	w := &Write{User: user, Ctx: t.Context(), done: make(chan result, 1), Txn: &pb.TxnRequest{}}
	key := m.b.cfg.Keys.Slot(user, 0)
	if rapid.Bool().Draw(t, "free") { // put the slot if it is free
		w.Txn.Compare = []*pb.Compare{etcdop.NoPutAfter(etcdop.Prefix(m.b.cfg.Keys.UserPrefix(user)), 0)}
		w.Txn.Success = []*pb.RequestOp{etcdop.Put(key, fmt.Append(nil, m.value), 0)}
	} else {
		w.Txn.Success = []*pb.RequestOp{etcdop.Delete(etcdop.Key(key))}
		w.Tombstones = make([]schema.Tombstone, rapid.IntRange(0, 3).Draw(t, "tombstones"))
	}
	for range rapid.IntRange(0, 12).Draw(t, "more") {
		w.Txn.Success = append(w.Txn.Success, etcdop.Count(etcdop.Prefix(m.b.cfg.Keys.UserPrefix(user))))
	}
	m.pending = append(m.pending, w)
	m.all = append(m.all, w)
}

func (m *batchModel) full(t *rapid.T) {
	if rapid.Bool().Draw(t, "full") {
		until := time.Now().Add(time.Hour)
		m.b.fullUntil.Store(&until)
	} else {
		m.b.fullUntil.Store(nil)
	}
}

func (m *batchModel) send(t *rapid.T) {
	before := slices.Clone(m.pending)
	batch, rest := m.b.takeBatch(slices.Clone(m.pending))
	m.pending = rest
	if len(before) == 0 {
		require.Empty(t, batch)
		return
	}
	require.NotEmpty(t, batch)
	require.Same(t, before[0], batch[0], "the oldest write is in the batch")
	m.checkMembers(t, before, batch)
	txn := m.b.buildTxn(batch, 0)
	require.LessOrEqual(t, opsAsEtcdCounts(txn), m.b.cfg.MaxOps)
	resp, err := m.link.KV().Txn(context.Background(), txn)
	require.NoError(t, err)
	deliver(batch, resp)
	for _, w := range batch {
		require.Equal(t, m.apply(w), (<-w.done).resp.Succeeded, "the outcome of a write of %s", w.User)
	}
	m.compare(t)
}

// checkMembers requires that each write is in the batch or in the rest, that the writes of
// a user keep their order, and that a batch has one write per user.
func (m *batchModel) checkMembers(t *rapid.T, before, batch []*Write) {
	require.ElementsMatch(t, before, slices.Concat(batch, m.pending))
	users, puts := map[string]bool{}, map[bool]bool{}
	for _, w := range batch {
		require.False(t, users[w.User], "two writes of %s", w.User)
		users[w.User] = true
		first := slices.IndexFunc(before, func(o *Write) bool { return o.User == w.User })
		if !m.b.EtcdFull() { // else a stop may overtake a start
			require.Same(t, before[first], w, "the writes of %s are reordered", w.User)
		}
		puts[hasPuts(w.Txn)] = true
	}
	if m.b.EtcdFull() {
		require.Len(t, puts, 1, "puts and deletes are in separate batches while etcd is full")
	}
}

// opsAsEtcdCounts is etcd's rule: the longest list of a transaction plus the largest count
// of those nested in it.
func opsAsEtcdCounts(t *pb.TxnRequest) int {
	longest := max(len(t.Compare), len(t.Success), len(t.Failure))
	below := 0
	for _, op := range slices.Concat(t.Success, t.Failure) {
		if n := op.GetRequestTxn(); n != nil {
			below = max(below, opsAsEtcdCounts(n))
		}
	}
	return longest + below
}

// apply applies w to the map.
func (m *batchModel) apply(w *Write) (succeeded bool) {
	put := w.Txn.Success[0].GetRequestPut()
	if put == nil {
		delete(m.slots, w.User)
		return true
	}
	if m.slots[w.User] != "" {
		return false
	}
	m.slots[w.User] = string(put.Value)
	return true
}

func (m *batchModel) compare(t *rapid.T) {
	got := map[string]string{}
	for _, kv := range m.link.Etcd.Read(m.b.cfg.Keys.UsersPrefix()) {
		user, _, _ := m.b.cfg.Keys.ParseUserKey(kv.Key)
		got[user] = string(kv.Value)
	}
	require.Equal(t, m.slots, got)
}

func TestBatch_AgainstAModel(t *testing.T) {
	steps := 0
	rapid.Check(t, func(t *rapid.T) {
		m := &batchModel{link: &etcdsim.Link{Etcd: etcdsim.New()}, slots: map[string]string{}}
		noLease := leasepool.NewRotatingLease(nil, leasepool.RotatingConfig{}) // it grants none: it does not run
		m.b = New(Config{
			KV: m.link.KV(), Keys: schema.Keys{Prefix: "/p"}, TombstoneLease: noLease, MaxOps: rapid.IntRange(16, 128).Draw(t, "ops"), Timeout: time.Second,
			FullFor: time.Hour, Observer: &sentWrites{},
		})
		count := func(do func(*rapid.T)) func(*rapid.T) { return func(t *rapid.T) { steps++; do(t) } }
		t.Repeat(map[string]func(*rapid.T){
			"write": count(m.write), "another": count(m.write), "third": count(m.write), "full": count(m.full), "send": count(m.send),
		})
	})
	t.Logf("%d steps", steps)
}
