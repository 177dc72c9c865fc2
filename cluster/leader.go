package cluster

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// A LeaderLease is a LeaseClient that sends renewals and queries of remaining TTLs directly
// to etcd's leader while Run runs. A follower would forward each of them by a request of its
// own, one at a time per stream: a tenth of the leader's rate on one machine, and one per
// round trip between regions.
//
// All other calls use the ordinary client, and so do these two while the leader is unknown
// or cannot be reached. That is never an error.
//
// A keep-alive stream ends with rpctypes.ErrLeaderChanged when there is a better route than
// its own; the caller then opens another. Requests without an answer may have been applied.
//
// A LeaderLease is safe for concurrent use.
type LeaderLease struct {
	pb.LeaseClient // the ordinary client
	etcd           *clientv3.Client
	cfg            ClientConfig
	problems       chan struct{} // receives after a call to the leader failed

	mu           sync.Mutex // guards the fields below, which only Run changes
	currentRoute *route     // fallback while there is no better route
	fallback     *route     // uses the ordinary client
	leader       uint64
	address      string

	search search
}

// A route is the client that renewals use. Its streams end when it is closed.
type route struct {
	client *clientv3.Client // nil for the ordinary client
	lease  pb.LeaseClient
	ctx    context.Context // ends when the route is closed
	close  context.CancelFunc
	used   atomic.Bool // a stream has used it
}

// NewLeaderLease returns the LeaderLease of c's cluster. cfg is the configuration of c, with
// which the leader is dialled too.
func NewLeaderLease(c *clientv3.Client, cfg ClientConfig) *LeaderLease {
	l := &LeaderLease{
		LeaseClient: clientv3.RetryLeaseClient(c),
		etcd:        c,
		cfg:         cfg.withDefaults(),
		problems:    make(chan struct{}, 1),
		search:      search{warnAfter: unreachableWarnAfter},
	}
	l.fallback = newRoute(l.LeaseClient, nil)
	l.currentRoute = l.fallback
	return l
}

func newRoute(lease pb.LeaseClient, c *clientv3.Client) *route {
	r := &route{lease: lease, client: c}
	r.ctx, r.close = context.WithCancel(context.Background())
	return r
}

// Leader returns the id of the last known leader, or 0, and the address that
// renewals use. The address is empty while the leader cannot be reached and renewals use
// another member.
func (l *LeaderLease) Leader() (id uint64, address string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leader, l.address
}

// LeaseTimeToLive implements LeaseClient.
func (l *LeaderLease) LeaseTimeToLive(ctx context.Context, in *pb.LeaseTimeToLiveRequest, opts ...grpc.CallOption,
) (*pb.LeaseTimeToLiveResponse, error) {
	r, _ := l.routes()
	if r.client == nil {
		return r.lease.LeaseTimeToLive(ctx, in, opts...)
	}
	attempt, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(r.ctx, cancel)()
	resp, err := r.lease.LeaseTimeToLive(attempt, in, opts...)
	if err == nil || ctx.Err() != nil || (r.ctx.Err() == nil && status.Code(err) != codes.Unavailable) {
		return resp, err
	}
	l.notify()
	return l.LeaseClient.LeaseTimeToLive(ctx, in, opts...)
}

// LeaseKeepAlive implements LeaseClient.
func (l *LeaderLease) LeaseKeepAlive(ctx context.Context, opts ...grpc.CallOption,
) (pb.Lease_LeaseKeepAliveClient, error) {
	r, detour := l.routes()
	s, err := l.open(ctx, r, opts)
	if err == nil || ctx.Err() != nil || r.client == nil {
		return s, err
	}
	l.notify()
	return l.open(ctx, detour, opts)
}

// open opens a stream that ends when ctx ends or the route is closed.
func (l *LeaderLease) open(ctx context.Context, r *route, opts []grpc.CallOption,
) (pb.Lease_LeaseKeepAliveClient, error) {
	r.used.Store(true)
	inner, cancel := context.WithCancel(ctx)
	detach := context.AfterFunc(r.ctx, cancel)
	context.AfterFunc(inner, func() { detach() })
	s, err := r.lease.LeaseKeepAlive(inner, opts...)
	if err == nil {
		return &routedStream{Lease_LeaseKeepAliveClient: s, l: l, route: r, user: ctx, end: cancel}, nil
	}
	cancel()
	if r.ctx.Err() != nil && ctx.Err() == nil {
		return nil, rpctypes.ErrGRPCLeaderChanged
	}
	return nil, err
}

// A routedStream is a keep-alive stream on a route.
type routedStream struct {
	pb.Lease_LeaseKeepAliveClient
	l     *LeaderLease
	route *route
	user  context.Context // the caller's
	end   context.CancelFunc
}

// Recv returns ErrLeaderChanged when the route was closed, and notifies Run of other errors.
func (s *routedStream) Recv() (*pb.LeaseKeepAliveResponse, error) {
	resp, err := s.Lease_LeaseKeepAliveClient.Recv()
	if err == nil {
		return resp, nil
	}
	s.end()
	switch {
	case s.user.Err() != nil || errors.Is(err, io.EOF): // the caller ended the stream
		return nil, err
	case s.route.ctx.Err() != nil:
		return nil, rpctypes.ErrGRPCLeaderChanged
	}
	s.l.notify()
	return nil, err
}

// notify makes Run check the leader soon.
func (l *LeaderLease) notify() {
	select {
	case l.problems <- struct{}{}:
	default:
	}
}

func (l *LeaderLease) routes() (way, detour *route) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.currentRoute, l.fallback
}

// useLeader makes a client of the leader the current route, and closes the others.
func (l *LeaderLease) useLeader(c *clientv3.Client, leader uint64, address string) {
	l.mu.Lock()
	old := l.currentRoute
	l.currentRoute = newRoute(pb.NewLeaseClient(c.ActiveConnection()), c)
	l.leader, l.address = leader, address
	l.mu.Unlock()
	l.replaceFallback()
	l.closeRoute(old)
}

// useFallback makes the ordinary client the current route. Its streams stay open. address is
// empty unless it is the leader's.
func (l *LeaderLease) useFallback(leader uint64, address string) {
	l.mu.Lock()
	old := l.currentRoute
	l.currentRoute = l.fallback
	l.leader, l.address = leader, address
	l.mu.Unlock()
	l.closeRoute(old)
}

// closeRoute closes a route to the leader with its streams.
func (l *LeaderLease) closeRoute(r *route) {
	if r.client == nil {
		return
	}
	r.close()
	_ = r.client.Close() // it has no streams any more
}

// replaceFallback ends the streams of the fallback, so that they move to the current route.
func (l *LeaderLease) replaceFallback() {
	l.mu.Lock()
	old := l.fallback
	left := old.used.Load()
	if left {
		l.fallback = newRoute(l.LeaseClient, nil)
	}
	l.mu.Unlock()
	if left {
		old.close()
	}
}
