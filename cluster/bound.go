package cluster

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// boundCalls returns an interceptor that sets a deadline on calls without one.
//
// It also prevents etcd's client from repeating writes. While the caller's context is valid,
// that client repeats a call up to a hundred times after DeadlineExceeded or Canceled,
// including transactions, although the first attempt may have been applied. Such an error
// comes from the deadline set here, and from a server whose clock is ahead of the caller's.
func boundCalls(timeout time.Duration) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any,
		cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		attempt, cancel := ctx, context.CancelFunc(func() {})
		if _, ok := ctx.Deadline(); !ok {
			attempt, cancel = context.WithTimeout(ctx, timeout)
		}
		defer cancel()
		err := invoke(attempt, method, req, reply, cc, opts...)
		code := status.Code(err)
		if ctx.Err() == nil && (code == codes.DeadlineExceeded || code == codes.Canceled) {
			return &unansweredError{method: method, err: err}
		}
		return err
	}
}

// An unansweredError means that a call ended without an answer from etcd. It is a
// context.DeadlineExceeded, but its gRPC code is one that etcd's client does not retry.
type unansweredError struct {
	method string
	err    error
}

func (e *unansweredError) Error() string {
	return fmt.Sprintf("etcd did not answer %s in time: %v", e.method, e.err)
}

// Is makes an unansweredError a context.DeadlineExceeded.
func (e *unansweredError) Is(target error) bool { return target == context.DeadlineExceeded }

// GRPCStatus makes status.Code return Aborted.
func (e *unansweredError) GRPCStatus() *status.Status { return status.New(codes.Aborted, e.Error()) }
