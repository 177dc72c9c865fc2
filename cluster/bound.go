package cluster

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// boundCalls gives every attempt of a call without a deadline one of timeout.
//
// It also keeps etcd's client from repeating writes. That client takes a
// DeadlineExceeded or Canceled from below, while the caller's context lives,
// for a reason to try again up to a hundred times, transactions included,
// although the first may have been applied. Such an answer comes from our
// timeout, and from a server whose clock runs a little ahead of the caller's.
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

// An unansweredError is a call that ended without an answer from etcd. It is a
// context.DeadlineExceeded, but to gRPC it has a code that nobody repeats.
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
