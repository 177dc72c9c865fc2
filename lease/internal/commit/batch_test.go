package commit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/leasepool"
	"streamcount/lease/internal/schema"
)

// blockingKV records transactions and blocks them until release is closed.
type blockingKV struct {
	pb.KVClient
	release chan struct{}

	mu   sync.Mutex
	txns []*pb.TxnRequest
}

func (k *blockingKV) Txn(ctx context.Context, r *pb.TxnRequest, o ...grpc.CallOption) (*pb.TxnResponse, error) {
	k.mu.Lock()
	k.txns = append(k.txns, r)
	k.mu.Unlock()
	<-k.release
	return k.KVClient.Txn(ctx, r, o...)
}

func (k *blockingKV) sent() []*pb.TxnRequest {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]*pb.TxnRequest(nil), k.txns...)
}

// batchFixture is a batcher on a real etcd, whose batches block until they are released.
type batchFixture struct {
	*Batcher
	kv   *blockingKV
	c    *clientv3.Client
	sent *sentWrites
}

// sentWrites counts the writes that were sent.
type sentWrites struct{ n atomic.Int64 }

func (s *sentWrites) BatchSent(writes int)      { s.n.Add(int64(writes)) }
func (s *sentWrites) WriteWaited(time.Duration) {}

func newBatchFixture(t *testing.T) batchFixture {
	t.Helper()
	c := etcdtest.Client(t)
	kv := &blockingKV{KVClient: clientv3.RetryKVClient(c), release: make(chan struct{})}
	noLease := leasepool.NewRotatingLease(nil, leasepool.RotatingConfig{}) // it grants none: it does not run
	sent := &sentWrites{}
	b := New(Config{
		KV: kv, Keys: schema.Keys{Prefix: etcdtest.Prefix(t)}, TombstoneLease: noLease, MaxOps: 128, Timeout: 30 * time.Second,
		FullFor: 15 * time.Second, Observer: sent,
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- b.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
	return batchFixture{b, kv, c, sent}
}

// occupy sends a batch, so that the writes that follow share the next one.
func (r batchFixture) occupy(t *testing.T) {
	t.Helper()
	r.begin(t.Context(), r.put("first", "x", 0))
	require.Eventually(t, func() bool { return len(r.kv.sent()) == 1 }, time.Minute, time.Millisecond)
}

func (r batchFixture) put(user, value string, lease int64) *Write {
	return &Write{User: user, Txn: &pb.TxnRequest{
		Success: []*pb.RequestOp{etcdop.Put(r.cfg.Keys.Slot(user, 0), []byte(value), lease)},
	}}
}

// taken is the number of writes that wait or were sent, including the one of occupy.
func (r batchFixture) taken() int64 { return r.Waiting() + r.sent.n.Load() }

func (r batchFixture) begin(ctx context.Context, w *Write) <-chan error {
	w.Ctx = ctx
	done := make(chan error, 1)
	go func() {
		_, _, err := r.Commit(w)
		done <- err
	}()
	return done
}

// queueAll starts all writes and waits until they are queued.
func (r batchFixture) queueAll(t *testing.T, ws ...*Write) []<-chan error {
	t.Helper()
	var done []<-chan error
	for i, w := range ws {
		ctx := w.Ctx
		if ctx == nil {
			ctx = t.Context()
		}
		done = append(done, r.begin(ctx, w))
		require.Eventually(t, func() bool { return r.taken() == int64(i+2) }, time.Minute, time.Millisecond)
	}
	return done
}

func (r batchFixture) value(t *testing.T, user string) string {
	t.Helper()
	resp, err := r.c.Get(t.Context(), r.cfg.Keys.Slot(user, 0))
	require.NoError(t, err)
	if len(resp.Kvs) == 0 {
		return ""
	}
	return string(resp.Kvs[0].Value)
}

func TestBatch_WritesShareATransaction(t *testing.T) {
	r := newBatchFixture(t)
	r.occupy(t)
	var ws []*Write
	for i := range 40 {
		ws = append(ws, r.put(fmt.Sprint("user-", i), fmt.Sprint(i), 0))
	}
	done := r.queueAll(t, ws...)
	close(r.kv.release)
	for i, d := range done {
		require.NoError(t, <-d)
		assert.Equal(t, fmt.Sprint(i), r.value(t, fmt.Sprint("user-", i)))
	}
	assert.Len(t, r.kv.sent(), 2, "40 writes in one transaction after the first")
}

// etcd would evaluate the conditions of both writes before it applies either.
func TestBatch_OneWritePerUser(t *testing.T) {
	r := newBatchFixture(t)
	r.occupy(t)
	var ws []*Write
	for range 5 { // each on condition that the user has no stream
		w := r.put("maya", "x", 0)
		w.Txn.Compare = []*pb.Compare{etcdop.NoPutAfter(etcdop.Prefix(r.cfg.Keys.UserPrefix("maya")), 0)}
		ws = append(ws, w)
	}
	won := make(chan bool, len(ws))
	for i, w := range ws {
		w.Ctx = t.Context()
		go func() {
			resp, _, err := r.Commit(w)
			won <- assert.NoError(t, err) && resp.Succeeded
		}()
		require.Eventually(t, func() bool { return r.taken() == int64(i+2) }, time.Minute, time.Millisecond)
	}
	close(r.kv.release)
	winners := 0
	for range ws {
		if <-won {
			winners++
		}
	}
	assert.Equal(t, 1, winners)
	for _, txn := range r.kv.sent() {
		assert.Len(t, txn.Success, 1)
	}
}

func TestBatch_BisectsToTheInvalidWrite(t *testing.T) {
	r := newBatchFixture(t)
	r.occupy(t)
	var ws []*Write
	for i := range 9 {
		w := r.put(fmt.Sprint("user-", i), "x", 0)
		if i == 4 {
			w = r.put("user-4", "x", 0x7777777) // no such lease
		}
		ws = append(ws, w)
	}
	done := r.queueAll(t, ws...)
	close(r.kv.release)
	for i, d := range done {
		err := <-d
		if i == 4 {
			assert.ErrorIs(t, err, etcdop.ErrLeaseGone)
			assert.Empty(t, r.value(t, "user-4"))
			continue
		}
		assert.NoError(t, err)
		assert.Equal(t, "x", r.value(t, fmt.Sprint("user-", i)))
	}
}

// A batch stays within etcd's limit of operations for all kinds of writes, and all of
// them are written.
func TestBatch_StaysWithinMaxTxnOps(t *testing.T) {
	r := newBatchFixture(t)
	r.occupy(t)
	var ws []*Write
	for i := range 300 {
		w := r.put(fmt.Sprint("user-", i), "x", 0)
		for range i % 60 {
			w.Txn.Success = append(w.Txn.Success, etcdop.Count(etcdop.Prefix(r.cfg.Keys.UserPrefix(w.User))))
		}
		ws = append(ws, w)
	}
	done := r.queueAll(t, ws...)
	close(r.kv.release)
	for _, d := range done {
		assert.NoError(t, <-d)
	}
	assert.Less(t, len(r.kv.sent()), 30)
}

// A write that is cancelled while it is queued is dropped. A write that is cancelled
// later does not affect the others.
func TestBatch_WritesKeepTheirContexts(t *testing.T) {
	r := newBatchFixture(t)
	r.occupy(t)
	cancelled, cancel := context.WithCancel(t.Context())
	gone, hangUp := context.WithCancel(t.Context())
	a, b, c := r.put("a", "x", 0), r.put("b", "x", 0), r.put("c", "x", 0)
	a.Ctx, b.CallerCtx = cancelled, gone
	done := r.queueAll(t, a, b, c)
	cancel()
	hangUp()
	require.ErrorIs(t, <-done[0], context.Canceled)
	close(r.kv.release)
	require.ErrorIs(t, <-done[1], etcdop.ErrNotApplied)
	require.NoError(t, <-done[2])
	assert.Equal(t, []string{"", "", "x"}, []string{r.value(t, "a"), r.value(t, "b"), r.value(t, "c")})
}

func TestBatch_FullQueueRejects(t *testing.T) {
	r := newBatchFixture(t)
	r.occupy(t)
	const all = maxQueuedWrites + maxParallelBatches*MaxWrites + 100
	done := make(chan error, all)
	for i := range all {
		w := r.put(fmt.Sprint("user-", i), "x", 0)
		w.Ctx = t.Context()
		go func() {
			_, _, err := r.Commit(w)
			done <- err
		}()
	}
	require.ErrorIs(t, <-done, errQueueFull, "the only results while etcd does not respond")
	close(r.kv.release)
	rejected := 1
	for range all - 1 {
		if err := <-done; err != nil {
			require.ErrorIs(t, err, etcdop.ErrNotApplied)
			rejected++
		}
	}
	assert.GreaterOrEqual(t, rejected, 100)
	assert.Zero(t, r.waiting.Load())
}

// A lost response leaves the outcome of every write unknown, and each error says so.
func TestBatch_LostResponseIsUnknownOutcome(t *testing.T) {
	r := newBatchFixture(t)
	r.kv.KVClient = lostResponses{r.kv.KVClient}
	r.occupy(t)
	done := r.queueAll(t, r.put("a", "x", 0), r.put("b", "x", 0))
	close(r.kv.release)
	for _, d := range done {
		err := <-d
		require.ErrorIs(t, err, rpctypes.ErrTimeout)
		assert.NotErrorIs(t, err, etcdop.ErrNotApplied)
		assert.NotErrorIs(t, err, etcdop.ErrLeaseGone)
	}
	assert.Equal(t, "x", r.value(t, "a"), "it was written")
}

type lostResponses struct{ pb.KVClient }

func (k lostResponses) Txn(ctx context.Context, r *pb.TxnRequest, o ...grpc.CallOption) (*pb.TxnResponse, error) {
	_, _ = k.KVClient.Txn(ctx, r, o...)
	return nil, rpctypes.ErrTimeout
}

// fullKV is an etcd without space, which rejects transactions that put keys.
type fullKV struct{ pb.KVClient }

func (k fullKV) Txn(ctx context.Context, r *pb.TxnRequest, o ...grpc.CallOption) (*pb.TxnResponse, error) {
	for _, op := range r.Success {
		if hasPuts(r) || op.GetRequestTxn() != nil && hasPuts(op.GetRequestTxn()) {
			return nil, rpctypes.ErrNoSpace
		}
	}
	return k.KVClient.Txn(ctx, r, o...)
}

// Starts that a full etcd rejects do not make the stops in their batch fail.
func TestBatch_StopsSucceedWhileEtcdIsFull(t *testing.T) {
	r := newBatchFixture(t)
	r.kv.KVClient = fullKV{r.kv.KVClient}
	close(r.kv.release)
	ctx, cancel := context.WithCancel(t.Context())
	var starts sync.WaitGroup
	for i := range 50 {
		starts.Go(func() {
			for ctx.Err() == nil {
				w := r.put(fmt.Sprint("starter-", i), "x", 0)
				w.Ctx = t.Context()
				_, _, err := r.Commit(w)
				assert.ErrorIs(t, err, rpctypes.ErrNoSpace)
			}
		})
	}
	require.Eventually(t, r.EtcdFull, time.Minute, time.Millisecond)
	for i := range 200 {
		user := fmt.Sprint("stopper-", i)
		w := &Write{User: user, Ctx: t.Context(), Txn: &pb.TxnRequest{
			Success: []*pb.RequestOp{etcdop.Delete(etcdop.Key(r.cfg.Keys.Slot(user, 0)))},
		}}
		_, _, err := r.Commit(w)
		require.NoError(t, err, "stop %d", i)
	}
	cancel()
	starts.Wait()
}

// recordingKV records transactions, and rejects the first one for lack of space.
type recordingKV struct {
	pb.KVClient
	txns []*pb.TxnRequest
}

func (k *recordingKV) Txn(_ context.Context, r *pb.TxnRequest, _ ...grpc.CallOption) (*pb.TxnResponse, error) {
	k.txns = append(k.txns, r)
	if len(k.txns) == 1 {
		return nil, rpctypes.ErrNoSpace
	}
	return &pb.TxnResponse{
		Header: &pb.ResponseHeader{}, Succeeded: true, Responses: make([]*pb.ResponseOp, len(r.Success)),
	}, nil
}

// oneLease grants one lease.
type oneLease struct{}

func (oneLease) Grant(context.Context, time.Duration) (leasepool.Lease, error) {
	return leasepool.Lease{ID: 7}, nil
}
func (oneLease) Revoke(context.Context, int64) error { return nil }

func TestBatch_WritesNoTombstoneWhileEtcdIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		lease := leasepool.NewRotatingLease(oneLease{}, leasepool.RotatingConfig{UseFor: time.Hour, MaxWait: time.Second})
		kv := &recordingKV{}
		b := New(Config{
			KV: kv, TombstoneLease: lease, MaxOps: 128, Timeout: time.Second, FullFor: time.Minute, Observer: &sentWrites{},
		})
		done := make(chan error, 2)
		go func() { done <- lease.Run(ctx) }()
		go func() { done <- b.Run(ctx) }()
		stop := func() error {
			_, _, err := b.Commit(&Write{
				User: "maya", Ctx: ctx, Tombstones: make([]schema.Tombstone, 1),
				Txn: &pb.TxnRequest{Success: []*pb.RequestOp{etcdop.Delete(etcdop.Key("slot"))}},
			})
			return err
		}
		require.ErrorIs(t, stop(), rpctypes.ErrNoSpace)
		assert.Len(t, kv.txns[0].Success, 2, "with a tombstone")
		assert.True(t, b.EtcdFull())
		require.NoError(t, stop())
		assert.Len(t, kv.txns[1].Success, 1, "without a tombstone")
		time.Sleep(2 * time.Minute)
		assert.False(t, b.EtcdFull())
		require.NoError(t, stop())
		assert.Len(t, kv.txns[2].Success, 2)
		cancel()
		assert.NoError(t, errors.Join(<-done, <-done))
	})
}
