package lease

import (
	"cmp"
	"slices"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Etcd is how a [Limiter] reaches etcd. It speaks etcd's own requests, because
// building them through the client's options costs more than sending them.
type Etcd struct {
	KV    etcdserverpb.KVClient
	Lease etcdserverpb.LeaseClient
	Watch clientv3.Watcher
	// MaxTxnOps is etcd's --max-txn-ops, the largest number of operations in a
	// transaction; 128, etcd's default, if 0.
	MaxTxnOps int
}

// Over reaches etcd through c.
func Over(c *clientv3.Client) Etcd {
	return Etcd{KV: clientv3.RetryKVClient(c), Lease: clientv3.RetryLeaseClient(c), Watch: c.Watcher}
}

const defaultTxnOps = 128

func (e Etcd) maxTxnOps() int { return cmp.Or(e.MaxTxnOps, defaultTxnOps) }

// The operations and conditions of our transactions, as etcd takes them.

func putOp(key string, value []byte, lease int64) *etcdserverpb.RequestOp {
	return &etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestPut{
		RequestPut: &etcdserverpb.PutRequest{Key: []byte(key), Value: value, Lease: lease},
	}}
}

func deleteOp(r keyRange) *etcdserverpb.RequestOp {
	return &etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestDeleteRange{
		RequestDeleteRange: &etcdserverpb.DeleteRangeRequest{Key: r.from, RangeEnd: r.end},
	}}
}

func readOp(r keyRange) *etcdserverpb.RequestOp {
	return &etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestRange{RequestRange: r.read()}}
}

func countOp(r keyRange) *etcdserverpb.RequestOp {
	return &etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestRange{
		RequestRange: &etcdserverpb.RangeRequest{Key: r.from, RangeEnd: r.end, CountOnly: true},
	}}
}

func txnOp(t *etcdserverpb.TxnRequest) *etcdserverpb.RequestOp {
	return &etcdserverpb.RequestOp{Request: &etcdserverpb.RequestOp_RequestTxn{RequestTxn: t}}
}

// opsALevel is how many operations one list of a nested transaction gets. etcd
// allows the longest list of each level together to be its --max-txn-ops.
const opsALevel = 100

// nested is a list of operations of any length as one that etcd takes.
func nested(ops []*etcdserverpb.RequestOp) []*etcdserverpb.RequestOp {
	if len(ops) <= opsALevel {
		return ops
	}
	var out []*etcdserverpb.RequestOp
	for part := range slices.Chunk(ops, opsALevel) {
		out = append(out, txnOp(&etcdserverpb.TxnRequest{Success: part}))
	}
	return out
}

// notPutSince compares that no key in r was put after revision rev. On an empty
// range it holds; deletions do not matter to it.
func notPutSince(r keyRange, rev int64) *etcdserverpb.Compare {
	return &etcdserverpb.Compare{
		Result: etcdserverpb.Compare_LESS, Target: etcdserverpb.Compare_MOD,
		Key: r.from, RangeEnd: r.end,
		TargetUnion: &etcdserverpb.Compare_ModRevision{ModRevision: rev + 1},
	}
}

// writtenAt compares that key was last put at revision mod, which no other put
// of it can share.
func writtenAt(key string, mod int64) *etcdserverpb.Compare {
	return &etcdserverpb.Compare{
		Result: etcdserverpb.Compare_EQUAL, Target: etcdserverpb.Compare_MOD,
		Key:         []byte(key),
		TargetUnion: &etcdserverpb.Compare_ModRevision{ModRevision: mod},
	}
}

// keyRange is one key, or with an end all keys from from to before end.
type keyRange struct{ from, end []byte }

func oneKey(key string) keyRange { return keyRange{from: []byte(key)} }

// below is every key that begins with prefix.
func below(prefix string) keyRange {
	return keyRange{[]byte(prefix), []byte(clientv3.GetPrefixRangeEnd(prefix))}
}

// read is a linearizable read of r.
func (r keyRange) read() *etcdserverpb.RangeRequest {
	return &etcdserverpb.RangeRequest{Key: r.from, RangeEnd: r.end}
}
