package commit

import (
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// budget is the remaining capacity of a batch.
type budget struct {
	ops, bytes   int
	writes       int
	depth        int // the longest list of operations of any write
	users        map[string]bool
	full         bool
	separatePuts bool // etcd is full: deletes must not fail together with puts
	puts         bool // whether the writes put schema.Keys, if separatePuts
}

// tryAdd reserves capacity for w. It reports false if w does not fit, if the batch
// has a write of the same user, or if w has to be separate.
//
// etcd counts the longest list of a transaction plus the longest of the transactions
// nested in it. One more operation is reserved for the tombstone.
func (b *budget) tryAdd(w *Write) bool {
	depth := max(b.depth, maxOpsListLen(w.Txn))
	size := requestSize(w)
	if b.writes > 0 && (b.writes == MaxWrites || b.writes+2+depth > b.ops || size > b.bytes) {
		b.full = true
		return false
	}
	puts := hasPuts(w.Txn)
	if b.users[w.User] || b.separatePuts && b.writes > 0 && puts != b.puts {
		return false
	}
	b.puts = puts
	b.users[w.User] = true
	b.writes++
	b.depth, b.bytes = depth, b.bytes-size
	return true
}

// requestSize estimates how many bytes w adds to a request.
func requestSize(w *Write) int {
	size := 512 + 64*len(w.Tombstones)
	for _, op := range w.Txn.Success {
		size += len(op.GetRequestPut().GetValue())
	}
	return size
}

func hasPuts(t *pb.TxnRequest) bool {
	return slices.ContainsFunc(t.Success, func(op *pb.RequestOp) bool { return op.GetRequestPut() != nil })
}

func maxOpsListLen(t *pb.TxnRequest) int {
	return max(len(t.Compare), len(t.Success), len(t.Failure))
}
