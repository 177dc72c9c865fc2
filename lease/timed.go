package lease

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
)

// timed is e with a note, and perhaps a span, of how long each call took. Renewals
// are measured by those who send them.
func (e Etcd) timed(m *measures) Etcd {
	e.KV, e.Lease = timedKV{e.KV, m}, timedLease{e.Lease, m}
	return e
}

type timedKV struct {
	pb.KVClient
	m *measures
}

func (c timedKV) Range(ctx context.Context, in *pb.RangeRequest, o ...grpc.CallOption) (*pb.RangeResponse, error) {
	began, span := c.m.begin(ctx, callRead)
	out, err := c.KVClient.Range(ctx, in, o...)
	c.m.called(callRead, began, out.GetHeader().GetRaftTerm(), err)
	endCall(span, err)
	return out, err
}

func (c timedKV) Txn(ctx context.Context, in *pb.TxnRequest, o ...grpc.CallOption) (*pb.TxnResponse, error) {
	call := callWrite
	if onlyReads(in) {
		call = callRead
	}
	began, span := c.m.begin(ctx, call)
	out, err := c.KVClient.Txn(ctx, in, o...)
	c.m.called(call, began, out.GetHeader().GetRaftTerm(), err)
	endCall(span, err)
	return out, err
}

// onlyReads reports whether t is one of readAll's. It goes by the first operation:
// all of those are alike.
func onlyReads(t *pb.TxnRequest) bool {
	return len(t.Compare) == 0 && len(t.Success) > 0 && t.Success[0].GetRequestRange() != nil
}

type timedLease struct {
	pb.LeaseClient
	m *measures
}

func (c timedLease) LeaseGrant(
	ctx context.Context, in *pb.LeaseGrantRequest, o ...grpc.CallOption,
) (*pb.LeaseGrantResponse, error) {
	began, span := c.m.begin(ctx, callGrant)
	out, err := c.LeaseClient.LeaseGrant(ctx, in, o...)
	c.m.called(callGrant, began, out.GetHeader().GetRaftTerm(), err)
	endCall(span, err)
	return out, err
}

func (c timedLease) LeaseRevoke(
	ctx context.Context, in *pb.LeaseRevokeRequest, o ...grpc.CallOption,
) (*pb.LeaseRevokeResponse, error) {
	began, span := c.m.begin(ctx, callRevoke)
	out, err := c.LeaseClient.LeaseRevoke(ctx, in, o...)
	c.m.called(callRevoke, began, out.GetHeader().GetRaftTerm(), err)
	endCall(span, err)
	return out, err
}

func (c timedLease) LeaseTimeToLive(
	ctx context.Context, in *pb.LeaseTimeToLiveRequest, o ...grpc.CallOption,
) (*pb.LeaseTimeToLiveResponse, error) {
	began, span := c.m.begin(ctx, callTimeToLive)
	out, err := c.LeaseClient.LeaseTimeToLive(ctx, in, o...)
	c.m.called(callTimeToLive, began, out.GetHeader().GetRaftTerm(), err)
	endCall(span, err)
	return out, err
}
