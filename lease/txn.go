package lease

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// errLeaseGone means that a transaction named a lease that is no more. etcd
// checks leases before it writes, so nothing of the transaction was applied.
var errLeaseGone = errors.New("lease not found")

// errNotApplied means that a write was given up before it was proposed, by
// etcd or by us.
var errNotApplied = errors.New("refused")

// admitTxn carries out d, decided on s by rule r: the admission rule as one
// transaction. It succeeds only if no key of the user was put since s, every
// stream that d ends is still there, the rule is still what it was, and the user
// still lives here. Streams
// that went away meanwhile only make room. Else it reads what the user holds now.
func (l *Limiter) admitTxn(a *admission, s snapshot, r rule, d decision) *pb.TxnRequest {
	all := below(l.keys.user(a.user))
	key := l.keys.slot(a.user, d.slot)
	t := &pb.TxnRequest{
		Compare: []*pb.Compare{notPutSince(all, s.rev)},
		Success: []*pb.RequestOp{putOp(key, a.value, a.lease)},
		Failure: []*pb.RequestOp{readOp(all)},
	}
	t.Compare = append(t.Compare, l.guards(a.user, r)...)
	t.Compare = append(t.Compare, writtenAt(l.keys.shardsKey(), a.req.Routed))
	for _, e := range d.ends {
		t.Compare = append(t.Compare, writtenAt(e.key, e.mod))
		if e.key != key {
			t.Success = append(t.Success, deleteOp(oneKey(e.key)))
		}
	}
	t.Success = append(t.Success, l.cool(a, d)...)
	if len(s.held) > 0 { // of nobody's keys the new one is the first
		t.Success = append(t.Success, r.tallyOp(all))
	}
	return t
}

// admittedUsage is the user's usage at the revision that carried a decision out.
func (l *Limiter) admittedUsage(user string, s snapshot, r rule, resp *pb.TxnResponse) Usage {
	if len(s.held) == 0 {
		return Usage{User: user, Count: 1, Limit: r.limit, Counted: 1}
	}
	return l.usage(user, r, resp.Responses[len(resp.Responses)-1].GetResponseRange())
}

// tallyOp reads as much of a user's keys as it takes to count them.
func (r rule) tallyOp(all keyRange) *pb.RequestOp {
	if r.count.each() {
		return countOp(all)
	}
	return readOp(all)
}

// usage is what the answer to a tallyOp says.
func (l *Limiter) usage(user string, r rule, resp *pb.RangeResponse) Usage {
	u := Usage{User: user, Count: int(resp.Count), Limit: r.limit, Counted: int(resp.Count)}
	if !r.count.each() {
		u.Counted = r.counted(newSnapshot(user, l.keys, 0, 0, resp.Kvs).held)
	}
	return u
}

// stopTxn frees the slot of h if the same put still stands there, and counts
// what is left. Else the user may have moved, or have come back: it reads first the
// key that says so, and the slot's.
func (l *Limiter) stopTxn(user string, r rule, h held) *pb.TxnRequest {
	count := r.tallyOp(below(l.keys.user(user)))
	return &pb.TxnRequest{
		Compare: []*pb.Compare{writtenAt(h.key, h.mod)},
		Success: []*pb.RequestOp{deleteOp(oneKey(h.key)), count},
		Failure: []*pb.RequestOp{readOp(oneKey(l.keys.shardsKey())), readOp(oneKey(h.key)), count},
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
// Deletes, revokes and renewals go on. [rpctypes.Error] does not look into errors that
// gRPC's are wrapped in.
func isFull(err error) bool {
	return errors.Is(rpctypes.Error(err), rpctypes.ErrNoSpace) || errors.Is(err, rpctypes.ErrGRPCNoSpace)
}

// read returns what user holds, by a linearizable read: no disk is touched.
func (l *Limiter) read(ctx context.Context, user string) (snapshot, error) {
	resp, err := l.etcd.KV.Range(ctx, below(l.keys.user(user)).read())
	if err != nil {
		return snapshot{}, unavailable("read "+user, err)
	}
	return newSnapshot(user, l.keys, resp.Header.Revision, resp.Header.RaftTerm, resp.Kvs), nil
}

// ask returns what the user of a start holds, and the rules for him, at one
// revision, by a linearizable read.
func (l *Limiter) ask(ctx context.Context, a *admission) (snapshot, error) {
	plans := []string{DefaultPlan, cmp.Or(a.said.plan, a.said.grant, DefaultPlan)}
	if o, _ := l.view.rules.override(a.user); o != nil && o.Plan != "" {
		plans = append(plans, o.Plan)
	}
	for {
		rules := readRules{l.keys, map[string]*mvccpb.KeyValue{}}
		ranges := []keyRange{below(l.keys.user(a.user)), oneKey(l.keys.override(a.user))}
		for _, name := range plans {
			ranges = append(ranges, oneKey(l.keys.plan(name)))
		}
		ranges = append(ranges, oneKey(l.keys.shardsKey()))
		resp, err := l.readAll(ctx, ranges...)
		if err != nil {
			return snapshot{}, unavailable("read "+a.user, err)
		}
		last := len(ranges) - 1
		if err := l.checkRouted(resp.Responses[last].GetResponseRange().Kvs, a.req.Routed); err != nil {
			return snapshot{}, err
		}
		rules.take(resp.Responses[1:last])
		if o, _ := rules.override(a.user); o != nil && o.Plan != "" && !slices.Contains(plans, o.Plan) {
			plans = append(plans, o.Plan) // the view has not heard of it
			continue
		}
		s := newSnapshot(a.user, l.keys, resp.Header.Revision, resp.Header.RaftTerm, resp.Responses[0].GetResponseRange().Kvs)
		s.rules = rules
		return s, nil
	}
}

// readAll reads several ranges at one revision. etcd's client repeats no
// transactions, even those that only read.
func (l *Limiter) readAll(ctx context.Context, ranges ...keyRange) (*pb.TxnResponse, error) {
	ops := make([]*pb.RequestOp, len(ranges))
	for i, r := range ranges {
		ops[i] = readOp(r)
	}
	for tries := 1; ; tries++ {
		resp, err := l.etcd.KV.Txn(ctx, &pb.TxnRequest{Success: nested(ops)})
		if err == nil || tries == readTries || pause(ctx) {
			return resp, err
		}
	}
}

const readTries = 3

// know returns what user holds at a revision that is no older than this node's
// own last write to the user, from the view where it is that far.
func (l *Limiter) know(ctx context.Context, user string) (snapshot, error) {
	if s, ok := l.seen(ctx, user); ok {
		return s, nil
	}
	return l.read(ctx, user)
}

// knowFor is know with the rules for a start.
func (l *Limiter) knowFor(ctx context.Context, a *admission) (snapshot, error) {
	if s, ok := l.seen(ctx, a.user); ok {
		return s, nil
	}
	return l.ask(ctx, a)
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
