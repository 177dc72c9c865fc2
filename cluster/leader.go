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

// A LeaderLease is a LeaseClient whose renewals and questions for remaining
// times go straight to etcd's leader while Run runs. A follower would forward
// each of them by a request of its own, one at a time for each stream: a tenth
// of the leader's rate on one machine, one for each round trip between regions.
//
// Everything else goes through the ordinary client, and so do these two while
// the leader is not known or cannot be reached. That is never an error.
//
// A keep-alive stream ends with rpctypes.ErrLeaderChanged when there is a
// better way than the one it took: its user opens another. What it had not
// answered may have been done.
//
// A LeaderLease is safe for concurrent use.
type LeaderLease struct {
	pb.LeaseClient // the ordinary client
	etcd           *clientv3.Client
	cfg            ClientConfig
	pokes          chan struct{} // holds one if a call had trouble with the leader

	mu      sync.Mutex // guards what follows, which Run alone changes
	way     *route     // the detour itself while there is no better one
	detour  *route     // by the ordinary client
	leader  uint64
	address string

	search search
}

// A route is a way that renewals take. When there is a better one it is left,
// and its streams end.
type route struct {
	client *clientv3.Client // nil if it is the ordinary one
	lease  pb.LeaseClient
	ctx    context.Context // ends when the route is left
	leave  context.CancelFunc
	used   atomic.Bool // a stream has taken it
}

// NewLeaderLease returns the leases of the cluster that c is a client of. cfg
// is what c was made from; it serves to reach the leader in the same way.
func NewLeaderLease(c *clientv3.Client, cfg ClientConfig) *LeaderLease {
	l := &LeaderLease{
		LeaseClient: clientv3.RetryLeaseClient(c),
		etcd:        c,
		cfg:         cfg.withDefaults(),
		pokes:       make(chan struct{}, 1),
		search:      search{patience: patience},
	}
	l.detour = newRoute(l.LeaseClient, nil)
	l.way = l.detour
	return l
}

func newRoute(lease pb.LeaseClient, c *clientv3.Client) *route {
	r := &route{lease: lease, client: c}
	r.ctx, r.leave = context.WithCancel(context.Background())
	return r
}

// Leader returns the id of the leader last heard of, 0 if there was none yet,
// and the address at which it is spoken to. The address is empty while it
// cannot be reached and renewals take another member.
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
	l.poke()
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
	l.poke()
	return l.open(ctx, detour, opts)
}

// open opens a stream that ends with ctx and when the route is left.
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

// routedStream is a keep-alive stream on a route.
type routedStream struct {
	pb.Lease_LeaseKeepAliveClient
	l     *LeaderLease
	route *route
	user  context.Context // as given by the user
	end   context.CancelFunc
}

// Recv tells when the route was left, and lets Run know of other ends.
func (s *routedStream) Recv() (*pb.LeaseKeepAliveResponse, error) {
	resp, err := s.Lease_LeaseKeepAliveClient.Recv()
	if err == nil {
		return resp, nil
	}
	s.end()
	switch {
	case s.user.Err() != nil || errors.Is(err, io.EOF): // it was the user
		return nil, err
	case s.route.ctx.Err() != nil:
		return nil, rpctypes.ErrGRPCLeaderChanged
	}
	s.l.poke()
	return nil, err
}

// poke makes Run look for the leader soon.
func (l *LeaderLease) poke() {
	select {
	case l.pokes <- struct{}{}:
	default:
	}
}

func (l *LeaderLease) routes() (way, detour *route) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.way, l.detour
}

// goDirect makes a client of the leader alone the way, and leaves the others.
func (l *LeaderLease) goDirect(c *clientv3.Client, leader uint64, address string) {
	l.mu.Lock()
	old := l.way
	l.way = newRoute(pb.NewLeaseClient(c.ActiveConnection()), c)
	l.leader, l.address = leader, address
	l.mu.Unlock()
	l.leaveDetour()
	l.abandon(old)
}

// goOrdinary makes the ordinary client the way. Its streams may stay. address
// is empty unless it leads to the leader.
func (l *LeaderLease) goOrdinary(leader uint64, address string) {
	l.mu.Lock()
	old := l.way
	l.way = l.detour
	l.leader, l.address = leader, address
	l.mu.Unlock()
	l.abandon(old)
}

// abandon ends what is left on a direct way.
func (l *LeaderLease) abandon(r *route) {
	if r.client == nil {
		return
	}
	r.leave()
	_ = r.client.Close() // nobody uses it any more
}

// leaveDetour brings the streams that took the detour to the way.
func (l *LeaderLease) leaveDetour() {
	l.mu.Lock()
	old := l.detour
	left := old.used.Load()
	if left {
		l.detour = newRoute(l.LeaseClient, nil)
	}
	l.mu.Unlock()
	if left {
		old.leave()
	}
}
