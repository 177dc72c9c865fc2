package stats

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

// KV returns a client that counts the calls of kv and creates their spans.
func (c *Counters) KV(kv pb.KVClient) pb.KVClient { return countedKV{kv, c} }

// Lease is like KV for the lease client. Package keepalive reports renewals itself.
func (c *Counters) Lease(lease pb.LeaseClient) pb.LeaseClient { return countedLease{lease, c} }

type countedKV struct {
	pb.KVClient
	counters *Counters
}

func (k countedKV) Range(ctx context.Context, in *pb.RangeRequest, o ...grpc.CallOption) (*pb.RangeResponse, error) {
	return count(ctx, k.counters, callRead, k.KVClient.Range, in, o)
}

func (k countedKV) Txn(ctx context.Context, in *pb.TxnRequest, o ...grpc.CallOption) (*pb.TxnResponse, error) {
	call := callWrite
	if isReadOnly(in) {
		call = callRead
	}
	return count(ctx, k.counters, call, k.KVClient.Txn, in, o)
}

// isReadOnly reports whether t is a transaction of etcdop.ReadAll. All of its operations
// are alike, so the first one decides.
func isReadOnly(t *pb.TxnRequest) bool {
	return len(t.Compare) == 0 && len(t.Success) > 0 && t.Success[0].GetRequestRange() != nil
}

type countedLease struct {
	pb.LeaseClient
	counters *Counters
}

func (l countedLease) LeaseGrant(
	ctx context.Context, in *pb.LeaseGrantRequest, o ...grpc.CallOption,
) (*pb.LeaseGrantResponse, error) {
	return count(ctx, l.counters, callGrant, l.LeaseClient.LeaseGrant, in, o)
}

func (l countedLease) LeaseRevoke(
	ctx context.Context, in *pb.LeaseRevokeRequest, o ...grpc.CallOption,
) (*pb.LeaseRevokeResponse, error) {
	return count(ctx, l.counters, callRevoke, l.LeaseClient.LeaseRevoke, in, o)
}

func (l countedLease) LeaseTimeToLive(
	ctx context.Context, in *pb.LeaseTimeToLiveRequest, o ...grpc.CallOption,
) (*pb.LeaseTimeToLiveResponse, error) {
	return count(ctx, l.counters, callTimeToLive, l.LeaseClient.LeaseTimeToLive, in, o)
}

// count sends a call to etcd, counts it, and creates its span. If ctx has ended, it
// returns the cause and sends nothing.
func count[Request any, Response interface{ GetHeader() *pb.ResponseHeader }](
	ctx context.Context, c *Counters, call int,
	send func(context.Context, Request, ...grpc.CallOption) (Response, error), in Request, o []grpc.CallOption,
) (out Response, err error) {
	if ctx.Err() != nil {
		return out, context.Cause(ctx)
	}
	began, span := time.Now(), c.startSpan(ctx, call)
	out, err = send(ctx, in, o...)
	c.called(call, began, out.GetHeader().GetRaftTerm(), err)
	endSpan(span, err)
	return out, err
}

// called records a call to etcd that began at began, and the raft term of its answer.
func (c *Counters) called(call int, began time.Time, term uint64, err error) {
	c.calls[call].observe(int64(time.Since(began)))
	if err != nil {
		c.callsFailed[call].Add(1)
		return
	}
	if last := c.term.Load(); term > last && c.term.CompareAndSwap(last, term) && last != 0 {
		c.leaderChanges.Add(1)
	}
}

func (c *Counters) startSpan(ctx context.Context, call int) trace.Span {
	if c.tracer == nil || !trace.SpanFromContext(ctx).IsRecording() {
		return nil
	}
	_, span := c.tracer.Start(ctx, "etcd "+etcdCalls[call], trace.WithSpanKind(trace.SpanKindClient))
	return span
}

// endSpan ends the span of a call. It omits the text of err, which may contain keys.
func endSpan(span trace.Span, err error) {
	if span == nil {
		return
	}
	if err != nil {
		span.SetStatus(codes.Error, status.Code(err).String())
	}
	span.End()
}
