package etcdop

import (
	"context"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/retry"
)

// Range is a half-open range of keys. If end is nil, it is the single key from.
type Range struct{ From, End []byte }

// Key returns the range that contains only key.
func Key(key string) Range { return Range{From: []byte(key)} }

// Prefix returns the range of all keys that begin with prefix.
func Prefix(prefix string) Range {
	return Range{[]byte(prefix), []byte(clientv3.GetPrefixRangeEnd(prefix))}
}

// Request returns the request for a linearizable read of r.
func (r Range) Request() *pb.RangeRequest {
	return &pb.RangeRequest{Key: r.From, RangeEnd: r.End}
}

// Put returns the operation that puts key under a lease; 0 means no lease.
func Put(key string, value []byte, lease int64) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
		RequestPut: &pb.PutRequest{Key: []byte(key), Value: value, Lease: lease},
	}}
}

// Delete returns the operation that deletes all keys of r.
func Delete(r Range) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
		RequestDeleteRange: &pb.DeleteRangeRequest{Key: r.From, RangeEnd: r.End},
	}}
}

// Read returns the operation that reads all keys of r.
func Read(r Range) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: r.Request()}}
}

// Count returns the operation that counts the keys of r.
func Count(r Range) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestRange{
		RequestRange: &pb.RangeRequest{Key: r.From, RangeEnd: r.End, CountOnly: true},
	}}
}

// Txn returns the operation that runs t as a nested transaction.
func Txn(t *pb.TxnRequest) *pb.RequestOp {
	return &pb.RequestOp{Request: &pb.RequestOp_RequestTxn{RequestTxn: t}}
}

// maxOpsPerTxn is the maximum number of operations in one list of a transaction
// that Nest returns. etcd limits the sum of the longest lists of all levels to its
// --max-txn-ops.
const maxOpsPerTxn = 100

// Nest splits a list of operations into nested transactions, so that etcd accepts a
// list of any length.
func Nest(ops []*pb.RequestOp) []*pb.RequestOp {
	if len(ops) <= maxOpsPerTxn {
		return ops
	}
	var out []*pb.RequestOp
	for part := range slices.Chunk(ops, maxOpsPerTxn) {
		out = append(out, Txn(&pb.TxnRequest{Success: part}))
	}
	return out
}

// NoPutAfter returns the condition that no key in r was put after revision rev. It
// holds for an empty range. Deletions do not affect it.
func NoPutAfter(r Range, rev int64) *pb.Compare {
	return &pb.Compare{
		Result: pb.Compare_LESS, Target: pb.Compare_MOD,
		Key: r.From, RangeEnd: r.End,
		TargetUnion: &pb.Compare_ModRevision{ModRevision: rev + 1},
	}
}

// ModRevisionIs returns the condition that the last put of key has revision rev. No
// two puts of a key have the same revision. A missing key has revision 0.
func ModRevisionIs(key string, rev int64) *pb.Compare {
	return &pb.Compare{
		Result: pb.Compare_EQUAL, Target: pb.Compare_MOD,
		Key:         []byte(key),
		TargetUnion: &pb.Compare_ModRevision{ModRevision: rev},
	}
}

const (
	maxReads      = 3
	readRetryWait = 20 * time.Millisecond
)

// ReadKey reads one key; nil if it does not exist.
func ReadKey(ctx context.Context, kv pb.KVClient, key string) (*mvccpb.KeyValue, error) {
	resp, err := kv.Range(ctx, Key(key).Request())
	if err != nil || len(resp.Kvs) == 0 {
		return nil, err
	}
	return resp.Kvs[0], nil
}

// ReadAll reads several ranges at one revision, with up to three attempts: etcd's
// client does not retry transactions, even if they only read.
func ReadAll(ctx context.Context, kv pb.KVClient, ranges ...Range) (*pb.TxnResponse, error) {
	ops := make([]*pb.RequestOp, len(ranges))
	for i, r := range ranges {
		ops[i] = Read(r)
	}
	for n := 1; ; n++ {
		resp, err := kv.Txn(ctx, &pb.TxnRequest{Success: Nest(ops)})
		if err == nil || n == maxReads || retry.Sleep(ctx, readRetryWait) != nil {
			return resp, err
		}
	}
}
