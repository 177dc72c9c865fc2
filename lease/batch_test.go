package lease

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"streamcount/internal/etcdtest"
)

// gatedKV holds transactions up until they are let through, and keeps them.
type gatedKV struct {
	pb.KVClient
	let chan struct{}

	mu   sync.Mutex
	txns []*pb.TxnRequest
}

func (k *gatedKV) Txn(ctx context.Context, r *pb.TxnRequest, o ...grpc.CallOption) (*pb.TxnResponse, error) {
	k.mu.Lock()
	k.txns = append(k.txns, r)
	k.mu.Unlock()
	<-k.let
	return k.KVClient.Txn(ctx, r, o...)
}

func (k *gatedKV) seen() []*pb.TxnRequest {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]*pb.TxnRequest(nil), k.txns...)
}

// batchRig is a batcher on real etcd whose batches wait to be let through.
type batchRig struct {
	*batcher
	kv *gatedKV
	c  *clientv3.Client
}

func newBatchRig(t *testing.T) batchRig {
	t.Helper()
	c := etcdtest.Client(t)
	kv := &gatedKV{KVClient: clientv3.RetryKVClient(c), let: make(chan struct{})}
	no := func(context.Context) (granted, error) { return granted{}, errors.New("none") }
	g := newGraveyard(no, time.Minute, time.Millisecond, slog.New(slog.DiscardHandler))
	b := newBatcher(Etcd{KV: kv}, keys{etcdtest.Prefix(t)}, g, 30*time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	return batchRig{b, kv, c}
}

// occupy has a batch under way, so that what comes after shares the next.
func (r batchRig) occupy(t *testing.T) {
	t.Helper()
	r.begin(t.Context(), r.put("first", "x", 0))
	require.Eventually(t, func() bool { return len(r.kv.seen()) == 1 }, time.Minute, time.Millisecond)
}

func (r batchRig) put(user, value string, lease int64) *write {
	return &write{user: user, txn: &pb.TxnRequest{
		Success: []*pb.RequestOp{putOp(r.keys.slot(user, 0), []byte(value), lease)},
	}}
}

// taken is how many writes wait or were sent, the one of occupy among them.
func (r batchRig) taken() int64 { return r.waiting.Load() + int64(r.m.batchSize.read().Sum) }

func (r batchRig) begin(ctx context.Context, w *write) <-chan error {
	w.ctx = ctx
	done := make(chan error, 1)
	go func() {
		_, _, err := r.do(w)
		done <- err
	}()
	return done
}

// queueAll begins all writes and waits until they stand in the queue.
func (r batchRig) queueAll(t *testing.T, ws ...*write) []<-chan error {
	t.Helper()
	var done []<-chan error
	for i, w := range ws {
		ctx := w.ctx
		if ctx == nil {
			ctx = t.Context()
		}
		done = append(done, r.begin(ctx, w))
		require.Eventually(t, func() bool { return r.taken() == int64(i+2) }, time.Minute, time.Millisecond)
	}
	return done
}

func (r batchRig) value(t *testing.T, user string) string {
	t.Helper()
	resp, err := r.c.Get(t.Context(), r.keys.slot(user, 0))
	require.NoError(t, err)
	if len(resp.Kvs) == 0 {
		return ""
	}
	return string(resp.Kvs[0].Value)
}

func TestBatch_SharesARound(t *testing.T) {
	r := newBatchRig(t)
	r.occupy(t)
	var ws []*write
	for i := range 40 {
		ws = append(ws, r.put(fmt.Sprint("user-", i), fmt.Sprint(i), 0))
	}
	done := r.queueAll(t, ws...)
	close(r.kv.let)
	for i, d := range done {
		require.NoError(t, <-d)
		assert.Equal(t, fmt.Sprint(i), r.value(t, fmt.Sprint("user-", i)))
	}
	assert.Len(t, r.kv.seen(), 2, "40 writes in one transaction after the first")
}

// etcd would evaluate the conditions of both before it applies either.
func TestBatch_NeverTwoWritesOfOneUser(t *testing.T) {
	r := newBatchRig(t)
	r.occupy(t)
	var ws []*write
	for range 5 { // each only if there is nobody yet
		w := r.put("maya", "x", 0)
		w.txn.Compare = []*pb.Compare{notPutSince(below(r.keys.user("maya")), 0)}
		ws = append(ws, w)
	}
	won := make(chan bool, len(ws))
	for i, w := range ws {
		w.ctx = t.Context()
		go func() {
			resp, _, err := r.do(w)
			won <- assert.NoError(t, err) && resp.Succeeded
		}()
		require.Eventually(t, func() bool { return r.taken() == int64(i+2) }, time.Minute, time.Millisecond)
	}
	close(r.kv.let)
	winners := 0
	for range ws {
		if <-won {
			winners++
		}
	}
	assert.Equal(t, 1, winners)
	for _, txn := range r.kv.seen() {
		assert.Len(t, txn.Success, 1)
	}
}

func TestBatch_APoisonedMemberFailsAlone(t *testing.T) {
	r := newBatchRig(t)
	r.occupy(t)
	var ws []*write
	for i := range 9 {
		w := r.put(fmt.Sprint("user-", i), "x", 0)
		if i == 4 {
			w = r.put("user-4", "x", 0x7777777) // no such lease
		}
		ws = append(ws, w)
	}
	done := r.queueAll(t, ws...)
	close(r.kv.let)
	for i, d := range done {
		err := <-d
		if i == 4 {
			assert.ErrorIs(t, err, errLeaseGone)
			assert.Empty(t, r.value(t, "user-4"))
			continue
		}
		assert.NoError(t, err)
		assert.Equal(t, "x", r.value(t, fmt.Sprint("user-", i)))
	}
}

// A batch stays within etcd's bound on operations, whatever its members are, and
// all of them are written.
func TestBatch_StaysWithinEtcdsBound(t *testing.T) {
	r := newBatchRig(t)
	r.occupy(t)
	var ws []*write
	for i := range 300 {
		w := r.put(fmt.Sprint("user-", i), "x", 0)
		for range i % 60 {
			w.txn.Success = append(w.txn.Success, countOp(below(r.keys.user(w.user))))
		}
		ws = append(ws, w)
	}
	done := r.queueAll(t, ws...)
	close(r.kv.let)
	for _, d := range done {
		assert.NoError(t, <-d)
	}
	assert.Less(t, len(r.kv.seen()), 30)
}

// Who gives up while waiting is left out; who gives up later does not disturb
// the others.
func TestBatch_MembersKeepTheirOwnContexts(t *testing.T) {
	r := newBatchRig(t)
	r.occupy(t)
	impatient, cancel := context.WithCancel(t.Context())
	gone, hangUp := context.WithCancel(t.Context())
	a, b, c := r.put("a", "x", 0), r.put("b", "x", 0), r.put("c", "x", 0)
	a.ctx, b.caller = impatient, gone
	done := r.queueAll(t, a, b, c)
	cancel()
	hangUp()
	require.ErrorIs(t, <-done[0], context.Canceled)
	close(r.kv.let)
	require.ErrorIs(t, <-done[1], errNotApplied)
	require.NoError(t, <-done[2])
	assert.Equal(t, []string{"", "", "x"}, []string{r.value(t, "a"), r.value(t, "b"), r.value(t, "c")})
}

func TestBatch_AFullQueueRefuses(t *testing.T) {
	r := newBatchRig(t)
	r.occupy(t)
	const all = batchQueue + batchesAtOnce*batchMembers + 100
	done := make(chan error, all)
	for i := range all {
		w := r.put(fmt.Sprint("user-", i), "x", 0)
		w.ctx = t.Context()
		go func() {
			_, _, err := r.do(w)
			done <- err
		}()
	}
	require.ErrorIs(t, <-done, errQueueFull, "the only ones answered while etcd is not")
	close(r.kv.let)
	refused := 1
	for range all - 1 {
		if err := <-done; err != nil {
			require.ErrorIs(t, err, errNotApplied)
			refused++
		}
	}
	assert.GreaterOrEqual(t, refused, 100)
	assert.Zero(t, r.waiting.Load())
}

// An answer that is lost leaves every member's outcome unknown, and no member is
// told otherwise.
func TestBatch_ALostAnswerIsUnknownToAll(t *testing.T) {
	r := newBatchRig(t)
	r.kv.KVClient = lostReplies{r.kv.KVClient}
	r.occupy(t)
	done := r.queueAll(t, r.put("a", "x", 0), r.put("b", "x", 0))
	close(r.kv.let)
	for _, d := range done {
		err := <-d
		require.ErrorIs(t, err, rpctypes.ErrTimeout)
		assert.NotErrorIs(t, err, errNotApplied)
		assert.NotErrorIs(t, err, errLeaseGone)
	}
	assert.Equal(t, "x", r.value(t, "a"), "it was written all the same")
}

type lostReplies struct{ pb.KVClient }

func (k lostReplies) Txn(ctx context.Context, r *pb.TxnRequest, o ...grpc.CallOption) (*pb.TxnResponse, error) {
	_, _ = k.KVClient.Txn(ctx, r, o...)
	return nil, rpctypes.ErrTimeout
}

// fullKV is an etcd without space: it takes what puts nothing.
type fullKV struct{ pb.KVClient }

func (k fullKV) Txn(ctx context.Context, r *pb.TxnRequest, o ...grpc.CallOption) (*pb.TxnResponse, error) {
	for _, op := range r.Success {
		if putsAnything(r) || op.GetRequestTxn() != nil && putsAnything(op.GetRequestTxn()) {
			return nil, rpctypes.ErrNoSpace
		}
	}
	return k.KVClient.Txn(ctx, r, o...)
}

// Starts that a full etcd refuses do not take the stops beside them along.
func TestBatch_StopsGoOnWhileEtcdIsFull(t *testing.T) {
	r := newBatchRig(t)
	r.kv.KVClient = fullKV{r.kv.KVClient}
	close(r.kv.let)
	ctx, cancel := context.WithCancel(t.Context())
	var starts sync.WaitGroup
	for i := range 50 {
		starts.Go(func() {
			for ctx.Err() == nil {
				w := r.put(fmt.Sprint("starter-", i), "x", 0)
				w.ctx = t.Context()
				_, _, err := r.do(w)
				assert.ErrorIs(t, err, rpctypes.ErrNoSpace)
			}
		})
	}
	require.Eventually(t, r.graves.avoided, time.Minute, time.Millisecond)
	for i := range 200 {
		user := fmt.Sprint("stopper-", i)
		w := &write{user: user, ctx: t.Context(), txn: &pb.TxnRequest{
			Success: []*pb.RequestOp{deleteOp(oneKey(r.keys.slot(user, 0)))},
		}}
		_, _, err := r.do(w)
		require.NoError(t, err, "stop %d", i)
	}
	cancel()
	starts.Wait()
}
