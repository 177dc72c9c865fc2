package lease

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/keepalive"
	"streamcount/lease/internal/schema"
	"streamcount/lease/streamid"
	"streamcount/lease/userid"
)

// A user migrates from one etcd cluster to another in three steps. Each may be repeated,
// by any node, and by several nodes at once:
//
//  1. Export: a transaction on the old cluster replaces all keys of the user by one key
//     with the migration state.
//  2. Import: a transaction on the new cluster writes the streams, with the same slots and
//     lease ids, so that the stream ids of the players stay valid. It also writes a mark
//     that prevents a second import.
//  3. FinishExport: the migration state is deleted from the old cluster.
//
// During a migration the old cluster admits no starts, because the routing record has
// changed, and the new cluster admits none before the caller has exported the user.

// MigrationState contains the keys of a user that migrates.
type MigrationState struct {
	Streams  []migratedStream `json:"streams,omitempty"`
	Override []byte           `json:"override,omitempty"`
}

type migratedStream struct {
	Name  string `json:"name"`  // last part of the key
	Lease int64  `json:"lease"` // 0 if the key has none, because streamcount did not write it
	Value []byte `json:"value"`
}

// Empty reports whether the user has no keys.
func (l MigrationState) Empty() bool { return len(l.Streams) == 0 && l.Override == nil }

// Export replaces the keys of user by the migration state, and returns it. If that was
// done before, it returns the stored state. If the state is empty, Export has written
// nothing, and no node writes a key of user here while the routing record has revision
// routed. Export returns [ErrRouting] and [ErrUnavailable].
func (l *Limiter) Export(ctx context.Context, user string, routed int64) (MigrationState, error) {
	if !userid.Valid(user) {
		return MigrationState{}, ErrBadUser
	}
	ctx, cancel := l.withDeadline(ctx)
	defer cancel()
	for {
		state, done, err := l.tryExport(ctx, user, routed)
		if done || errors.Is(err, ErrRouting) {
			return state, err
		}
		if retryPause(ctx) {
			return MigrationState{}, etcdop.Unavailable("migrate "+user, errors.Join(err, context.Cause(ctx)))
		}
	}
}

func (l *Limiter) tryExport(ctx context.Context, user string, routed int64) (state MigrationState, done bool, err error) {
	all, override, place := etcdop.Prefix(l.keys.UserPrefix(user)), l.keys.Override(user), l.keys.Departed(user)
	resp, err := etcdop.ReadAll(ctx, l.etcd.KV, all, etcdop.Key(override), etcdop.Key(place), etcdop.Key(l.keys.Routing()))
	if err != nil {
		return MigrationState{}, false, err
	}
	kvs := func(i int) []*mvccpb.KeyValue { return resp.Responses[i].GetResponseRange().Kvs }
	if err := l.checkRouting(kvs(3), routed); err != nil {
		return MigrationState{}, false, err
	}
	if left := kvs(2); len(left) == 1 {
		err := json.Unmarshal(left[0].Value, &state)
		return state, err == nil, err
	}
	t := &pb.TxnRequest{
		Compare: []*pb.Compare{
			etcdop.ModRevisionIs(l.keys.Routing(), routed), etcdop.ModRevisionIs(place, 0), etcdop.NoPutAfter(all, resp.Header.Revision),
		},
		Success: []*pb.RequestOp{etcdop.Delete(all)},
	}
	for _, kv := range kvs(0) { // a stream that is stopped in between must not be restored
		t.Compare = append(t.Compare, etcdop.ModRevisionIs(string(kv.Key), kv.ModRevision))
		state.Streams = append(state.Streams, migratedStream{
			strings.TrimPrefix(string(kv.Key), l.keys.UserPrefix(user)), kv.Lease, kv.Value,
		})
	}
	if o := kvs(1); len(o) == 1 {
		state.Override = o[0].Value
		t.Compare = append(t.Compare, etcdop.ModRevisionIs(override, o[0].ModRevision))
		t.Success = append(t.Success, etcdop.Delete(etcdop.Key(override)))
	}
	if state.Empty() {
		return state, true, nil
	}
	t.Success = append(t.Success, etcdop.Put(place, schema.Encode(state), 0))
	written, err := l.etcd.KV.Txn(ctx, t)
	if err != nil || !written.Succeeded { // or the outcome is unknown: read again
		return MigrationState{}, false, err
	}
	l.rules.RevokeLeases(kvs(1))
	l.recordOwnWrite(user, written.Header.Revision)
	return state, true, nil
}

// checkRouting records the routing record in kvs, and returns an [ErrRouting] unless its
// revision is routed.
func (l *Limiter) checkRouting(kvs []*mvccpb.KeyValue, routed int64) error {
	now := &RoutingRecord{}
	if len(kvs) == 1 {
		now = schema.DecodeRoutingRecord(kvs[0])
	}
	l.replica.NoteRouting(now)
	if now.Revision != routed {
		return ErrRouting
	}
	return nil
}

// Import writes the keys of user that another cluster has exported, unless that was done
// before. The streams have their full TTL. Import returns [ErrRouting] and
// [ErrUnavailable].
func (l *Limiter) Import(ctx context.Context, user string, state MigrationState, routed int64) error {
	if !userid.Valid(user) {
		return ErrBadUser
	}
	ctx, cancel := l.withDeadline(ctx)
	defer cancel()
	for {
		done, err := l.tryImport(ctx, user, state, routed)
		if done || errors.Is(err, ErrRouting) {
			return err
		}
		if retryPause(ctx) {
			return etcdop.Unavailable("migrate "+user, errors.Join(err, context.Cause(ctx)))
		}
	}
}

func (l *Limiter) tryImport(ctx context.Context, user string, state MigrationState, routed int64) (done bool, err error) {
	resp, err := etcdop.ReadAll(ctx, l.etcd.KV, etcdop.Key(l.keys.Arrived(user)), etcdop.Key(l.keys.Routing()))
	if err != nil {
		return false, err
	}
	if err := l.checkRouting(resp.Responses[1].GetResponseRange().Kvs, routed); err != nil {
		return false, err
	}
	arrived := int64(0)
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 {
		arrived = kvs[0].ModRevision
	}
	if arrived > routed { // otherwise the mark is that of an earlier migration
		return true, nil
	}
	t := &pb.TxnRequest{
		Compare: []*pb.Compare{etcdop.ModRevisionIs(l.keys.Routing(), routed), etcdop.ModRevisionIs(l.keys.Arrived(user), arrived)},
		Success: []*pb.RequestOp{etcdop.Put(l.keys.Arrived(user), nil, 0)},
	}
	ending := int64(0) // the lease of an override that ends
	if state.Override != nil {
		var put *pb.RequestOp
		if put, ending, err = l.rules.Restore(ctx, user, state.Override); err != nil {
			return false, err
		}
		if put != nil { // it has not ended
			t.Success = append(t.Success, put)
		}
	}
	sent := time.Now()
	for _, s := range state.Streams {
		if s.Lease != 0 {
			if err := l.recreateLease(ctx, s); err != nil {
				return false, err
			}
		}
		t.Success = append(t.Success, etcdop.Put(l.keys.UserPrefix(user)+s.Name, s.Value, s.Lease))
	}
	written, err := l.etcd.KV.Txn(ctx, t)
	if err != nil { // the outcome may be unknown: read again
		return false, err
	}
	if !written.Succeeded {
		l.granter.RevokeLater(ending)
		return false, nil
	}
	l.recordOwnWrite(user, written.Header.Revision)
	for _, s := range state.Streams {
		if slot := schema.ParseSlot(s.Name); slot >= 0 {
			l.replica.AddRenewalHint(user, streamid.ID{Slot: uint16(slot), Lease: s.Lease, Nonce: schema.DecodeHead(s.Value).Nonce}, sent)
		}
	}
	return true, nil
}

// recreateLease creates the lease of a stream with the id that it had on the other
// cluster.
func (l *Limiter) recreateLease(ctx context.Context, s migratedStream) error {
	ttl := schema.DecodeHead(s.Value).TTLSeconds
	if ttl == 0 {
		ttl = int64(l.cfg.TTL / time.Second)
	}
	_, err := l.etcd.Lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: s.Lease, TTL: ttl})
	if !errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseExist) {
		return err
	}
	return keepalive.Wait(ctx, l.renewer.Renew(ctx, s.Lease)).Err // another import of the same state has created it
}

// FinishExport deletes the migration state of an imported user. It returns an
// [ErrUnavailable].
func (l *Limiter) FinishExport(ctx context.Context, user string) error {
	ctx, cancel := l.withDeadline(ctx)
	defer cancel()
	_, err := l.etcd.KV.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte(l.keys.Departed(user))})
	if err != nil {
		return etcdop.Unavailable("migrate "+user, err)
	}
	return nil
}

// UsersToMigrate returns users with keys here for whom moves returns true, up to some
// hundreds. It reads etcd. No users mean that there are none left. after is the token
// that the previous call returned; the zero token for the first call. It returns an
// [ErrUnavailable].
func (l *Limiter) UsersToMigrate(ctx context.Context, after PageToken, moves func(user string) bool) ([]string, PageToken, error) {
	ctx, cancel := l.withDeadline(ctx)
	defer cancel()
	var found []string
	for prefixes := l.migrationPrefixes(); after.part < len(prefixes); after = (PageToken{part: after.part + 1}) {
		prefix := prefixes[after.part]
		r := etcdop.Prefix(prefix)
		for {
			if after.key != nil {
				r.From = append(after.key, 0)
			}
			ask := r.Request()
			ask.Limit, ask.KeysOnly = migrationPageSize, true
			resp, err := l.etcd.KV.Range(ctx, ask)
			if err != nil {
				return nil, after, etcdop.Unavailable("list users", err)
			}
			for _, kv := range resp.Kvs {
				part, _, _ := strings.Cut(strings.TrimPrefix(string(kv.Key), prefix), "/")
				user, ok := schema.UnescapeUserID(part)
				if ok && moves(user) && (len(found) == 0 || found[len(found)-1] != user) {
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

// A PageToken is the position of [Limiter.UsersToMigrate].
type PageToken struct {
	part int
	key  []byte
}

const migrationPageSize = 500

// migrationPrefixes returns the prefixes of the keys that migrate.
func (l *Limiter) migrationPrefixes() []string {
	return []string{l.keys.UsersPrefix(), l.keys.OverridesPrefix(), l.keys.DepartedPrefix()}
}

// ClearImportMarks deletes the marks that [Limiter.Import] has written, after all users
// have migrated. It returns an [ErrUnavailable].
func (l *Limiter) ClearImportMarks(ctx context.Context) error {
	for {
		call, cancel := l.withDeadline(ctx)
		ask := etcdop.Prefix(l.keys.ArrivedPrefix()).Request()
		ask.Limit, ask.KeysOnly = migrationPageSize, true
		resp, err := l.etcd.KV.Range(call, ask)
		if err == nil && len(resp.Kvs) > 0 {
			last := append(resp.Kvs[len(resp.Kvs)-1].Key, 0)
			_, err = l.etcd.KV.DeleteRange(call, &pb.DeleteRangeRequest{Key: resp.Kvs[0].Key, RangeEnd: last})
		}
		cancel()
		if err != nil {
			return etcdop.Unavailable("delete import marks", err)
		}
		if !resp.More {
			return nil
		}
	}
}

// If there are several etcd clusters, each of them contains the routing record, which says
// how users are spread over them. A Limiter does not interpret it. Every start and every
// change of a rule compares its revision in the transaction, so a node with an outdated
// routing record admits no stream.

// A RoutingRecord is the put of the key that says how users are spread over shards.
type RoutingRecord = schema.RoutingRecord

// Routing returns the newest routing record that this node has observed. If Heartbeat,
// List or Remove reports that a stream or user does not exist, that was true while this
// record or an earlier one was current.
func (l *Limiter) Routing() *RoutingRecord { return l.replica.CurrentRouting() }

// ReadRouting reads the routing record from etcd. It returns an [ErrUnavailable].
func (l *Limiter) ReadRouting(ctx context.Context) (*RoutingRecord, error) {
	ctx, cancel := l.withDeadline(ctx)
	defer cancel()
	kv, err := etcdop.ReadKey(ctx, l.etcd.KV, l.keys.Routing())
	if err != nil {
		return nil, etcdop.Unavailable("read the routing record", err)
	}
	return l.replica.NoteRouting(schema.DecodeRoutingRecord(kv)), nil
}

// PutRouting writes the routing record if it is still was, and, if unused is set, only
// if there are no streams. Otherwise it returns [ErrRouting] or [ErrInUse]. After an
// [ErrUnavailable] it may have been written.
func (l *Limiter) PutRouting(ctx context.Context, value []byte, was *RoutingRecord, unused bool) (*RoutingRecord, error) {
	ctx, cancel := l.withDeadline(ctx)
	defer cancel()
	key, all := l.keys.Routing(), etcdop.Prefix(l.keys.UsersPrefix())
	t := &pb.TxnRequest{
		Compare: []*pb.Compare{etcdop.ModRevisionIs(key, was.Revision)},
		Success: []*pb.RequestOp{etcdop.Put(key, value, 0)},
		Failure: []*pb.RequestOp{etcdop.Read(etcdop.Key(key))},
	}
	if unused {
		t.Compare = append(t.Compare, etcdop.NoPutAfter(all, 0))
	}
	resp, err := l.etcd.KV.Txn(ctx, t)
	if err != nil {
		return nil, etcdop.Unavailable("write the routing record", err)
	}
	if resp.Succeeded {
		return l.replica.NoteRouting(&RoutingRecord{Value: value, Revision: resp.Header.Revision}), nil
	}
	now := &RoutingRecord{}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 {
		now = schema.DecodeRoutingRecord(kvs[0])
	}
	l.replica.NoteRouting(now)
	if now.Revision == was.Revision {
		return nil, ErrInUse
	}
	return nil, ErrRouting
}
