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

// drainTimeout bounds the wait of Close for calls that etcd is still busy
// with. Only a disk that hangs keeps one so long.
const drainTimeout = 5 * time.Second

// Calls are the services of an embedded server without the network and without
// encoding. They take the same way as calls through gRPC from etcd's request
// checks and quota on, and their errors mean the same to status.Code and
// rpctypes.Error; those of a context that ended are also the context's own to
// errors.Is.
//
// As through a client of [Connect], a call without a deadline gets one of 3 s,
// a call ends at its deadline or when its context is cancelled, whatever the
// server is doing, and the outcome of a write that ended so is unknown. Other
// than that client, Calls never repeat anything.
//
// Requests and replies are shared with the server. A request must not be
// changed or used again for another call once it was given to KV or Lease, not
// even after the call has returned: the server may still be reading it. What a
// reply or a watch event points to must not be changed either: key-values of
// events are shared by all watchers.
//
// After [Embedded.Close], and after the server died, calls and streams fail
// with rpctypes.ErrStopped and watch channels are closed. KV has no
// RangeStream.
type Calls struct {
	KV    pb.KVClient
	Lease pb.LeaseClient
	Watch clientv3.Watcher // closed by Embedded.Close, not by its users
}

// InProcess returns the server's services. Every call returns the same.
func (e *Embedded) InProcess() Calls { return e.local.calls() }

// MaxTxnOps is the number of operations that the server accepts in a
// transaction: the longest list of each level, added up over the levels.
func (e *Embedded) MaxTxnOps() int { return int(e.etcd.Server.Cfg.MaxTxnOps) }

// inProcess lets calls through to the server until it is closed, and knows
// when the last of them has left.
type inProcess struct {
	kv      pb.KVServer
	lease   pb.LeaseServer
	watcher clientv3.Watcher
	timeout time.Duration // of a call without a deadline

	life context.Context // ends when calls are no longer let in
	end  context.CancelFunc

	mu     sync.RWMutex // guards closed, and inside.Add against inside.Wait
	closed bool
	inside sync.WaitGroup // calls that the server is busy with
}

func serverCalls(s *etcdserver.EtcdServer) *inProcess {
	return newInProcess(v3rpc.NewQuotaKVServer(s), v3rpc.NewQuotaLeaseServer(s), v3rpc.NewWatchServer(s))
}

func newInProcess(kv pb.KVServer, lease pb.LeaseServer, watch pb.WatchServer) *inProcess {
	p := &inProcess{kv: kv, lease: lease, timeout: defaultCallTimeout}
	p.life, p.end = context.WithCancel(context.Background())
	// The watcher wants a client to ask for its logger.
	p.watcher = clientv3.NewWatchFromWatchClient(
		adapter.WatchServerToWatchClient(&gatedWatch{WatchServer: watch, p: p}), clientv3.NewCtxClient(p.life))
	return p
}

func (p *inProcess) calls() Calls {
	return Calls{KV: localKV{p}, Lease: localLease{p}, Watch: p.watcher}
}

// enter asks for leave to call the server. Whoever gets it must leave.
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

// close ends all calls and streams, answers their callers, and waits until the
// server has left them too: a read of a store that was closed under it would
// end the process.
func (p *inProcess) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.end()
	_ = p.watcher.Close() // it has nothing to tell
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

// call makes one call of the server. The server may go on with it after call
// has returned.
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
	defer cancel() // the server gives up, too
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

// explain turns an error of the server into what a gRPC client would have
// seen. caller is whose context it is, attempt what the server got.
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

// A contextError is a context that ended, to errors.Is and to gRPC.
type contextError struct{ err error }

func (e *contextError) Error() string { return e.err.Error() }
func (e *contextError) Unwrap() error { return e.err }

// GRPCStatus makes status.Code return Canceled or DeadlineExceeded.
func (e *contextError) GRPCStatus() *status.Status { return status.FromContextError(e.err) }

// localKV is the KV service in this process.
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

// localLease is the Lease service in this process.
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

// gatedWatch counts watch streams among the calls inside.
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
