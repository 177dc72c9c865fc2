package keepalive

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"streamcount/internal/retry"
	"streamcount/lease/internal/etcdop"
)

// Renewer renews leases over a few long-lived keep-alive streams. Each stream has many
// requests in flight, to which etcd responds in order.
//
// etcd processes the requests of a stream one by one. A lease that has expired but is
// not yet revoked blocks its stream until it is. So when the oldest request of a stream
// times out, that request fails and the others are sent again on a new stream.
type Renewer struct {
	streams     [numStreams]*keepAliveStream
	startStream *keepAliveStream // for starts, which must not wait for a burst of heartbeats
	next        atomic.Uint32
	proxied     func() bool
	separate    chan struct{} // one token per separate stream
	batches     sync.Pool     // of *Batch
}

const (
	numStreams = 4
	maxQueued  = 1 << 16 // per stream
	// StallTimeout is the age of the oldest request at which a stream is replaced.
	StallTimeout = 500 * time.Millisecond
	maxRetries   = 2
	maxSeparate  = 1024 // through the proxy
)

// ErrStalled means that a renewal had no response within StallTimeout.
var ErrStalled = errors.New("no response on the keep-alive stream")

// renewRequest is one renewal and its caller's wait for the result.
type renewRequest struct {
	lease    int64
	ctx      context.Context
	sent     time.Time
	attempts int
	span     trace.Span  // nil unless the caller is traced
	done     chan Result // buffers one; nil if the request belongs to a batch

	batch    *Batch
	result   Result // set by the batch
	answered bool
}

// A Observer records renewals.
type Observer interface {
	// StartRenewal returns the span of a renewal, or nil if the caller is not traced.
	StartRenewal(ctx context.Context) trace.Span
	// EndRenewal records a result, and how long etcd took, or 0 if it did not respond.
	EndRenewal(span trace.Span, r Result, took time.Duration)
}

// New returns a renewer. proxied reports whether renewals pass through etcd's gRPC
// proxy. The proxy responds to the first renewal of a lease on a stream after up to half a
// second, to the second only after a third of the TTL, and renews the lease while the
// stream is open. So each renewal through the proxy has a separate stream.
func New(c pb.LeaseClient, proxied func() bool, o Observer) *Renewer {
	newStream := func() *keepAliveStream {
		return &keepAliveStream{client: c, queue: make(chan *renewRequest, maxQueued), observer: o}
	}
	r := &Renewer{
		startStream: newStream(), proxied: proxied, separate: make(chan struct{}, maxSeparate),
	}
	for i := range r.streams {
		r.streams[i] = newStream()
	}
	return r
}

// Run sends renewals until ctx ends.
func (r *Renewer) Run(ctx context.Context) error {
	var g errgroup.Group
	for _, k := range append(r.streams[:], r.startStream) {
		g.Go(func() error {
			k.run(ctx)
			return nil
		})
	}
	return g.Wait()
}

// Renew requests a renewal. The channel receives the result.
func (r *Renewer) Renew(ctx context.Context, lease int64) <-chan Result {
	c := &renewRequest{lease: lease, ctx: ctx, done: make(chan Result, 1)}
	r.enqueue(r.nextStream(), c)
	return c.done
}

// RenewForStart is Renew for the lease of a start.
func (r *Renewer) RenewForStart(ctx context.Context, lease int64) <-chan Result {
	c := &renewRequest{lease: lease, ctx: ctx, done: make(chan Result, 1)}
	r.enqueue(r.startStream, c)
	return c.done
}

// nextStream returns the stream for a renewal that is not for a start.
func (r *Renewer) nextStream() *keepAliveStream { return r.streams[r.next.Add(1)%numStreams] }

func (r *Renewer) enqueue(k *keepAliveStream, c *renewRequest) {
	c.span = k.observer.StartRenewal(c.ctx)
	if r.proxied() {
		go r.renewSeparately(k, c)
		return
	}
	select {
	case k.queue <- c:
	default:
		k.complete(c, Result{Err: fmt.Errorf("renew lease %x: %w: the queue is full", c.lease, etcdop.ErrNotApplied)})
	}
}

// renewSeparately renews a lease on a separate stream, of which there are at most
// maxSeparate.
func (r *Renewer) renewSeparately(k *keepAliveStream, c *renewRequest) {
	select {
	case r.separate <- struct{}{}:
		k.complete(c, RenewOnNewStream(c.ctx, k.client, c.lease))
		<-r.separate
	case <-c.ctx.Done():
		k.complete(c, Result{Err: fmt.Errorf("renew lease %x: %w", c.lease, context.Cause(c.ctx))})
	}
}

// Wait returns the result of a renewal, or the cause for which ctx ended.
func Wait(ctx context.Context, done <-chan Result) Result {
	select {
	case r := <-done:
		return r
	case <-ctx.Done():
		return Result{Err: fmt.Errorf("renew a lease: %w", context.Cause(ctx))}
	}
}

// keepAliveStream sends queued requests on one stream at a time.
type keepAliveStream struct {
	client   pb.LeaseClient
	queue    chan *renewRequest
	retries  []*renewRequest // from a broken stream; sent first on the next one
	observer Observer
}

func (k *keepAliveStream) run(ctx context.Context) {
	backoff := retry.Backoff{Min: 10 * time.Millisecond, Max: time.Second}
	for ctx.Err() == nil {
		if len(k.retries) == 0 {
			select {
			case <-ctx.Done():
				return
			case c := <-k.queue:
				k.retries = append(k.retries, c)
			}
		}
		if k.serve(ctx) {
			backoff.Reset()
			continue
		}
		_ = retry.Sleep(ctx, backoff.Next()) // the loop ends with ctx
	}
}

// serve opens a stream and uses it until it breaks, stalls, or ctx ends. It reports
// whether the stream made progress. Requests without a response are sent again on the
// next stream.
func (k *keepAliveStream) serve(ctx context.Context) (worked bool) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s, err := k.client.LeaseKeepAlive(ctx)
	if err != nil {
		k.requeue(nil, fmt.Errorf("open a keep-alive stream: %w", err))
		return false
	}
	f := inFlight{observer: k.observer}
	var g errgroup.Group
	g.Go(func() error {
		cancel(f.receive(s))
		return nil
	})
	g.Go(func() error {
		f.watch(ctx, cancel)
		return nil
	})
	cancel(k.sendAll(ctx, s, &f))
	_ = g.Wait() // its functions return nil
	err = context.Cause(ctx)
	left := f.requests
	stalled := errors.Is(err, ErrStalled)
	if stalled && len(left) > 0 {
		k.complete(left[0], Result{Err: fmt.Errorf("renew lease %x: %w", left[0].lease, err)})
		left = left[1:]
	}
	k.requeue(left, err)
	return f.answered > 0 || stalled
}

// sendAll sends the queued requests.
func (k *keepAliveStream) sendAll(ctx context.Context, s pb.Lease_LeaseKeepAliveClient, f *inFlight) error {
	for {
		var c *renewRequest
		if len(k.retries) > 0 {
			c, k.retries = k.retries[0], k.retries[1:]
		} else {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case c = <-k.queue:
			}
		}
		if err := c.ctx.Err(); err != nil {
			k.complete(c, Result{Err: err})
			continue
		}
		r := &pb.LeaseKeepAliveRequest{ID: c.lease}
		f.add(c) // from now on c may be delivered
		if err := s.Send(r); err != nil {
			return fmt.Errorf("keep-alive stream: %w", err)
		}
	}
}

// requeue puts requests before those that were to be sent again. It drops those that
// failed too often or whose callers no longer wait.
func (k *keepAliveStream) requeue(calls []*renewRequest, err error) {
	waiting := k.retries
	k.retries = nil
	for _, c := range calls {
		c.attempts++
	}
	for _, c := range append(calls, waiting...) {
		if c.attempts > maxRetries || c.ctx.Err() != nil {
			k.complete(c, Result{Err: fmt.Errorf("renew lease %x: %w", c.lease, err)})
			continue
		}
		k.retries = append(k.retries, c)
	}
}

// complete delivers the result of a request.
func (k *keepAliveStream) complete(c *renewRequest, r Result) {
	k.observer.EndRenewal(c.span, r, 0)
	c.deliver(r)
}

// deliver passes a result to the caller. The request must not be used afterwards.
func (c *renewRequest) deliver(r Result) {
	if c.batch != nil {
		c.batch.deliver(c, r)
		return
	}
	c.done <- r
}

// inFlight holds the requests on one stream that have no response yet, oldest first.
type inFlight struct {
	mu         sync.Mutex
	requests   []*renewRequest
	answered   int
	lastAnswer time.Time
	observer   Observer
}

func (f *inFlight) add(c *renewRequest) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.sent = time.Now()
	f.requests = append(f.requests, c)
}

// receive delivers the responses until the stream ends.
func (f *inFlight) receive(s pb.Lease_LeaseKeepAliveClient) error {
	for {
		resp, err := s.Recv()
		if err != nil {
			return fmt.Errorf("keep-alive stream: %w", err)
		}
		if !f.complete(resp) {
			return fmt.Errorf("keep-alive stream: unexpected response for lease %x", resp.ID)
		}
	}
}

func (f *inFlight) complete(resp *pb.LeaseKeepAliveResponse) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.requests) == 0 || f.requests[0].lease != resp.ID {
		return false
	}
	c := f.requests[0]
	f.requests[0], f.requests = nil, f.requests[1:]
	f.answered++
	f.lastAnswer = time.Now()
	r := resultOf(resp, c.sent)
	f.observer.EndRenewal(c.span, r, f.lastAnswer.Sub(c.sent))
	c.deliver(r)
	return true
}

// watch ends the stream when its oldest request times out.
func (f *inFlight) watch(ctx context.Context, end context.CancelCauseFunc) {
	tick := time.NewTicker(StallTimeout / 4)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if f.stalled(now) {
				end(ErrStalled)
				return
			}
		}
	}
}

// stalled reports whether requests are in flight and no response has arrived for
// renewStallTimeout.
func (f *inFlight) stalled(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.requests) == 0 {
		return false
	}
	since := f.requests[0].sent
	if f.lastAnswer.After(since) {
		since = f.lastAnswer
	}
	return now.Sub(since) > StallTimeout
}
