package lease

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
)

// A write is one transaction on one user's keys on its way to etcd.
type write struct {
	user   string
	txn    *pb.TxnRequest
	graves []grave         // of the streams that it ends
	ctx    context.Context // bounds the wait for etcd
	caller context.Context // its end gives the write up as long as it was not sent; nil for never
	done   chan written    // holds one
	queued time.Time
	wait   trace.Span // nil unless traced
}

// written is etcd's answer to a write, or the error of it.
type written struct {
	resp *pb.TxnResponse
	at   moment
	err  error
}

// moment is when a transaction was carried out.
type moment struct {
	rev  int64
	term uint64
}

// batcher is group commit: writes to different users share one outer
// transaction, so that they share its consensus round and its fsync. While one
// batch is under way the next fills; at low load a batch is one write and
// nothing waits. More than one is under way only where many wait, as they do
// when etcd is far away: each batch has its price, and fewer are cheaper.
//
// etcd evaluates the conditions of all nested transactions before it applies
// any of their writes. Two writes to one user in one batch would both be
// admitted, so there is never more than one.
type batcher struct {
	kv      pb.KVClient
	keys    keys
	graves  *graveyard
	maxOps  int
	timeout time.Duration
	queue   chan *write
	waiting atomic.Int64 // writes that are not yet sent
	m       *measures
}

const (
	batchQueue    = 8192    // writes that may wait; more are refused, and starts when half as many do
	batchesAtOnce = 4       // under way
	batchCrowd    = 100     // so many must wait for a second batch to be sent beside the first
	batchMembers  = 256     // more adds latency and saves nothing
	batchBytes    = 1 << 20 // of etcd's 1.5 MiB
)

var errQueueFull = fmt.Errorf("%w: too many writes wait for etcd", errNotApplied)

func newBatcher(e Etcd, k keys, g *graveyard, timeout time.Duration) *batcher {
	return &batcher{
		kv: e.KV, keys: k, graves: g, maxOps: e.maxTxnOps(), timeout: timeout,
		queue: make(chan *write, batchQueue), m: newMeasures(),
	}
}

// do sends w with the next batch and waits for its outcome. An error that is
// neither errLeaseGone nor errNotApplied leaves the outcome unknown.
func (b *batcher) do(w *write) (*pb.TxnResponse, moment, error) {
	w.done, w.queued = make(chan written, 1), time.Now()
	most := int64(batchQueue)
	if putsAnything(w.txn) {
		most /= 2 // so that there is room for those that only free what is there
	}
	if b.waiting.Add(1) > most {
		b.waiting.Add(-1)
		return nil, moment{}, errQueueFull
	}
	w.wait = b.beginWait(w.ctx)
	b.queue <- w // there is room
	select {
	case r := <-w.done:
		return r.resp, r.at, r.err
	case <-w.ctx.Done():
		return nil, moment{}, fmt.Errorf("wait for etcd: %w", context.Cause(w.ctx))
	}
}

// run sends batches until ctx ends.
func (b *batcher) run(ctx context.Context) error {
	var pending []*write // taken from the queue, in order
	underWay := 0
	sent := make(chan struct{}, batchesAtOnce)
	var g errgroup.Group
	for {
		for len(pending) > 0 && (underWay == 0 || underWay < batchesAtOnce && len(pending) >= batchCrowd) {
			var batch []*write
			batch, pending = b.collect(pending)
			b.waiting.Add(-int64(len(batch)))
			underWay++
			g.Go(func() error {
				b.send(batch)
				sent <- struct{}{}
				return nil
			})
		}
		queue := b.queue
		if len(pending) >= 2*batchMembers {
			queue = nil // the rest waits where it is counted
		}
		select {
		case <-ctx.Done():
			return g.Wait()
		case <-sent:
			underWay--
		case w := <-queue:
			pending = append(pending, w)
		}
		pending = b.drain(pending)
	}
}

// drain adds what waits in the queue.
func (b *batcher) drain(pending []*write) []*write {
	for len(pending) < 2*batchMembers {
		select {
		case w := <-b.queue:
			pending = append(pending, w)
		default:
			return pending
		}
	}
	return pending
}

// collect splits off a batch. What does not fit, or does not go with the others,
// waits for the next.
func (b *batcher) collect(pending []*write) (batch, rest []*write) {
	room := room{
		ops: b.maxOps, bytes: batchBytes, users: make(map[string]bool, len(pending)), apart: b.graves.avoided(),
	}
	for i, w := range pending {
		switch {
		case room.add(w):
			batch = append(batch, w)
		case room.full:
			return batch, append(rest, pending[i:]...)
		default:
			rest = append(rest, w)
		}
	}
	return batch, rest
}

// room is what a batch can still take.
type room struct {
	ops, bytes int
	members    int
	depth      int // the longest list of operations of any member
	users      map[string]bool
	full       bool
	apart      bool // etcd is full: stops must not fail with the starts beside them
	puts       bool // what the members do, if apart
}

// add takes w in, unless it does not fit, its user has a write in the batch, or
// it has to go apart.
// etcd counts a level's longest list plus that of the deepest one below it; one
// more is the tombstone's.
func (r *room) add(w *write) bool {
	depth := max(r.depth, depthOf(w.txn))
	size := sizeOf(w)
	if r.members > 0 && (r.members == batchMembers || r.members+2+depth > r.ops || size > r.bytes) {
		r.full = true
		return false
	}
	puts := putsAnything(w.txn)
	if r.users[w.user] || r.apart && r.members > 0 && puts != r.puts {
		return false
	}
	r.puts = puts
	r.users[w.user] = true
	r.members++
	r.depth, r.bytes = depth, r.bytes-size
	return true
}

// sizeOf is about what a write adds to a request, in bytes.
func sizeOf(w *write) int {
	size := 512 + 64*len(w.graves)
	for _, op := range w.txn.Success {
		size += len(op.GetRequestPut().GetValue())
	}
	return size
}

func putsAnything(t *pb.TxnRequest) bool {
	return slices.ContainsFunc(t.Success, func(op *pb.RequestOp) bool { return op.GetRequestPut() != nil })
}

func depthOf(t *pb.TxnRequest) int {
	return max(len(t.Compare), len(t.Success), len(t.Failure))
}

// send commits batch, less those whose time is up, and tells each member its
// outcome. A member that spoils the whole transaction (its lease is gone, it is
// too large) is found by halves, and fails alone.
func (b *batcher) send(batch []*write) {
	batch = b.stillWanted(batch)
	if len(batch) == 0 {
		return
	}
	b.measure(batch)
	span := b.beginBatch(batch)
	defer end(span)
	var under int64 // the tombstone's lease, if there is anything to tell
	if slices.ContainsFunc(batch, func(w *write) bool { return len(w.graves) > 0 }) {
		under = b.graves.take()
	}
	resp, err := b.commit(batch, under, span)
	switch {
	case err == nil:
		tell(batch, resp)
		return
	case errors.Is(err, errLeaseGone):
		b.graves.drop(under)
		if len(batch) == 1 && under != 0 { // the tombstone's lease, or the member's?
			resp, err = b.commit(batch, 0, span)
			if err == nil {
				tell(batch, resp)
				return
			}
		}
	case isFull(err): // it may have been applied; what puts nothing goes on alone
		b.graves.avoid()
	}
	if spoils := errors.Is(err, errLeaseGone) || isOversized(err); spoils && len(batch) > 1 {
		b.send(batch[:len(batch)/2])
		b.send(batch[len(batch)/2:])
		return
	}
	for _, w := range batch {
		w.done <- written{err: err}
	}
}

// measure notes the size of a batch, and how long its members have waited. One that
// is sent again in halves counts again.
func (b *batcher) measure(batch []*write) {
	b.m.batchSize.add(int64(len(batch)))
	now := time.Now()
	for _, w := range batch {
		b.m.batchWait.add(int64(now.Sub(w.queued)))
	}
}

// stillWanted drops the writes that nobody waits for any more.
func (b *batcher) stillWanted(batch []*write) []*write {
	wanted := batch[:0]
	for _, w := range batch {
		err := w.ctx.Err()
		if w.caller != nil && err == nil {
			err = w.caller.Err()
		}
		if err != nil {
			w.giveUp()
			w.done <- written{err: fmt.Errorf("%w: given up before it was sent: %w", errNotApplied, err)}
			continue
		}
		wanted = append(wanted, w)
	}
	return wanted
}

func (b *batcher) commit(batch []*write, under int64, span trace.Span) (*pb.TxnResponse, error) {
	ctx, cancel := context.WithDeadline(context.WithoutCancel(batch[0].ctx), lastDeadline(batch, b.timeout))
	defer cancel()
	if span != nil {
		ctx = trace.ContextWithSpan(ctx, span)
	}
	resp, err := b.kv.Txn(ctx, b.txnOf(batch, under))
	if err != nil {
		return nil, classify(err)
	}
	return resp, nil
}

// lastDeadline is when the most patient member gives up.
func lastDeadline(batch []*write, timeout time.Duration) time.Time {
	var last time.Time
	for _, w := range batch {
		if d, ok := w.ctx.Deadline(); ok && d.After(last) {
			last = d
		}
	}
	if last.IsZero() {
		return time.Now().Add(timeout)
	}
	return last
}

// txnOf nests the members, and adds their tombstone if there is a lease for it.
// One member alone is not nested.
func (b *batcher) txnOf(batch []*write, under int64) *pb.TxnRequest {
	var graves []grave
	t := &pb.TxnRequest{Success: make([]*pb.RequestOp, 0, len(batch)+1)}
	for _, w := range batch {
		t.Success = append(t.Success, txnOp(w.txn))
		graves = append(graves, w.graves...)
	}
	if len(batch) == 1 {
		w := batch[0].txn
		t = &pb.TxnRequest{Compare: w.Compare, Success: append([]*pb.RequestOp(nil), w.Success...), Failure: w.Failure}
	}
	if under != 0 {
		t.Success = append(t.Success, putOp(b.keys.tombstone(), gravesValue(graves), under))
	}
	return t
}

// tell gives each member its part of the answer.
func tell(batch []*write, resp *pb.TxnResponse) {
	at := moment{resp.Header.Revision, resp.Header.RaftTerm}
	if len(batch) == 1 {
		if w := batch[0]; resp.Succeeded {
			resp.Responses = resp.Responses[:len(w.txn.Success)] // without the tombstone's
		}
		batch[0].done <- written{resp: resp, at: at}
		return
	}
	for i, w := range batch {
		w.done <- written{resp: resp.Responses[i].GetResponseTxn(), at: at}
	}
}
