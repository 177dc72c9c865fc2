package etcdtest

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Full names of methods of etcd.
const (
	Txn       = "/etcdserverpb.KV/Txn"
	Range     = "/etcdserverpb.KV/Range"
	Put       = "/etcdserverpb.KV/Put"
	Grant     = "/etcdserverpb.Lease/LeaseGrant"
	Revoke    = "/etcdserverpb.Lease/LeaseRevoke"
	KeepAlive = "/etcdserverpb.Lease/LeaseKeepAlive"
	SignIn    = "/etcdserverpb.Auth/Authenticate"
	Watch     = "/etcdserverpb.Watch/Watch"
)

// Faults loses and delays requests and replies of one client of etcd. On a stream, such as
// KeepAlive, every message counts as a request or a reply, and a lost message ends the stream.
//
// etcd's client repeats a read that fails, so a single lost Range only delays the call. It does
// not repeat writes.
//
// The zero value has no faults. All methods are safe for concurrent use.
type Faults struct {
	mu       sync.Mutex
	requests point
	replies  point
	calls    map[string]int
}

// point has the faults of requests, or those of replies, by method.
type point struct {
	cuts  map[string]int // number of messages to lose
	holds map[string]*hold
}

type hold struct {
	waiting int
	open    chan struct{} // closed when released
}

// CutRequest makes the next calls of method fail with codes.Unavailable before
// they are sent.
func (f *Faults) CutRequest(method string, times int) { f.cut(&f.requests, method, times) }

// CutReply makes the next calls of method that succeed fail with
// codes.Unavailable after the server has executed them.
func (f *Faults) CutReply(method string, times int) { f.cut(&f.replies, method, times) }

// Hold delays every call of method before it is sent, until release is called
// or the call's context ends.
func (f *Faults) Hold(method string) (release func()) { return f.hold(&f.requests, method) }

// HoldReply delays the reply to every call of method after the server has executed it, until
// release is called or the call's context ends.
func (f *Faults) HoldReply(method string) (release func()) { return f.hold(&f.replies, method) }

// Heal ends all cuts and releases all holds.
func (f *Faults) Heal() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, p := range []*point{&f.requests, &f.replies} {
		for _, h := range p.holds {
			close(h.open)
		}
		*p = point{}
	}
}

// Held returns how many requests and replies of method are being held.
func (f *Faults) Held(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := 0
	for _, p := range []*point{&f.requests, &f.replies} {
		if h := p.holds[method]; h != nil {
			n += h.waiting
		}
	}
	return n
}

// Calls returns the number of requests of method, including lost ones.
func (f *Faults) Calls(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[method]
}

// DialOptions returns the options that add the faults to a client.
func (f *Faults) DialOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithChainUnaryInterceptor(f.UnaryInterceptor()),
		grpc.WithChainStreamInterceptor(f.StreamInterceptor()),
	}
}

// UnaryInterceptor returns an interceptor for grpc.WithChainUnaryInterceptor. It runs inside
// etcd's own interceptor, once for every attempt of a call.
func (f *Faults) UnaryInterceptor() grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any,
		cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		f.count(method)
		if err := f.pass(ctx, &f.requests, method); err != nil {
			return err
		}
		if err := invoke(ctx, method, req, reply, cc, opts...); err != nil {
			return err
		}
		return f.pass(ctx, &f.replies, method)
	}
}

// StreamInterceptor returns an interceptor for grpc.WithChainStreamInterceptor.
func (f *Faults) StreamInterceptor() grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn,
		method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		ctx, cancel := context.WithCancelCause(ctx)
		s, err := open(ctx, desc, cc, method, opts...)
		if err != nil {
			cancel(err)
			return nil, err
		}
		return &faultyStream{ClientStream: s, ctx: ctx, cancel: cancel, faults: f, method: method}, nil
	}
}

// FaultyClient returns a new client with faults, which may be nil. It is closed when the test
// ends.
func FaultyClient(tb testing.TB, endpoints []string, faults *Faults) *clientv3.Client {
	tb.Helper()
	cfg := clientv3.Config{
		Endpoints:            endpoints,
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    10 * time.Second,
		DialKeepAliveTimeout: 3 * time.Second,
		Logger:               zap.NewNop(),
	}
	if faults != nil {
		cfg.DialOptions = faults.DialOptions()
	}
	c, err := clientv3.New(cfg)
	require.NoError(tb, err, "dial etcd")
	tb.Cleanup(func() { _ = c.Close() }) // fails if the test has closed it
	return c
}

func (f *Faults) cut(p *point, method string, times int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.cuts == nil {
		p.cuts = map[string]int{}
	}
	p.cuts[method] = times
}

func (f *Faults) hold(p *point, method string) (release func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.holds == nil {
		p.holds = map[string]*hold{}
	}
	h := p.holds[method]
	if h == nil {
		h = &hold{open: make(chan struct{})}
		p.holds[method] = h
	}
	return func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if p.holds[method] == h { // else it was released or healed
			delete(p.holds, method)
			close(h.open)
		}
	}
}

func (f *Faults) count(method string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls == nil {
		f.calls = map[string]int{}
	}
	f.calls[method]++
}

// pass delays one message or returns an error, as p says.
func (f *Faults) pass(ctx context.Context, p *point, method string) error {
	if err := f.wait(ctx, p, method); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if p.cuts[method] <= 0 {
		return nil
	}
	p.cuts[method]--
	if p == &f.requests {
		return status.Error(codes.Unavailable, "etcdtest: request lost")
	}
	return status.Error(codes.Unavailable, "etcdtest: reply lost")
}

func (f *Faults) wait(ctx context.Context, p *point, method string) error {
	f.mu.Lock()
	h := p.holds[method]
	if h != nil {
		h.waiting++
	}
	f.mu.Unlock()
	if h == nil {
		return nil
	}
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		h.waiting--
	}()
	select {
	case <-h.open:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

// faultyStream applies faults to the messages of one stream.
type faultyStream struct {
	grpc.ClientStream
	ctx    context.Context
	cancel context.CancelCauseFunc // the cause is the fault that ended the stream
	faults *Faults
	method string
}

// SendMsg sends m. If m is lost, it ends the stream.
func (s *faultyStream) SendMsg(m any) error {
	s.faults.count(s.method)
	if err := s.faults.pass(s.ctx, &s.faults.requests, s.method); err != nil {
		s.cancel(err)
		return err
	}
	return s.ClientStream.SendMsg(m)
}

// RecvMsg receives into m. If the reply is lost, it ends the stream.
func (s *faultyStream) RecvMsg(m any) error {
	if err := s.ClientStream.RecvMsg(m); err != nil {
		if cause := context.Cause(s.ctx); status.Code(cause) == codes.Unavailable {
			err = cause // a request was lost; gRPC's own error is Canceled
		}
		s.cancel(err)
		return err
	}
	if err := s.faults.pass(s.ctx, &s.faults.replies, s.method); err != nil {
		s.cancel(err)
		return err
	}
	return nil
}
