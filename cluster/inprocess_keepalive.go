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

// keepAliveBuffer is the number of requests, and of replies, that may be queued: enough that a
// pipelining caller and the server do not wake each other for each of them.
const keepAliveBuffer = 256

// A localKeepAlive is the caller's side of a keep-alive stream inside this process. It follows
// gRPC's rules: one goroutine may send while another receives, and the context of a stream
// that is no longer needed must be cancelled.
type localKeepAlive struct {
	ctx      context.Context // ends with the caller's, with the stream, and on close
	requests chan int64
	replies  chan *pb.LeaseKeepAliveResponse

	halfClose sync.Once
	sent      chan struct{} // closed by CloseSend

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

// Send requests one renewal. It blocks while the queue is full. io.EOF means that the stream
// has ended; Recv returns the reason.
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

// CloseSend ends the requests of the stream.
func (s *localKeepAlive) CloseSend() error {
	s.halfClose.Do(func() { close(s.sent) })
	return nil
}

// Context implements grpc.ClientStream.
func (s *localKeepAlive) Context() context.Context { return s.ctx }

// Header implements grpc.ClientStream. It returns no header.
func (s *localKeepAlive) Header() (metadata.MD, error) { return nil, nil }

// Trailer implements grpc.ClientStream. It returns no trailer.
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

// A servedKeepAlive is the server's side of the same stream.
type servedKeepAlive struct {
	grpc.ServerStream // nil: the server calls only the methods below
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
	case id := <-v.s.requests: // sent before CloseSend
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
