package lease

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// A user moves from one etcd to another in three steps, each of which may be
// repeated, by anyone, and by several at once:
//
//  1. Depart: one transaction on the old etcd takes all that the user has there
//     and leaves it in one key, the luggage.
//  2. Arrive: one transaction on the new etcd writes the streams, in the same slots
//     and under leases of the same ids, so that the players' stream ids stay good.
//     It also writes a key that keeps it from ever being done again.
//  3. Departed: the luggage is removed.
//
// Meanwhile no start is admitted on the old etcd, because of the key of shards, and
// none on the new one before the caller has seen that nothing is left on the old.

// Luggage is what a moving user takes along.
type Luggage struct {
	Streams  []luggageStream `json:"streams,omitempty"`
	Override []byte          `json:"override,omitempty"`
}

type luggageStream struct {
	Name  string `json:"name"`  // the last part of its key
	Lease int64  `json:"lease"` // 0 for a key without one, which is none of ours
	Value []byte `json:"value"`
}

// Empty reports whether there is nothing to take along.
func (l Luggage) Empty() bool { return len(l.Streams) == 0 && l.Override == nil }

// Depart takes all that user has here out of its place, unless that was done
// before, and returns it. If it is empty nothing was written, and as long as
// the key of shards stays what it is, nobody writes anything here for user again.
// routed is that key's put. Returns [ErrRouting] and [ErrUnavailable].
func (l *Limiter) Depart(ctx context.Context, user string, routed int64) (Luggage, error) {
	if !ValidUser(user) {
		return Luggage{}, ErrBadUser
	}
	ctx, cancel := l.bound(ctx)
	defer cancel()
	for {
		luggage, done, err := l.tryDepart(ctx, user, routed)
		if done || errors.Is(err, ErrRouting) {
			return luggage, err
		}
		if pause(ctx) {
			return Luggage{}, unavailable("move "+user, errors.Join(err, context.Cause(ctx)))
		}
	}
}

func (l *Limiter) tryDepart(ctx context.Context, user string, routed int64) (luggage Luggage, done bool, err error) {
	all, override, place := below(l.keys.user(user)), l.keys.override(user), l.keys.departed(user)
	resp, err := l.readAll(ctx, all, oneKey(override), oneKey(place), oneKey(l.keys.shardsKey()))
	if err != nil {
		return Luggage{}, false, err
	}
	kvs := func(i int) []*mvccpb.KeyValue { return resp.Responses[i].GetResponseRange().Kvs }
	if err := l.checkRouted(kvs(3), routed); err != nil {
		return Luggage{}, false, err
	}
	if left := kvs(2); len(left) == 1 {
		err := json.Unmarshal(left[0].Value, &luggage)
		return luggage, err == nil, err
	}
	t := &pb.TxnRequest{
		Compare: []*pb.Compare{
			writtenAt(l.keys.shardsKey(), routed), writtenAt(place, 0), notPutSince(all, resp.Header.Revision),
		},
		Success: []*pb.RequestOp{deleteOp(all)},
	}
	for _, kv := range kvs(0) { // what is stopped meanwhile must not come to life again
		t.Compare = append(t.Compare, writtenAt(string(kv.Key), kv.ModRevision))
		luggage.Streams = append(luggage.Streams, luggageStream{
			strings.TrimPrefix(string(kv.Key), l.keys.user(user)), kv.Lease, kv.Value,
		})
	}
	if o := kvs(1); len(o) == 1 {
		luggage.Override = o[0].Value
		t.Compare = append(t.Compare, writtenAt(override, o[0].ModRevision))
		t.Success = append(t.Success, deleteOp(oneKey(override)))
	}
	if luggage.Empty() {
		return luggage, true, nil
	}
	t.Success = append(t.Success, putOp(place, stored(luggage), 0))
	written, err := l.etcd.KV.Txn(ctx, t)
	if err != nil || !written.Succeeded { // or the outcome is unknown: look again
		return Luggage{}, false, err
	}
	l.wroteAt(user, written.Header.Revision)
	return luggage, true, nil
}

// movesIn reports whether any user moves in a revision.
func movesIn(k keys, events []*mvccpb.Event) bool {
	if len(events) < 2 || len(events) > 2*MaxLimit { // no step of a move is part of a batch
		return false
	}
	away, here := []byte(k.departures()), []byte(k.arrivals())
	return slices.ContainsFunc(events, func(e *mvccpb.Event) bool {
		return e.Type == mvccpb.Event_PUT && (bytes.HasPrefix(e.Kv.Key, away) || bytes.HasPrefix(e.Kv.Key, here))
	})
}

// moves reports whether user's streams went away with him in this revision, or
// came.
func moves(k keys, user string, events []*mvccpb.Event) bool {
	away, here := k.departed(user), k.arrived(user)
	return slices.ContainsFunc(events, func(e *mvccpb.Event) bool {
		return e.Type == mvccpb.Event_PUT && (string(e.Kv.Key) == away || string(e.Kv.Key) == here)
	})
}

// checkRouted notes the key of shards as it was just read.
func (l *Limiter) checkRouted(kvs []*mvccpb.KeyValue, routed int64) error {
	now := &ShardsKey{}
	if len(kvs) == 1 {
		now = shardsKeyOf(kvs[0])
	}
	l.view.heardOfShards(now)
	if now.Mod != routed {
		return ErrRouting
	}
	return nil
}

// Arrive writes what user had elsewhere, unless that was done before. The streams
// have a full TTL. Returns [ErrRouting] and [ErrUnavailable].
func (l *Limiter) Arrive(ctx context.Context, user string, luggage Luggage, routed int64) error {
	if !ValidUser(user) {
		return ErrBadUser
	}
	ctx, cancel := l.bound(ctx)
	defer cancel()
	for {
		done, err := l.tryArrive(ctx, user, luggage, routed)
		if done || errors.Is(err, ErrRouting) {
			return err
		}
		if pause(ctx) {
			return unavailable("move "+user, errors.Join(err, context.Cause(ctx)))
		}
	}
}

func (l *Limiter) tryArrive(ctx context.Context, user string, luggage Luggage, routed int64) (done bool, err error) {
	resp, err := l.readAll(ctx, oneKey(l.keys.arrived(user)), oneKey(l.keys.shardsKey()))
	if err != nil {
		return false, err
	}
	if err := l.checkRouted(resp.Responses[1].GetResponseRange().Kvs, routed); err != nil {
		return false, err
	}
	arrived := int64(0)
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 {
		arrived = kvs[0].ModRevision
	}
	if arrived > routed { // else it was in a move before this one, which was broken off at its end
		return true, nil
	}
	t := &pb.TxnRequest{
		Compare: []*pb.Compare{writtenAt(l.keys.shardsKey(), routed), writtenAt(l.keys.arrived(user), arrived)},
		Success: []*pb.RequestOp{putOp(l.keys.arrived(user), nil, 0)},
	}
	if luggage.Override != nil {
		t.Success = append(t.Success, putOp(l.keys.override(user), luggage.Override, 0))
	}
	sent := time.Now()
	for _, s := range luggage.Streams {
		if s.Lease != 0 {
			if err := l.adopt(ctx, s); err != nil {
				return false, err
			}
		}
		t.Success = append(t.Success, putOp(l.keys.user(user)+s.Name, s.Value, s.Lease))
	}
	written, err := l.etcd.KV.Txn(ctx, t)
	if err != nil || !written.Succeeded { // or the outcome is unknown: look again
		return false, err
	}
	l.wroteAt(user, written.Header.Revision)
	for _, s := range luggage.Streams {
		if slot := slotOf(s.Name); slot >= 0 {
			l.view.hint(user, ident{uint16(slot), s.Lease, headOf(s.Value).Nonce}, sent)
		}
	}
	return true, nil
}

// adopt makes a lease of the id that the stream has had elsewhere.
func (l *Limiter) adopt(ctx context.Context, s luggageStream) error {
	ttl := headOf(s.Value).TTL
	if ttl == 0 {
		ttl = int64(l.cfg.TTL / time.Second)
	}
	_, err := l.etcd.Lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: s.Lease, TTL: ttl})
	if !errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseExist) {
		return err
	}
	return await(ctx, l.renewer.begin(ctx, s.Lease)).err // another who carries the same luggage made it
}

// Departed removes the luggage of a user who has arrived. Returns
// [ErrUnavailable].
func (l *Limiter) Departed(ctx context.Context, user string) error {
	ctx, cancel := l.bound(ctx)
	defer cancel()
	_, err := l.etcd.KV.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte(l.keys.departed(user))})
	if err != nil {
		return unavailable("move "+user, err)
	}
	return nil
}

// Leavers returns users who have anything here and for whom moves is true, up to
// some hundreds, by reading from etcd; none means that there are none. after is
// the last user of the call before, or "". Returns [ErrUnavailable].
func (l *Limiter) Leavers(ctx context.Context, after Cursor, moves func(user string) bool) ([]string, Cursor, error) {
	ctx, cancel := l.bound(ctx)
	defer cancel()
	var found []string
	for prefixes := l.homes(); after.part < len(prefixes); after = (Cursor{part: after.part + 1}) {
		prefix := prefixes[after.part]
		r := below(prefix)
		for {
			if after.key != nil {
				r.from = append(after.key, 0)
			}
			ask := r.read()
			ask.Limit, ask.KeysOnly = leaversPage, true
			resp, err := l.etcd.KV.Range(ctx, ask)
			if err != nil {
				return nil, after, unavailable("list users", err)
			}
			for _, kv := range resp.Kvs {
				user, _, _ := strings.Cut(strings.TrimPrefix(string(kv.Key), prefix), "/")
				if moves(user) && (len(found) == 0 || found[len(found)-1] != user) {
					found = append(found, user)
				}
				after.key = kv.Key
			}
			if len(found) > 0 {
				return found, after, nil
			}
			if !resp.More {
				break
			}
		}
	}
	return nil, after, nil
}

// Cursor is how far Leavers has come. Its zero value is the beginning.
type Cursor struct {
	part int
	key  []byte
}

const leaversPage = 500

// homes are the prefixes below which a user may have anything that moves.
func (l *Limiter) homes() []string {
	return []string{l.keys.users(), l.keys.overrides(), l.keys.departures()}
}

// ForgetArrivals removes what [Limiter.Arrive] has left, after users have been
// spread anew. Returns [ErrUnavailable].
func (l *Limiter) ForgetArrivals(ctx context.Context) error {
	for {
		call, cancel := l.bound(ctx)
		ask := below(l.keys.arrivals()).read()
		ask.Limit, ask.KeysOnly = leaversPage, true
		resp, err := l.etcd.KV.Range(call, ask)
		if err == nil && len(resp.Kvs) > 0 {
			last := append(resp.Kvs[len(resp.Kvs)-1].Key, 0)
			_, err = l.etcd.KV.DeleteRange(call, &pb.DeleteRangeRequest{Key: resp.Kvs[0].Key, RangeEnd: last})
		}
		cancel()
		if err != nil {
			return unavailable("forget arrivals", err)
		}
		if !resp.More {
			return nil
		}
	}
}
