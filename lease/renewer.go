package lease

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"
)

// renewer renews leases over a few long-lived keep-alive streams. Many requests
// are under way on each; etcd answers those of one stream in order.
//
// etcd serves a stream one request at a time, and a lease that has run out but
// is not yet revoked holds its whole stream up until it is. So a stream whose
// oldest request gets no answer is left with that request, and the others move
// to a new one.
type renewer struct {
	lanes [renewLanes]*lane
	start *lane // for new streams: their viewers wait, and heartbeats may come in crowds
	next  atomic.Uint32
}

const (
	renewLanes   = 4
	renewQueue   = 1 << 16 // requests that may wait on one lane; more are refused
	renewStall   = 500 * time.Millisecond
	renewRetries = 2
)

var errRenewStalled = errors.New("the keep-alive stream gave no answer")

// renewCall is one renewal that somebody waits for.
type renewCall struct {
	lease int64
	ctx   context.Context
	sent  time.Time
	tries int
	done  chan renewal // holds one
	span  trace.Span   // nil unless traced
}

func newRenewer(c pb.LeaseClient) *renewer {
	r := &renewer{start: newLane(c)}
	for i := range r.lanes {
		r.lanes[i] = newLane(c)
	}
	return r
}

func newLane(c pb.LeaseClient) *lane {
	return &lane{client: c, queue: make(chan *renewCall, renewQueue), m: newMeasures()}
}

// measureBy has all lanes count in m.
func (r *renewer) measureBy(m *measures) {
	for _, l := range append(r.lanes[:], r.start) {
		l.m = m
	}
}

func (r *renewer) run(ctx context.Context) error {
	var g errgroup.Group
	for _, l := range append(r.lanes[:], r.start) {
		g.Go(func() error {
			l.run(ctx)
			return nil
		})
	}
	return g.Wait()
}

// begin asks for a renewal; its outcome comes on the channel, once.
func (r *renewer) begin(ctx context.Context, lease int64) <-chan renewal {
	return r.lanes[r.next.Add(1)%renewLanes].begin(ctx, lease)
}

// beginStart is begin for the lease of a stream that is about to start.
func (r *renewer) beginStart(ctx context.Context, lease int64) <-chan renewal {
	return r.start.begin(ctx, lease)
}

func (l *lane) begin(ctx context.Context, lease int64) <-chan renewal {
	c := &renewCall{lease: lease, ctx: ctx, done: make(chan renewal, 1), span: l.m.spanOf(ctx, callRenew)}
	select {
	case l.queue <- c:
	default:
		l.answer(c, renewal{err: fmt.Errorf("renew lease %x: %w: too many wait", lease, errNotApplied)})
	}
	return c.done
}

// await is the outcome of a renewal, or that it took too long.
func await(ctx context.Context, done <-chan renewal) renewal {
	select {
	case r := <-done:
		return r
	case <-ctx.Done():
		return renewal{err: fmt.Errorf("renew a lease: %w", context.Cause(ctx))}
	}
}

// lane is one stream at a time, and the requests for it.
type lane struct {
	client pb.LeaseClient
	queue  chan *renewCall
	again  []*renewCall // of streams that broke: first in the next one
	m      *measures
}

func (l *lane) run(ctx context.Context) {
	for wait := time.Duration(0); ctx.Err() == nil; {
		if len(l.again) == 0 {
			select {
			case <-ctx.Done():
				return
			case c := <-l.queue:
				l.again = append(l.again, c)
			}
		}
		if l.serve(ctx) {
			wait = 0
			continue
		}
		wait = min(2*wait+10*time.Millisecond, time.Second)
		select {
		case <-ctx.Done():
		case <-time.After(wait/2 + rand.N(wait)):
		}
	}
}

// serve uses one stream until it breaks, stalls, or ctx ends. It reports whether
// the stream answered anything. What it did not answer waits for the next.
func (l *lane) serve(ctx context.Context) (worked bool) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s, err := l.client.LeaseKeepAlive(ctx)
	if err != nil {
		l.requeue(nil, fmt.Errorf("open a keep-alive stream: %w", err))
		return false
	}
	f := flight{m: l.m}
	var g errgroup.Group
	g.Go(func() error {
		cancel(f.receive(s))
		return nil
	})
	g.Go(func() error {
		f.watch(ctx, cancel)
		return nil
	})
	cancel(l.write(ctx, s, &f))
	_ = g.Wait() // its functions return nil
	err = context.Cause(ctx)
	left := f.calls
	stalled := errors.Is(err, errRenewStalled)
	if stalled && len(left) > 0 {
		l.answer(left[0], renewal{err: fmt.Errorf("renew lease %x: %w", left[0].lease, err)})
		left = left[1:]
	}
	l.requeue(left, err)
	return f.answered > 0 || stalled
}

// write sends what is asked for.
func (l *lane) write(ctx context.Context, s pb.Lease_LeaseKeepAliveClient, f *flight) error {
	for {
		var c *renewCall
		if len(l.again) > 0 {
			c, l.again = l.again[0], l.again[1:]
		} else {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case c = <-l.queue:
			}
		}
		if err := c.ctx.Err(); err != nil {
			l.answer(c, renewal{err: err})
			continue
		}
		f.add(c)
		if err := s.Send(&pb.LeaseKeepAliveRequest{ID: c.lease}); err != nil {
			return fmt.Errorf("keep-alive stream: %w", err)
		}
	}
}

// requeue puts calls before those that still wait, less those that failed often
// or that nobody waits for.
func (l *lane) requeue(calls []*renewCall, err error) {
	waiting := l.again
	l.again = nil
	for _, c := range calls {
		c.tries++
	}
	for _, c := range append(calls, waiting...) {
		if c.tries > renewRetries || c.ctx.Err() != nil {
			l.answer(c, renewal{err: fmt.Errorf("renew lease %x: %w", c.lease, err)})
			continue
		}
		l.again = append(l.again, c)
	}
}

// answer tells a caller what became of the renewal.
func (l *lane) answer(c *renewCall, r renewal) {
	l.m.renewed(r)
	endCall(c.span, r.err)
	c.done <- r
}

// flight is what was sent on one stream and not answered, oldest first.
type flight struct {
	mu       sync.Mutex
	calls    []*renewCall
	answered int
	moved    time.Time // of the last answer
	m        *measures
}

func (f *flight) add(c *renewCall) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c.sent = time.Now()
	f.calls = append(f.calls, c)
}

// receive hands out answers until the stream ends.
func (f *flight) receive(s pb.Lease_LeaseKeepAliveClient) error {
	for {
		resp, err := s.Recv()
		if err != nil {
			return fmt.Errorf("keep-alive stream: %w", err)
		}
		if !f.answer(resp) {
			return fmt.Errorf("keep-alive stream: an answer for lease %x, which was not asked for next", resp.ID)
		}
	}
}

func (f *flight) answer(resp *pb.LeaseKeepAliveResponse) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.calls) == 0 || f.calls[0].lease != resp.ID {
		return false
	}
	c := f.calls[0]
	f.calls = f.calls[1:]
	f.answered++
	f.moved = time.Now()
	r := renewalOf(resp, c.sent)
	f.m.renewed(r)
	endCall(c.span, r.err)
	f.m.calls[callRenew].add(int64(f.moved.Sub(c.sent)))
	c.done <- r
	return true
}

// watch ends the stream when its oldest request is held up.
func (f *flight) watch(ctx context.Context, end context.CancelCauseFunc) {
	look := time.NewTicker(renewStall / 4)
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-look.C:
			if f.stalled(now) {
				end(errRenewStalled)
				return
			}
		}
	}
}

// stalled reports whether nothing was answered for long, though something waits.
func (f *flight) stalled(now time.Time) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.calls) == 0 {
		return false
	}
	since := f.calls[0].sent
	if f.moved.After(since) {
		since = f.moved
	}
	return now.Sub(since) > renewStall
}
