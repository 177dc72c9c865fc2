package lease

import (
	"context"
	"errors"
	"fmt"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// errLeaseGone means that a transaction named a lease that is no more. etcd
// checks leases before it writes, so nothing of the transaction was applied.
var errLeaseGone = errors.New("lease not found")

// errNotApplied means that a write was given up before it was proposed, by
// etcd or by us.
var errNotApplied = errors.New("refused")

// planTxn carries out p, decided on s: the admission rule as one transaction.
// It succeeds only if no key of the user was put since s, and every stream that
// p ends is still there. Streams that went away meanwhile only make room. Else
// it reads what the user holds now.
func (l *Limiter) planTxn(a *admission, s snapshot, p plan) *pb.TxnRequest {
	all := below(l.keys.user(a.user))
	key := l.keys.slot(a.user, p.slot)
	t := &pb.TxnRequest{
		Compare: []*pb.Compare{notPutSince(all, s.rev)},
		Success: []*pb.RequestOp{putOp(key, a.value, a.lease)},
		Failure: []*pb.RequestOp{readOp(all)},
	}
	for _, e := range p.ends {
		t.Compare = append(t.Compare, writtenAt(e.key, e.mod))
		if e.key != key {
			t.Success = append(t.Success, deleteOp(oneKey(e.key)))
		}
	}
	if len(s.held) > 0 { // of nobody's keys the new one is the first
		t.Success = append(t.Success, countOp(all))
	}
	return t
}

// planCount is the user's count at the revision that carried p out.
func planCount(s snapshot, resp *pb.TxnResponse) int {
	if len(s.held) == 0 {
		return 1
	}
	return int(resp.Responses[len(resp.Responses)-1].GetResponseRange().Count)
}

// stopTxn frees the slot of h if the same put still stands there, and counts
// what is left.
func (l *Limiter) stopTxn(user string, h held) *pb.TxnRequest {
	count := countOp(below(l.keys.user(user)))
	return &pb.TxnRequest{
		Compare: []*pb.Compare{writtenAt(h.key, h.mod)},
		Success: []*pb.RequestOp{deleteOp(oneKey(h.key)), count},
		Failure: []*pb.RequestOp{count},
	}
}

// removeTxn ends all of a user's streams if none was put since s, and tells
// which they were. Else it reads what the user holds now.
func (l *Limiter) removeTxn(user string, s snapshot) *pb.TxnRequest {
	all := below(l.keys.user(user))
	end := deleteOp(all)
	end.GetRequestDeleteRange().PrevKv = true
	return &pb.TxnRequest{
		Compare: []*pb.Compare{notPutSince(all, s.rev)},
		Success: []*pb.RequestOp{end},
		Failure: []*pb.RequestOp{readOp(all)},
	}
}

// classify tells refusals from unknown outcomes by etcd's own error texts: some
// of them travel under gRPC code Unknown (rpctypes.Error matches the text). An
// error that is neither errLeaseGone nor errNotApplied leaves the outcome
// unknown: even "no space" may have been applied (etcd issue 16659).
func classify(err error) error {
	var etcdErr rpctypes.EtcdError
	if !errors.As(rpctypes.Error(err), &etcdErr) {
		return err
	}
	switch {
	case errors.Is(etcdErr, rpctypes.ErrLeaseNotFound):
		return fmt.Errorf("%w: %w", errLeaseGone, err)
	case isOversized(etcdErr),
		errors.Is(etcdErr, rpctypes.ErrTooManyRequests),
		errors.Is(etcdErr, rpctypes.ErrDuplicateKey),
		errors.Is(etcdErr, rpctypes.ErrPermissionDenied),
		errors.Is(etcdErr, rpctypes.ErrInvalidAuthToken),
		errors.Is(etcdErr, rpctypes.ErrAuthOldRevision):
		return fmt.Errorf("%w: %w", errNotApplied, err)
	}
	return err
}

// isOversized reports whether etcd finds a transaction too large.
func isOversized(err error) bool {
	known := rpctypes.Error(err)
	return errors.Is(known, rpctypes.ErrTooManyOps) || errors.Is(known, rpctypes.ErrRequestTooLarge)
}

// isFull reports whether etcd takes no more puts until an operator makes room.
// Deletes, revokes and renewals go on.
func isFull(err error) bool { return errors.Is(rpctypes.Error(err), rpctypes.ErrNoSpace) }

// read returns what user holds, by a linearizable read: no disk is touched.
func (l *Limiter) read(ctx context.Context, user string) (snapshot, error) {
	resp, err := l.etcd.KV.Range(ctx, below(l.keys.user(user)).read())
	if err != nil {
		return snapshot{}, unavailable("read "+user, err)
	}
	return newSnapshot(user, l.keys, resp.Header.Revision, resp.Header.RaftTerm, resp.Kvs), nil
}

// know returns what user holds at a revision that is no older than this node's
// own last write to the user, from the view where it is that far.
func (l *Limiter) know(ctx context.Context, user string) (snapshot, error) {
	if s, ok := l.seen(ctx, user); ok {
		return s, nil
	}
	return l.read(ctx, user)
}

// seen is know where the view alone can tell.
func (l *Limiter) seen(ctx context.Context, user string) (snapshot, bool) {
	if !l.caughtUp(ctx, user) {
		return snapshot{}, false
	}
	s, ok := l.view.user(user)
	s.viewed = true
	return s, ok
}

// caughtUp waits a moment until the view shows this node's last write to user.
func (l *Limiter) caughtUp(ctx context.Context, user string) bool {
	rev, ok := l.wrote.get(user)
	if !ok {
		return true
	}
	wait, cancel := context.WithTimeout(ctx, viewPatience)
	defer cancel()
	return l.view.reach(wait, rev)
}

// unavailable makes err an [ErrUnavailable] that says what was being done.
func unavailable(doing string, err error) error {
	if errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %s: %w", ErrUnavailable, strings.TrimSpace(doing), err)
}
