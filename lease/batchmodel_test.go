package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"pgregory.net/rapid"

	"streamcount/internal/etcdsim"
)

// batchModel puts writes together into batches and carries them out, and beside it
// carries out the same writes one after the other on a plain map.
type batchModel struct {
	b       *batcher
	link    *etcdsim.Link
	pending []*write
	all     []*write
	slots   map[string]string // the map
	value   int
}

// A model write puts, or deletes, its user's slot if that is in the state that it
// expects. Its value says which it is.
func (m *batchModel) write(t *rapid.T) {
	if len(m.pending) >= 2*batchMembers {
		return
	}
	m.value++
	user := fmt.Sprint("u", rapid.IntRange(0, 12).Draw(t, "user"))
	w := &write{user: user, ctx: t.Context(), done: make(chan written, 1), txn: &pb.TxnRequest{}}
	key := m.b.keys.slot(user, 0)
	if rapid.Bool().Draw(t, "free") { // put it where there is none
		w.txn.Compare = []*pb.Compare{notPutSince(below(m.b.keys.user(user)), 0)}
		w.txn.Success = []*pb.RequestOp{putOp(key, fmt.Append(nil, m.value), 0)}
	} else {
		w.txn.Success = []*pb.RequestOp{deleteOp(oneKey(key))}
		w.graves = make([]grave, rapid.IntRange(0, 3).Draw(t, "graves"))
	}
	for range rapid.IntRange(0, 12).Draw(t, "more") {
		w.txn.Success = append(w.txn.Success, countOp(below(m.b.keys.user(user))))
	}
	m.pending = append(m.pending, w)
	m.all = append(m.all, w)
}

func (m *batchModel) full(t *rapid.T) {
	if rapid.Bool().Draw(t, "full") {
		m.b.graves.avoid()
	} else {
		m.b.graves.shun = time.Time{}
	}
}

func (m *batchModel) send(t *rapid.T) {
	before := slices.Clone(m.pending)
	batch, rest := m.b.collect(slices.Clone(m.pending))
	m.pending = rest
	if len(before) == 0 {
		require.Empty(t, batch)
		return
	}
	require.NotEmpty(t, batch)
	require.Same(t, before[0], batch[0], "nobody is overtaken for ever")
	m.checkMembers(t, before, batch)
	txn := m.b.txnOf(batch, 0)
	require.LessOrEqual(t, opsAsEtcdCounts(txn), m.b.maxOps)
	resp, err := m.link.KV().Txn(context.Background(), txn)
	require.NoError(t, err)
	tell(batch, resp)
	for _, w := range batch {
		require.Equal(t, m.apply(w), (<-w.done).resp.Succeeded, "the outcome of a write of %s", w.user)
	}
	m.compare(t)
}

// checkMembers wants everybody in the batch or in the rest, each user's writes in
// their order, and no two of one user in the batch.
func (m *batchModel) checkMembers(t *rapid.T, before, batch []*write) {
	require.ElementsMatch(t, before, slices.Concat(batch, m.pending))
	users, puts := map[string]bool{}, map[bool]bool{}
	for _, w := range batch {
		require.False(t, users[w.user], "two writes of %s", w.user)
		users[w.user] = true
		first := slices.IndexFunc(before, func(o *write) bool { return o.user == w.user })
		if !m.b.graves.avoided() { // else a stop may go before a start
			require.Same(t, before[first], w, "writes of %s change places", w.user)
		}
		puts[putsAnything(w.txn)] = true
	}
	if m.b.graves.avoided() {
		require.Len(t, puts, 1, "a full etcd refuses those that put, and all that are beside them")
	}
}

// opsAsEtcdCounts is etcd's rule: the longest list of each level, and the deepest
// of those below.
func opsAsEtcdCounts(t *pb.TxnRequest) int {
	most := max(len(t.Compare), len(t.Success), len(t.Failure))
	below := 0
	for _, op := range slices.Concat(t.Success, t.Failure) {
		if n := op.GetRequestTxn(); n != nil {
			below = max(below, opsAsEtcdCounts(n))
		}
	}
	return most + below
}

// apply does a write on the map.
func (m *batchModel) apply(w *write) (succeeded bool) {
	put := w.txn.Success[0].GetRequestPut()
	if put == nil {
		delete(m.slots, w.user)
		return true
	}
	if m.slots[w.user] != "" {
		return false
	}
	m.slots[w.user] = string(put.Value)
	return true
}

func (m *batchModel) compare(t *rapid.T) {
	got := map[string]string{}
	for _, kv := range m.link.Etcd.Read(m.b.keys.users()) {
		user, _, _ := m.b.keys.split(kv.Key)
		got[user] = string(kv.Value)
	}
	require.Equal(t, m.slots, got)
}

func TestBatch_AgainstAModel(t *testing.T) {
	steps := 0
	rapid.Check(t, func(t *rapid.T) {
		none := func(context.Context) (granted, error) { return granted{}, errors.New("none") }
		m := &batchModel{link: &etcdsim.Link{Etcd: etcdsim.New()}, slots: map[string]string{}}
		g := newGraveyard(none, time.Hour, time.Nanosecond, slog.New(slog.DiscardHandler))
		m.b = newBatcher(Etcd{KV: m.link.KV(), MaxTxnOps: rapid.IntRange(16, 128).Draw(t, "ops")}, keys{"/p"}, g, time.Second)
		count := func(do func(*rapid.T)) func(*rapid.T) { return func(t *rapid.T) { steps++; do(t) } }
		t.Repeat(map[string]func(*rapid.T){
			"write": count(m.write), "another": count(m.write), "third": count(m.write), "full": count(m.full), "send": count(m.send),
		})
	})
	t.Logf("%d steps", steps)
}
