package lease

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// errLeaseGone means that a transaction named a lease that is no more. etcd
// checks leases before it writes, so nothing of the transaction was applied.
var errLeaseGone = errors.New("lease not found")

// errNotApplied means that etcd refused a write before it proposed it.
var errNotApplied = errors.New("refused")

// txn is one etcd transaction.
type txn struct {
	cmps        []clientv3.Cmp
	then, other []clientv3.Op
}

// commit runs t. Every write to a user's keys passes through here. An error
// that is neither errLeaseGone nor errNotApplied leaves the outcome unknown:
// the client does not retry transactions, and even "no space" may have been
// applied (etcd issue 16659).
func (l *Limiter) commit(ctx context.Context, t txn) (*clientv3.TxnResponse, error) {
	resp, err := l.kv.Txn(ctx).If(t.cmps...).Then(t.then...).Else(t.other...).Commit()
	if err == nil {
		return resp, nil
	}
	return nil, classify(err)
}

// classify tells refusals from unknown outcomes by etcd's own error texts: some
// of them travel under gRPC code Unknown (rpctypes.Error matches the text).
func classify(err error) error {
	var etcdErr rpctypes.EtcdError
	if !errors.As(rpctypes.Error(err), &etcdErr) {
		return err
	}
	switch {
	case errors.Is(etcdErr, rpctypes.ErrLeaseNotFound):
		return fmt.Errorf("%w: %w", errLeaseGone, err)
	case errors.Is(etcdErr, rpctypes.ErrTooManyRequests),
		errors.Is(etcdErr, rpctypes.ErrTooManyOps),
		errors.Is(etcdErr, rpctypes.ErrRequestTooLarge),
		errors.Is(etcdErr, rpctypes.ErrPermissionDenied),
		errors.Is(etcdErr, rpctypes.ErrInvalidAuthToken),
		errors.Is(etcdErr, rpctypes.ErrAuthOldRevision):
		return fmt.Errorf("%w: %w", errNotApplied, err)
	}
	return err
}

// isFull reports whether etcd takes no more puts until an operator makes room.
// Deletes, revokes and renewals go on.
func isFull(err error) bool { return errors.Is(err, rpctypes.ErrNoSpace) }

// slotChain is the admission rule as one transaction: if slot 0 is free put it,
// else if slot 1 is free put it, and so on; then count, or where none was free
// read who is there. Only limit keys can come to exist, so the count cannot pass
// the limit, and nothing is read before the write. The whole chain runs only
// where no key stands at or beyond slot limit, as one may after the limit was
// lowered; else it reads.
func (l *Limiter) slotChain(limit int, a *admission) txn {
	read := clientv3.OpGet(l.keys.user(a.user), clientv3.WithPrefix())
	next := read
	for slot := limit - 1; slot >= 0; slot-- {
		key := l.keys.slot(a.user, slot)
		next = clientv3.OpTxn(
			[]clientv3.Cmp{clientv3.Compare(clientv3.CreateRevision(key), "=", 0)},
			[]clientv3.Op{clientv3.OpPut(key, a.value, clientv3.WithLease(a.lease))},
			[]clientv3.Op{next},
		)
	}
	beyond := clientv3.Compare(clientv3.CreateRevision(l.keys.slot(a.user, limit)), "=", 0).
		WithRange(clientv3.GetPrefixRangeEnd(l.keys.user(a.user)))
	return txn{
		cmps:  []clientv3.Cmp{beyond},
		then:  []clientv3.Op{next, l.countOp(a.user)}, // etcd runs them in this order
		other: []clientv3.Op{read},
	}
}

// chainResult reads slotChain's answer: the slot that was free and the new
// count, or slot -1 and what the user holds.
func (l *Limiter) chainResult(limit int, a *admission, resp *clientv3.TxnResponse) (slot, count int, s snapshot) {
	if !resp.Succeeded {
		return -1, 0, l.snapshotOf(a.user, resp.Header, resp.Responses[0].GetResponseRange().Kvs)
	}
	at := resp.Responses[0]
	for slot := range limit {
		level := at.GetResponseTxn()
		if level.Succeeded {
			return slot, int(resp.Responses[1].GetResponseRange().Count), snapshot{}
		}
		at = level.Responses[0]
	}
	return -1, 0, l.snapshotOf(a.user, resp.Header, at.GetResponseRange().Kvs)
}

// planTxn carries out p, decided on s. It succeeds only if no key of the user
// was put since s and every stream that p ends is still there; streams that
// went away meanwhile only make room. Else it reads what the user holds now.
func (l *Limiter) planTxn(a *admission, s snapshot, p plan, grave clientv3.LeaseID) txn {
	key := l.keys.slot(a.user, p.slot)
	t := txn{
		cmps:  []clientv3.Cmp{l.unchangedSince(a.user, s)},
		then:  []clientv3.Op{clientv3.OpPut(key, a.value, clientv3.WithLease(a.lease))},
		other: []clientv3.Op{clientv3.OpGet(l.keys.user(a.user), clientv3.WithPrefix())},
	}
	by := &by{Device: a.req.Device, Started: a.started.UnixMilli()}
	for _, e := range p.ends {
		t.cmps = append(t.cmps, clientv3.Compare(clientv3.LeaseValue(e.key), "=", e.lease))
		if e.key != key {
			t.then = append(t.then, clientv3.OpDelete(e.key))
		}
		if e.buried() {
			t.then = append(t.then, l.tombstone(a.user, e.rec.Nonce, grave, e.reason, by))
		}
	}
	t.then = append(t.then, l.countOp(a.user))
	return t
}

// unchangedSince compares that no key of user was put after s. On an empty
// range it holds.
func (l *Limiter) unchangedSince(user string, s snapshot) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(l.keys.user(user)), "<", s.rev+1).WithPrefix()
}

func (l *Limiter) countOp(user string) clientv3.Op {
	return clientv3.OpGet(l.keys.user(user), clientv3.WithPrefix(), clientv3.WithCountOnly())
}

// by is [By] as tombstones hold it.
type by struct {
	Device  Device `json:"d"`
	Started int64  `json:"t"`
}

// grave is the value of a tombstone: why a stream ended.
type grave struct {
	Reason Reason `json:"r"`
	By     *by    `json:"by,omitempty"`
}

func (g grave) err() *EndedError {
	e := &EndedError{Reason: g.Reason}
	if g.By != nil {
		e.By = &By{Device: g.By.Device, StartedAt: time.UnixMilli(g.By.Started)}
	}
	return e
}

// tombstone is the write that remembers why a stream ended, for its next
// heartbeat. It lives under the node's grave lease, which nobody renews.
func (l *Limiter) tombstone(user string, n nonce, under clientv3.LeaseID, r Reason, b *by) clientv3.Op {
	v, err := json.Marshal(grave{r, b})
	if err != nil {
		panic(err) // strings and numbers always marshal
	}
	return clientv3.OpPut(l.keys.ended(user, n), string(v), clientv3.WithLease(under))
}

// read returns what user holds, by a linearizable read: no disk is touched.
func (l *Limiter) read(ctx context.Context, user string) (snapshot, error) {
	resp, err := l.kv.Get(ctx, l.keys.user(user), clientv3.WithPrefix())
	if err != nil {
		return snapshot{}, unavailable("read "+user, err)
	}
	return l.snapshotOf(user, resp.Header, resp.Kvs), nil
}

func (l *Limiter) snapshotOf(user string, h *etcdserverpb.ResponseHeader, kvs []*mvccpb.KeyValue) snapshot {
	return newSnapshot(user, l.keys, h.Revision, h.RaftTerm, kvs)
}

// unavailable makes err an [ErrUnavailable] that says what was being done.
func unavailable(doing string, err error) error {
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, strings.TrimSpace(doing), err)
}
