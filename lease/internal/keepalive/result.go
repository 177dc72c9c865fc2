package keepalive

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"streamcount/lease/internal/etcdop"
)

// RenewOnNewStream renews a lease that may have expired on a separate stream, because
// etcd blocks the stream until it has revoked an expired lease.
func RenewOnNewStream(ctx context.Context, c pb.LeaseClient, id int64) Result {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	sent := time.Now()
	s, err := c.LeaseKeepAlive(ctx)
	if err != nil {
		return Result{Err: fmt.Errorf("open a keep-alive stream: %w", err)}
	}
	err = s.Send(&pb.LeaseKeepAliveRequest{ID: id})
	if err != nil && !errors.Is(err, io.EOF) { // after EOF, Recv returns the error
		return Result{Err: fmt.Errorf("renew lease %x: %w", id, err)}
	}
	resp, err := s.Recv()
	if err != nil {
		return Result{Err: fmt.Errorf("renew lease %x: %w", id, err)}
	}
	return resultOf(resp, sent)
}

// Result is the result of a renewal: etcdop.ErrLeaseGone, another error if the outcome is
// unknown, or the TTL that began after sent.
type Result struct {
	Sent time.Time // before the request was sent; etcd starts the TTL later
	TTL  time.Duration
	Err  error
}

func resultOf(resp *pb.LeaseKeepAliveResponse, sent time.Time) Result {
	if resp.TTL <= 0 {
		return Result{Sent: sent, Err: etcdop.ErrLeaseGone}
	}
	return Result{Sent: sent, TTL: time.Duration(resp.TTL) * time.Second}
}
