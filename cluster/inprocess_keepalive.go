package cluster

import (
	"context"
	"io"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// keepAliveBuffer is how many renewals may wait on their way each: enough that
// a pipelining user and the server do not wake each other for every one.
const keepAliveBuffer = 256

// A localKeepAlive is a keep-alive stream in this process, as its user sees
// it. It keeps to gRPC's rules: one goroutine may send while another receives,
// and a stream that is no longer needed must have its context cancelled.
type localKeepAlive struct {
	ctx      context.Context // ends with the user's, with the stream, and on close
	requests chan int64
	replies  chan *pb.LeaseKeepAliveResponse

	halfClose sync.Once
	sent      chan struct{} // closed when the user has sent all

	ended chan struct{} // closed when err is set
	err   error         // why the stream ended: io.EOF after CloseSend
}

func openKeepAlive(ctx context.Context, p *inProcess) (*localKeepAlive, error) {
	if err := ctx.Err(); err != nil {
		return nil, &contextError{err}
	}
	if err := p.enter(); err != nil {
		return nil, err
	}
	inner, cancel := context.WithCancel(ctx)
	detach := context.AfterFunc(p.life, cancel)
	s := &localKeepAlive{
		ctx:      inner,
		requests: make(chan int64, keepAliveBuffer),
		replies:  make(chan *pb.LeaseKeepAliveResponse, keepAliveBuffer),
		sent:     make(chan struct{}),
		ended:    make(chan struct{}),
	}
	go func() {
		defer p.leave()
		defer detach()
		defer cancel()
		s.err = io.EOF
		if err := p.lease.LeaseKeepAlive(&servedKeepAlive{s: s}); err != nil {
			s.err = p.explain(ctx, inner, pb.Lease_LeaseKeepAlive_FullMethodName, err)
		}
		close(s.ended)
	}()
	return s, nil
}

// Send asks for one renewal. It waits while many are on their way. io.EOF
// means that the stream has ended and that Recv says why.
func (s *localKeepAlive) Send(r *pb.LeaseKeepAliveRequest) error {
	select {
	case <-s.sent:
		return status.Error(codes.Internal, "keep-alive stream: Send after CloseSend")
	default:
	}
	select {
	case <-s.ended:
		return io.EOF
	case s.requests <- r.GetID():
		return nil
	}
}

// Recv returns the next reply; they come in the order of the requests.
func (s *localKeepAlive) Recv() (*pb.LeaseKeepAliveResponse, error) {
	select {
	case r := <-s.replies:
		return r, nil
	case <-s.ended:
	}
	select {
	case r := <-s.replies: // sent before the end
		return r, nil
	default:
		return nil, s.err
	}
}

// CloseSend tells the server that no more requests will come.
func (s *localKeepAlive) CloseSend() error {
	s.halfClose.Do(func() { close(s.sent) })
	return nil
}

// Context implements grpc.ClientStream.
func (s *localKeepAlive) Context() context.Context { return s.ctx }

// Header implements grpc.ClientStream. There is none.
func (s *localKeepAlive) Header() (metadata.MD, error) { return nil, nil }

// Trailer implements grpc.ClientStream. There is none.
func (s *localKeepAlive) Trailer() metadata.MD { return nil }

// SendMsg implements grpc.ClientStream.
func (s *localKeepAlive) SendMsg(m any) error {
	r, ok := m.(*pb.LeaseKeepAliveRequest)
	if !ok {
		return status.Errorf(codes.Internal, "keep-alive stream: cannot send a %T", m)
	}
	return s.Send(r)
}

// RecvMsg implements grpc.ClientStream.
func (s *localKeepAlive) RecvMsg(any) error {
	return status.Error(codes.Unimplemented, "keep-alive stream: use Recv")
}

// servedKeepAlive is the same stream as the server sees it.
type servedKeepAlive struct {
	grpc.ServerStream // nil: the server calls the methods below alone
	s                 *localKeepAlive
}

// Recv implements Lease_LeaseKeepAliveServer.
func (v *servedKeepAlive) Recv() (*pb.LeaseKeepAliveRequest, error) {
	select {
	case id := <-v.s.requests:
		return &pb.LeaseKeepAliveRequest{ID: id}, nil
	case <-v.s.ctx.Done():
		return nil, v.s.ctx.Err()
	case <-v.s.sent:
	}
	select {
	case id := <-v.s.requests: // sent before the last word
		return &pb.LeaseKeepAliveRequest{ID: id}, nil
	default:
		return nil, io.EOF
	}
}

// Send implements Lease_LeaseKeepAliveServer.
func (v *servedKeepAlive) Send(r *pb.LeaseKeepAliveResponse) error {
	select {
	case v.s.replies <- r:
		return nil
	case <-v.s.ctx.Done():
		return v.s.ctx.Err()
	}
}

// Context implements Lease_LeaseKeepAliveServer.
func (v *servedKeepAlive) Context() context.Context { return v.s.ctx }
