package cluster

import (
	"context"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy/adapter"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// drainTimeout is the maximum time that Close waits for pending calls. Only a disk that hangs
// delays a call for so long.
const drainTimeout = 5 * time.Second

// Calls are the services of an embedded server without network and encoding. From etcd's
// request checks and quota on, they run the same code as calls through gRPC. Their errors have
// the same meaning for status.Code and rpctypes.Error; the error of an ended context also
// matches the context's error in errors.Is.
//
// As through a client of [Connect], a call without a deadline gets one of 3 s. A call returns
// at its deadline or when its context is cancelled, even if the server is still working; the
// outcome of such a write is unknown. Unlike that client, Calls never retry.
//
// Requests and replies are shared with the server. Do not change a request, or reuse it for
// another call, after it was passed to KV or Lease, even after the call has returned: the
// server may still read it. Do not change replies and watch events: all watchers share the
// key-values of events.
//
// After [Embedded.Close], and after the server died, calls and streams fail
// with rpctypes.ErrStopped and watch channels are closed. KV has no
// RangeStream.
type Calls struct {
	KV    pb.KVClient
	Lease pb.LeaseClient
	Watch clientv3.Watcher // closed by Embedded.Close, not by callers
}

// InProcess returns the server's services. Every call returns the same.
func (e *Embedded) InProcess() Calls { return e.local.calls() }

// MaxTxnOps is the number of operations that the server accepts in a
// transaction: the longest list of each level, added up over the levels.
func (e *Embedded) MaxTxnOps() int { return int(e.etcd.Server.Cfg.MaxTxnOps) }

// An inProcess passes calls to the server until it is closed, and tracks pending calls.
type inProcess struct {
	kv      pb.KVServer
	lease   pb.LeaseServer
	watcher clientv3.Watcher
	timeout time.Duration // of a call without a deadline

	life context.Context // ends when calls are no longer accepted
	end  context.CancelFunc

	mu     sync.RWMutex // guards closed, and inside.Add against inside.Wait
	closed bool
	inside sync.WaitGroup // pending calls in the server
}

func serverCalls(s *etcdserver.EtcdServer) *inProcess {
	return newInProcess(v3rpc.NewQuotaKVServer(s), v3rpc.NewQuotaLeaseServer(s), v3rpc.NewWatchServer(s))
}

func newInProcess(kv pb.KVServer, lease pb.LeaseServer, watch pb.WatchServer) *inProcess {
	p := &inProcess{kv: kv, lease: lease, timeout: defaultCallTimeout}
	p.life, p.end = context.WithCancel(context.Background())
	// The watcher needs a client for its logger.
	p.watcher = clientv3.NewWatchFromWatchClient(
		adapter.WatchServerToWatchClient(&gatedWatch{WatchServer: watch, p: p}), clientv3.NewCtxClient(p.life))
	return p
}

func (p *inProcess) calls() Calls {
	return Calls{KV: localKV{p}, Lease: localLease{p}, Watch: p.watcher}
}

// enter registers a call of the server. The caller must call leave if it returns no error.
func (p *inProcess) enter() error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return rpctypes.ErrGRPCStopped
	}
	p.inside.Add(1)
	return nil
}

func (p *inProcess) leave() { p.inside.Done() }

// close ends all calls and streams and waits until the server has finished them: a read of a
// closed store would crash the process.
func (p *inProcess) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.end()
	_ = p.watcher.Close() // its error is always nil
	left := make(chan struct{})
	go func() {
		p.inside.Wait()
		close(left)
	}()
	select {
	case <-left:
	case <-time.After(drainTimeout):
	}
}

// call makes one call of the server. The server may continue it after call has returned.
func call[Req, Resp any](ctx context.Context, p *inProcess, method string, req Req,
	serve func(context.Context, Req) (Resp, error)) (Resp, error) {
	var none Resp
	if err := ctx.Err(); err != nil {
		return none, &contextError{err}
	}
	if err := p.enter(); err != nil {
		return none, err
	}
	attempt, cancel := ctx, context.CancelFunc(nil)
	if _, ok := ctx.Deadline(); ok {
		attempt, cancel = context.WithCancel(ctx)
	} else {
		attempt, cancel = context.WithTimeout(ctx, p.timeout)
	}
	defer cancel() // ends the server's work too
	type answer struct {
		resp Resp
		err  error
	}
	done := make(chan answer, 1)
	go func() {
		defer p.leave()
		resp, err := serve(attempt, req)
		done <- answer{resp, err}
	}()
	select {
	case a := <-done:
		if a.err != nil {
			return none, p.explain(ctx, attempt, method, a.err)
		}
		return a.resp, nil
	case <-attempt.Done():
		return none, p.explain(ctx, attempt, method, attempt.Err())
	case <-p.life.Done():
		return none, rpctypes.ErrGRPCStopped
	}
}

// explain converts an error of the server to the error that a gRPC client would receive.
// caller is the caller's context, attempt the one passed to the server.
func (p *inProcess) explain(caller, attempt context.Context, method string, err error) error {
	st, ok := status.FromError(err)
	if !ok {
		st = status.FromContextError(err) // as a gRPC server does
	}
	ended := st.Code() == codes.Canceled || st.Code() == codes.DeadlineExceeded
	switch { // etcd also calls a context that ended Unavailable
	case !ended && st.Code() != codes.Unavailable:
	case caller.Err() != nil:
		return &contextError{caller.Err()}
	case p.life.Err() != nil:
		return rpctypes.ErrGRPCStopped
	case ended || attempt.Err() != nil:
		return &unansweredError{method: method, err: st.Err()} // as boundCalls does
	}
	return st.Err()
}

// A contextError is the error of an ended context for errors.Is and for gRPC.
type contextError struct{ err error }

func (e *contextError) Error() string { return e.err.Error() }
func (e *contextError) Unwrap() error { return e.err }

// GRPCStatus makes status.Code return Canceled or DeadlineExceeded.
func (e *contextError) GRPCStatus() *status.Status { return status.FromContextError(e.err) }

// localKV is the KV service of the embedded server.
type localKV struct{ p *inProcess }

// Range implements KVClient.
func (l localKV) Range(ctx context.Context, r *pb.RangeRequest, _ ...grpc.CallOption) (*pb.RangeResponse, error) {
	return call(ctx, l.p, pb.KV_Range_FullMethodName, r, l.p.kv.Range)
}

// Put implements KVClient.
func (l localKV) Put(ctx context.Context, r *pb.PutRequest, _ ...grpc.CallOption) (*pb.PutResponse, error) {
	return call(ctx, l.p, pb.KV_Put_FullMethodName, r, l.p.kv.Put)
}

// DeleteRange implements KVClient.
func (l localKV) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest, _ ...grpc.CallOption,
) (*pb.DeleteRangeResponse, error) {
	return call(ctx, l.p, pb.KV_DeleteRange_FullMethodName, r, l.p.kv.DeleteRange)
}

// Txn implements KVClient.
func (l localKV) Txn(ctx context.Context, r *pb.TxnRequest, _ ...grpc.CallOption) (*pb.TxnResponse, error) {
	return call(ctx, l.p, pb.KV_Txn_FullMethodName, r, l.p.kv.Txn)
}

// Compact implements KVClient.
func (l localKV) Compact(ctx context.Context, r *pb.CompactionRequest, _ ...grpc.CallOption,
) (*pb.CompactionResponse, error) {
	return call(ctx, l.p, pb.KV_Compact_FullMethodName, r, l.p.kv.Compact)
}

// RangeStream implements KVClient.
func (l localKV) RangeStream(context.Context, *pb.RangeRequest, ...grpc.CallOption) (pb.KV_RangeStreamClient, error) {
	return nil, status.Error(codes.Unimplemented, "RangeStream is not served in process: use Range with a limit")
}

// localLease is the Lease service of the embedded server.
type localLease struct{ p *inProcess }

// LeaseGrant implements LeaseClient.
func (l localLease) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest, _ ...grpc.CallOption,
) (*pb.LeaseGrantResponse, error) {
	// The server writes the id that it chooses into the request.
	mine := &pb.LeaseGrantRequest{ID: r.GetID(), TTL: r.GetTTL()}
	return call(ctx, l.p, pb.Lease_LeaseGrant_FullMethodName, mine, l.p.lease.LeaseGrant)
}

// LeaseRevoke implements LeaseClient.
func (l localLease) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest, _ ...grpc.CallOption,
) (*pb.LeaseRevokeResponse, error) {
	return call(ctx, l.p, pb.Lease_LeaseRevoke_FullMethodName, r, l.p.lease.LeaseRevoke)
}

// LeaseTimeToLive implements LeaseClient.
func (l localLease) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest, _ ...grpc.CallOption,
) (*pb.LeaseTimeToLiveResponse, error) {
	return call(ctx, l.p, pb.Lease_LeaseTimeToLive_FullMethodName, r, l.p.lease.LeaseTimeToLive)
}

// LeaseLeases implements LeaseClient.
func (l localLease) LeaseLeases(ctx context.Context, r *pb.LeaseLeasesRequest, _ ...grpc.CallOption,
) (*pb.LeaseLeasesResponse, error) {
	return call(ctx, l.p, pb.Lease_LeaseLeases_FullMethodName, r, l.p.lease.LeaseLeases)
}

// LeaseKeepAlive implements LeaseClient.
func (l localLease) LeaseKeepAlive(ctx context.Context, _ ...grpc.CallOption) (pb.Lease_LeaseKeepAliveClient, error) {
	return openKeepAlive(ctx, l.p)
}

// gatedWatch counts watch streams as pending calls.
type gatedWatch struct {
	pb.WatchServer
	p *inProcess
}

// Watch implements WatchServer.
func (w *gatedWatch) Watch(stream pb.Watch_WatchServer) error {
	if err := w.p.enter(); err != nil {
		return err
	}
	defer w.p.leave()
	return w.WatchServer.Watch(stream)
}
