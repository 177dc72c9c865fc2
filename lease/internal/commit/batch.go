package commit

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/leasepool"
	"streamcount/lease/internal/schema"
)

// A Write is one transaction on the keys of one user.
type Write struct {
	User       string
	Txn        *pb.TxnRequest
	Tombstones []schema.Tombstone // of the streams that the transaction ends
	Ctx        context.Context    // bounds the wait for the result
	CallerCtx  context.Context    // cancels the write until it is sent; nil if nothing does

	done     chan result // buffers one
	queuedAt time.Time
	waitSpan trace.Span // nil unless the caller is traced
}

// result is the response to a write, or its error.
type result struct {
	resp *pb.TxnResponse
	at   Point
	err  error
}

// A Point is the revision and the raft term at which a transaction was applied.
type Point struct {
	Revision int64
	Term     uint64
}

// A Batcher implements group commit: it nests the writes of several users in one
// transaction, which then share a consensus round and an fsync. While one batch is
// in flight, the next one fills. At low load, a batch is a single write and nothing
// waits. Batches are sent in parallel only while many writes are queued, as when
// etcd is far away, because each batch has a fixed cost.
//
// etcd evaluates the conditions of all nested transactions before it applies any of
// their operations. Two starts of one user in one batch would both be admitted, so
// a batch has at most one write per user.
type Batcher struct {
	cfg       Config
	queue     chan *Write
	waiting   atomic.Int64 // writes that are not sent yet
	fullUntil atomic.Pointer[time.Time]
}

// Config configures a [Batcher].
type Config struct {
	KV             pb.KVClient
	Keys           schema.Keys
	TombstoneLease *leasepool.RotatingLease
	MaxOps         int           // of a transaction
	Timeout        time.Duration // of a transaction whose writes have no deadline
	FullFor        time.Duration // how long etcd counts as full after it has rejected a put
	Observer       Observer
	Tracer         trace.Tracer // nil if nothing is traced
}

// An Observer records what a [Batcher] sends.
type Observer interface {
	BatchSent(writes int)
	WriteWaited(d time.Duration) // from Commit until its batch was sent
}

const (
	maxQueuedWrites           = 8192 // for writes that put a key: half of it
	maxParallelBatches        = 4
	minQueuedForParallelBatch = 100
	maxBatchBytes             = 1 << 20 // below etcd's limit of 1.5 MiB
)

// MaxWrites is the maximum number of writes in a batch. A larger batch adds latency and
// saves nothing.
const MaxWrites = 256

var errQueueFull = fmt.Errorf("%w: the write queue is full", etcdop.ErrNotApplied)

// New returns a Batcher. [Batcher.Run] sends the batches.
func New(cfg Config) *Batcher {
	return &Batcher{cfg: cfg, queue: make(chan *Write, maxQueuedWrites)}
}

// Waiting is the number of writes that are not sent yet.
func (b *Batcher) Waiting() int64 { return b.waiting.Load() }

// Commit sends w with the next batch and waits for its result. Unless the error is
// etcdop.ErrLeaseGone or etcdop.ErrNotApplied, the outcome is unknown.
func (b *Batcher) Commit(w *Write) (*pb.TxnResponse, Point, error) {
	w.done, w.queuedAt = make(chan result, 1), time.Now()
	limit := int64(maxQueuedWrites)
	if hasPuts(w.Txn) {
		limit /= 2 // the other half is reserved for writes that only delete
	}
	if b.waiting.Add(1) > limit {
		b.waiting.Add(-1)
		return nil, Point{}, errQueueFull
	}
	w.waitSpan = b.startWaitSpan(w.Ctx)
	b.queue <- w // does not block: waiting bounds the queue
	select {
	case r := <-w.done:
		return r.resp, r.at, r.err
	case <-w.Ctx.Done():
		return nil, Point{}, fmt.Errorf("wait for etcd: %w", context.Cause(w.Ctx))
	}
}

// Run sends batches until ctx ends.
func (b *Batcher) Run(ctx context.Context) error {
	var pending []*Write // from the queue, in order
	inFlight := 0
	sent := make(chan struct{}, maxParallelBatches)
	var g errgroup.Group
	for {
		for len(pending) > 0 &&
			(inFlight == 0 || inFlight < maxParallelBatches && len(pending) >= minQueuedForParallelBatch) {
			var batch []*Write
			batch, pending = b.takeBatch(pending)
			b.waiting.Add(-int64(len(batch)))
			inFlight++
			g.Go(func() error {
				b.send(batch)
				sent <- struct{}{}
				return nil
			})
		}
		queue := b.queue
		if len(pending) >= 2*MaxWrites {
			queue = nil // the other writes stay in the queue
		}
		select {
		case <-ctx.Done():
			return g.Wait()
		case <-sent:
			inFlight--
		case w := <-queue:
			pending = append(pending, w)
		}
		pending = b.fillPending(pending)
	}
}

// fillPending appends queued writes to pending, without blocking.
func (b *Batcher) fillPending(pending []*Write) []*Write {
	for len(pending) < 2*MaxWrites {
		select {
		case w := <-b.queue:
			pending = append(pending, w)
		default:
			return pending
		}
	}
	return pending
}

// takeBatch splits pending into the next batch and the writes that do not fit in it.
func (b *Batcher) takeBatch(pending []*Write) (batch, rest []*Write) {
	left := budget{
		ops: b.cfg.MaxOps, bytes: maxBatchBytes, users: make(map[string]bool, len(pending)),
		separatePuts: b.EtcdFull(),
	}
	for i, w := range pending {
		switch {
		case left.tryAdd(w):
			batch = append(batch, w)
		case left.full:
			return batch, append(rest, pending[i:]...)
		default:
			rest = append(rest, w)
		}
	}
	return batch, rest
}

// EtcdFull reports whether etcd has recently rejected a put for lack of space. Until it has
// space, writes that only delete are sent separately and without a tombstone.
func (b *Batcher) EtcdFull() bool {
	until := b.fullUntil.Load()
	return until != nil && time.Now().Before(*until)
}

// send commits the writes of batch that are not cancelled, and delivers a result to
// each. A write that fails the whole transaction, because its lease is gone or it is
// too large, is found by bisection and fails alone.
func (b *Batcher) send(batch []*Write) {
	batch = b.dropCancelled(batch)
	if len(batch) == 0 {
		return
	}
	b.observe(batch)
	span := b.startBatchSpan(batch)
	defer endSpan(span)
	var tombstoneLease int64 // 0 if the batch writes no tombstone
	if !b.EtcdFull() && slices.ContainsFunc(batch, func(w *Write) bool { return len(w.Tombstones) > 0 }) {
		tombstoneLease = b.cfg.TombstoneLease.Acquire()
	}
	resp, err := b.sendTxn(batch, tombstoneLease, span)
	switch {
	case err == nil:
		deliver(batch, resp)
		return
	case errors.Is(err, etcdop.ErrLeaseGone):
		b.cfg.TombstoneLease.Invalidate(tombstoneLease)
		if len(batch) == 1 && tombstoneLease != 0 { // either lease may be the one that is gone
			resp, err = b.sendTxn(batch, 0, span)
			if err == nil {
				deliver(batch, resp)
				return
			}
		}
	case etcdop.IsFull(err): // the outcome is unknown
		until := time.Now().Add(b.cfg.FullFor)
		b.fullUntil.Store(&until)
	}
	if poisoned := errors.Is(err, etcdop.ErrLeaseGone) || etcdop.IsOversized(err); poisoned && len(batch) > 1 {
		b.send(batch[:len(batch)/2])
		b.send(batch[len(batch)/2:])
		return
	}
	for _, w := range batch {
		w.done <- result{err: err}
	}
}

// observe records the size of a batch and how long its writes waited. A batch that is
// bisected is recorded again for each half.
func (b *Batcher) observe(batch []*Write) {
	b.cfg.Observer.BatchSent(len(batch))
	now := time.Now()
	for _, w := range batch {
		b.cfg.Observer.WriteWaited(now.Sub(w.queuedAt))
	}
}

// dropCancelled removes the writes whose callers no longer wait for them.
func (b *Batcher) dropCancelled(batch []*Write) []*Write {
	kept := batch[:0]
	for _, w := range batch {
		err := w.Ctx.Err()
		if w.CallerCtx != nil && err == nil {
			err = w.CallerCtx.Err()
		}
		if err != nil {
			w.cancelSpan()
			w.done <- result{err: fmt.Errorf("%w: cancelled before it was sent: %w", etcdop.ErrNotApplied, err)}
			continue
		}
		kept = append(kept, w)
	}
	return kept
}

func (b *Batcher) sendTxn(batch []*Write, tombstoneLease int64, span trace.Span) (*pb.TxnResponse, error) {
	ctx, cancel := context.WithDeadline(context.WithoutCancel(batch[0].Ctx), latestDeadline(batch, b.cfg.Timeout))
	defer cancel()
	if span != nil {
		ctx = trace.ContextWithSpan(ctx, span)
	}
	resp, err := b.cfg.KV.Txn(ctx, b.buildTxn(batch, tombstoneLease))
	if err != nil {
		return nil, etcdop.Classify(err)
	}
	return resp, nil
}

// latestDeadline is the latest deadline of the writes of batch, or timeout from now if
// they have none.
func latestDeadline(batch []*Write, timeout time.Duration) time.Time {
	var latest time.Time
	for _, w := range batch {
		if d, ok := w.Ctx.Deadline(); ok && d.After(latest) {
			latest = d
		}
	}
	if latest.IsZero() {
		return time.Now().Add(timeout)
	}
	return latest
}

// buildTxn nests the writes of batch in one transaction. A single write is not nested.
// If tombstoneLease is not 0, it adds the tombstone of all writes under that lease.
func (b *Batcher) buildTxn(batch []*Write, tombstoneLease int64) *pb.TxnRequest {
	var tombstones []schema.Tombstone
	t := &pb.TxnRequest{Success: make([]*pb.RequestOp, 0, len(batch)+1)}
	for _, w := range batch {
		t.Success = append(t.Success, etcdop.Txn(w.Txn))
		tombstones = append(tombstones, w.Tombstones...)
	}
	if len(batch) == 1 {
		w := batch[0].Txn
		t = &pb.TxnRequest{Compare: w.Compare, Success: append([]*pb.RequestOp(nil), w.Success...), Failure: w.Failure}
	}
	if tombstoneLease != 0 {
		t.Success = append(t.Success, etcdop.Put(b.cfg.Keys.NewTombstone(), schema.EncodeTombstones(tombstones), tombstoneLease))
	}
	return t
}

// deliver passes to each write its part of the response.
func deliver(batch []*Write, resp *pb.TxnResponse) {
	at := Point{resp.Header.Revision, resp.Header.RaftTerm}
	if len(batch) == 1 {
		if w := batch[0]; resp.Succeeded {
			resp.Responses = resp.Responses[:len(w.Txn.Success)] // without the tombstone's
		}
		batch[0].done <- result{resp: resp, at: at}
		return
	}
	for i, w := range batch {
		w.done <- result{resp: resp.Responses[i].GetResponseTxn(), at: at}
	}
}
