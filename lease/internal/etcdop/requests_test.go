package etcdop

import (
	"testing"

	"github.com/stretchr/testify/assert"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

func TestNest_KeepsEachListWithinTheMaximum(t *testing.T) {
	for _, n := range []int{0, 1, maxOpsPerTxn, maxOpsPerTxn + 1, 1000} {
		ops := make([]*pb.RequestOp, n)
		for i := range ops {
			ops[i] = Read(Key("k"))
		}
		nested := Nest(ops)
		assert.LessOrEqual(t, len(nested), maxOpsPerTxn)
		var flat []*pb.RequestOp
		for _, op := range nested {
			if txn := op.GetRequestTxn(); txn != nil {
				assert.LessOrEqual(t, len(txn.Success), maxOpsPerTxn)
				flat = append(flat, txn.Success...)
			} else {
				flat = append(flat, op)
			}
		}
		assert.Equal(t, len(ops), len(flat))
		for i := range ops {
			assert.Same(t, ops[i], flat[i])
		}
	}
}

func TestPrefix_CoversTheKeysThatBeginWithIt(t *testing.T) {
	r := Prefix("/p/users/u/")
	assert.Equal(t, "/p/users/u/", string(r.From))
	assert.Equal(t, "/p/users/u0", string(r.End))
}
