package etcdsim

import (
	"cmp"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// txn executes a transaction. It evaluates all conditions, including those of nested
// transactions, before it writes anything.
func (e *Etcd) txn(t *pb.TxnRequest) (*pb.TxnResponse, error) {
	path := e.decide(t)
	if err := e.checkLeases(path); err != nil {
		return nil, err
	}
	w := &write{Etcd: e}
	resp, err := w.run(path)
	if err != nil {
		return nil, err
	}
	w.commit()
	resp.Header = e.header()
	return resp, nil
}

// branch has the operations of a transaction after its conditions were evaluated.
type branch struct {
	succeeded bool
	ops       []*pb.RequestOp
	nested    map[int]*branch // by index in ops
}

func (e *Etcd) decide(t *pb.TxnRequest) *branch {
	b := &branch{succeeded: true, ops: t.Success, nested: map[int]*branch{}}
	for _, c := range t.Compare {
		if !e.holds(c) {
			b.succeeded, b.ops = false, t.Failure
			break
		}
	}
	for i, op := range b.ops {
		if n := op.GetRequestTxn(); n != nil {
			b.nested[i] = e.decide(n)
		}
	}
	return b
}

// holds evaluates one condition. The service uses only two kinds.
func (e *Etcd) holds(c *pb.Compare) bool {
	if c.Target != pb.Compare_MOD {
		panic("etcdsim: only mod revisions are compared: " + c.String())
	}
	var mods []int64
	for _, kv := range e.match(c.Key, c.RangeEnd) {
		mods = append(mods, kv.ModRevision)
	}
	if len(mods) == 0 {
		if len(c.RangeEnd) > 0 {
			return true
		}
		mods = []int64{0}
	}
	for _, mod := range mods {
		order := cmp.Compare(mod, c.GetModRevision())
		if c.Result == pb.Compare_EQUAL && order != 0 || c.Result == pb.Compare_LESS && order >= 0 {
			return false
		}
	}
	return true
}

// checkLeases rejects a transaction with a put under a lease that does not exist.
func (e *Etcd) checkLeases(b *branch) error {
	for i, op := range b.ops {
		if p := op.GetRequestPut(); p != nil && p.Lease != 0 && e.leases[p.Lease] == nil {
			return rpctypes.ErrGRPCLeaseNotFound
		}
		if n := b.nested[i]; n != nil {
			if err := e.checkLeases(n); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *write) run(b *branch) (*pb.TxnResponse, error) {
	out := &pb.TxnResponse{Succeeded: b.succeeded}
	for i, op := range b.ops {
		answer := &pb.ResponseOp{}
		switch {
		case op.GetRequestPut() != nil:
			w.put(op.GetRequestPut())
			answer.Response = &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{}}
		case op.GetRequestDeleteRange() != nil:
			d := op.GetRequestDeleteRange()
			deleted := w.delete(d.Key, d.RangeEnd)
			resp := &pb.DeleteRangeResponse{Deleted: int64(len(deleted))}
			if d.PrevKv {
				resp.PrevKvs = deleted
			}
			answer.Response = &pb.ResponseOp_ResponseDeleteRange{ResponseDeleteRange: resp}
		case op.GetRequestRange() != nil:
			resp, err := w.read(op.GetRequestRange())
			if err != nil {
				return nil, err
			}
			answer.Response = &pb.ResponseOp_ResponseRange{ResponseRange: resp}
		default:
			resp, err := w.run(b.nested[i])
			if err != nil {
				return nil, err
			}
			answer.Response = &pb.ResponseOp_ResponseTxn{ResponseTxn: resp}
		}
		out.Responses = append(out.Responses, answer)
	}
	return out, nil
}
