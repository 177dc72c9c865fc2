package keepalive

import (
	"context"
	"fmt"
	"math/bits"
	"sync"
)

// A Batch renews several leases with one deadline, and without allocating for each of
// them. One goroutine uses a Batch.
type Batch struct {
	renewer *Renewer
	ctx     context.Context
	blocks  [][]renewRequest // not moved, because the streams refer to the requests
	n       int              // requests in blocks

	mu          sync.Mutex
	outstanding int
	wakeAt      int           // the number of outstanding requests that wakes wait; -1 for none
	wake        chan struct{} // buffers one
}

const (
	// maxOutstanding is the maximum number of renewals of one batch that wait for etcd, so
	// that other callers do not wait for the whole of a large batch.
	maxOutstanding = 512
	maxPooled      = 4096 // renewals of a batch whose memory is reused
)

// NewBatch returns an empty batch. It does not wait for a result after ctx ends.
func (r *Renewer) NewBatch(ctx context.Context) *Batch {
	b, ok := r.batches.Get().(*Batch)
	if !ok {
		b = &Batch{renewer: r, wakeAt: -1, wake: make(chan struct{}, 1)}
	}
	b.ctx = ctx
	return b
}

// WaitForRoom waits while too many renewals of the batch are outstanding. The caller then
// checks what it is about to renew, so the check is recent when the renewal is sent.
func (b *Batch) WaitForRoom() { b.waitUntil(maxOutstanding-1, maxOutstanding/2) }

// Renew requests a renewal.
func (b *Batch) Renew(lease int64) {
	if k := bits.Len(uint(b.n)); k == len(b.blocks) {
		b.blocks = append(b.blocks, make([]renewRequest, max(1, 1<<k>>1)))
	}
	c := b.request(b.n)
	b.n++
	*c = renewRequest{lease: lease, ctx: b.ctx, batch: b}
	b.mu.Lock()
	b.outstanding++
	b.mu.Unlock()
	b.renewer.enqueue(b.renewer.nextStream(), c)
}

// Wait waits for the results of all renewals, or until the context of the batch ends.
func (b *Batch) Wait() { b.waitUntil(0, 0) }

// Result returns the result of a renewal: the first one has index 0. It is an error if
// there is none yet.
func (b *Batch) Result(i int) Result {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c := b.request(i); c.answered {
		return c.result
	}
	return Result{Err: fmt.Errorf("renew a lease: %w", context.Cause(b.ctx))}
}

// Release makes the memory of the batch available to others. The batch must not be used
// afterwards.
func (b *Batch) Release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.outstanding > 0 || b.n > maxPooled {
		return // a stream may still refer to its requests
	}
	for i := range b.n {
		*b.request(i) = renewRequest{}
	}
	select {
	case <-b.wake:
	default:
	}
	b.ctx, b.n, b.wakeAt = nil, 0, -1
	b.renewer.batches.Put(b)
}

// request returns request i. The first two blocks contain one request each, and each
// further block twice as many as the one before.
func (b *Batch) request(i int) *renewRequest {
	k := bits.Len(uint(i))
	return &b.blocks[k][i-(1<<k)>>1]
}

// waitUntil returns at once if at most enough renewals are outstanding. Otherwise it
// waits until the number has fallen to low, or the context ends.
func (b *Batch) waitUntil(enough, low int) {
	for {
		b.mu.Lock()
		if b.outstanding <= enough {
			b.mu.Unlock()
			return
		}
		b.wakeAt = low
		b.mu.Unlock()
		select {
		case <-b.wake:
		case <-b.ctx.Done():
			return
		}
	}
}

// deliver stores the result of a request.
func (b *Batch) deliver(c *renewRequest, r Result) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c.result, c.answered = r, true
	b.outstanding--
	if b.outstanding == b.wakeAt {
		b.wakeAt = -1
		select {
		case b.wake <- struct{}{}:
		default:
		}
	}
}
