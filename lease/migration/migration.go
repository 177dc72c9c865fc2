// Package migration moves users from one etcd cluster to another, and keeps the routing record
// that says how users are spread over clusters.
package migration

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"streamcount/internal/retry"
	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/keepalive"
	"streamcount/lease/internal/leasepool"
	"streamcount/lease/internal/replica"
	"streamcount/lease/internal/schema"
	"streamcount/lease/rules"
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

// ErrInUse means that there are streams where there should be none.
var ErrInUse = errors.New("lease: there are streams already")

// A Store migrates the users of one etcd cluster.
type Store struct{ cfg Config }

// Config configures a [Store].
type Config struct {
	KV             pb.KVClient
	Lease          pb.LeaseClient
	Keys           schema.Keys
	Replica        *replica.Replica
	Rules          *rules.Store
	Granter        *leasepool.Granter
	Renewer        *keepalive.Renewer
	TTL            time.Duration                                               // of a stream whose record has none
	WithDeadline   func(context.Context) (context.Context, context.CancelFunc) // bounds a call
	RecordOwnWrite func(user string, rev int64)
}

// New returns a Store.
func New(cfg Config) *Store { return &Store{cfg: cfg} }

// retryPause waits before the next attempt. It reports whether ctx ended.
func retryPause(ctx context.Context) (over bool) { return retry.Sleep(ctx, 20*time.Millisecond) != nil }

// A State contains the keys of a user that migrates.
type State struct {
	Streams  []Stream `json:"streams,omitempty"`
	Override []byte   `json:"override,omitempty"`
}

// A Stream is one key of a user that migrates.
type Stream struct {
	Name  string `json:"name"`  // last part of the key
	Lease int64  `json:"lease"` // 0 if the key has none, because streamcount did not write it
	Value []byte `json:"value"`
}

// Empty reports whether the user has no keys.
func (s State) Empty() bool { return len(s.Streams) == 0 && s.Override == nil }

// Export replaces the keys of user by the migration state, and returns it. If that was
// done before, it returns the stored state. If the state is empty, Export has written
// nothing, and no node writes a key of user here while the routing record has revision
// routed. Export returns lease.ErrRouting and lease.ErrUnavailable.
func (m *Store) Export(ctx context.Context, user string, routed int64) (State, error) {
	if !userid.Valid(user) {
		return State{}, schema.ErrBadUserID
	}
	ctx, cancel := m.cfg.WithDeadline(ctx)
	defer cancel()
	for {
		state, done, err := m.tryExport(ctx, user, routed)
		if done || errors.Is(err, schema.ErrRouting) {
			return state, err
		}
		if retryPause(ctx) {
			return State{}, etcdop.Unavailable("migrate "+user, errors.Join(err, context.Cause(ctx)))
		}
	}
}

func (m *Store) tryExport(ctx context.Context, user string, routed int64) (state State, done bool, err error) {
	all, override, place := etcdop.Prefix(m.cfg.Keys.UserPrefix(user)), m.cfg.Keys.Override(user), m.cfg.Keys.Departed(user)
	resp, err := etcdop.ReadAll(ctx, m.cfg.KV, all, etcdop.Key(override), etcdop.Key(place), etcdop.Key(m.cfg.Keys.Routing()))
	if err != nil {
		return State{}, false, err
	}
	kvs := func(i int) []*mvccpb.KeyValue { return resp.Responses[i].GetResponseRange().Kvs }
	if err := m.cfg.Replica.CheckRouting(kvs(3), routed); err != nil {
		return State{}, false, err
	}
	if left := kvs(2); len(left) == 1 {
		err := json.Unmarshal(left[0].Value, &state)
		return state, err == nil, err
	}
	t := &pb.TxnRequest{
		Compare: []*pb.Compare{
			etcdop.ModRevisionIs(m.cfg.Keys.Routing(), routed), etcdop.ModRevisionIs(place, 0), etcdop.NoPutAfter(all, resp.Header.Revision),
		},
		Success: []*pb.RequestOp{etcdop.Delete(all)},
	}
	for _, kv := range kvs(0) { // a stream that is stopped in between must not be restored
		t.Compare = append(t.Compare, etcdop.ModRevisionIs(string(kv.Key), kv.ModRevision))
		state.Streams = append(state.Streams, Stream{
			strings.TrimPrefix(string(kv.Key), m.cfg.Keys.UserPrefix(user)), kv.Lease, kv.Value,
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
	written, err := m.cfg.KV.Txn(ctx, t)
	if err != nil || !written.Succeeded { // or the outcome is unknown: read again
		return State{}, false, err
	}
	m.cfg.Rules.RevokeLeases(kvs(1))
	m.cfg.RecordOwnWrite(user, written.Header.Revision)
	return state, true, nil
}

// Import writes the keys of user that another cluster has exported, unless that was done
// before. The streams have their full TTL. Import returns lease.ErrRouting and
// lease.ErrUnavailable.
func (m *Store) Import(ctx context.Context, user string, state State, routed int64) error {
	if !userid.Valid(user) {
		return schema.ErrBadUserID
	}
	ctx, cancel := m.cfg.WithDeadline(ctx)
	defer cancel()
	for {
		done, err := m.tryImport(ctx, user, state, routed)
		if done || errors.Is(err, schema.ErrRouting) {
			return err
		}
		if retryPause(ctx) {
			return etcdop.Unavailable("migrate "+user, errors.Join(err, context.Cause(ctx)))
		}
	}
}

func (m *Store) tryImport(ctx context.Context, user string, state State, routed int64) (done bool, err error) {
	resp, err := etcdop.ReadAll(ctx, m.cfg.KV, etcdop.Key(m.cfg.Keys.Arrived(user)), etcdop.Key(m.cfg.Keys.Routing()))
	if err != nil {
		return false, err
	}
	if err := m.cfg.Replica.CheckRouting(resp.Responses[1].GetResponseRange().Kvs, routed); err != nil {
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
		Compare: []*pb.Compare{etcdop.ModRevisionIs(m.cfg.Keys.Routing(), routed), etcdop.ModRevisionIs(m.cfg.Keys.Arrived(user), arrived)},
		Success: []*pb.RequestOp{etcdop.Put(m.cfg.Keys.Arrived(user), nil, 0)},
	}
	ending := int64(0) // the lease of an override that ends
	if state.Override != nil {
		var put *pb.RequestOp
		if put, ending, err = m.cfg.Rules.Restore(ctx, user, state.Override); err != nil {
			return false, err
		}
		if put != nil { // it has not ended
			t.Success = append(t.Success, put)
		}
	}
	sent := time.Now()
	for _, s := range state.Streams {
		if s.Lease != 0 {
			if err := m.recreateLease(ctx, s); err != nil {
				return false, err
			}
		}
		t.Success = append(t.Success, etcdop.Put(m.cfg.Keys.UserPrefix(user)+s.Name, s.Value, s.Lease))
	}
	written, err := m.cfg.KV.Txn(ctx, t)
	if err != nil { // the outcome may be unknown: read again
		return false, err
	}
	if !written.Succeeded {
		m.cfg.Granter.RevokeLater(ending)
		return false, nil
	}
	m.cfg.RecordOwnWrite(user, written.Header.Revision)
	for _, s := range state.Streams {
		if slot := schema.ParseSlot(s.Name); slot >= 0 {
			m.cfg.Replica.AddRenewalHint(user, streamid.ID{Slot: uint16(slot), Lease: s.Lease, Nonce: schema.DecodeHead(s.Value).Nonce}, sent)
		}
	}
	return true, nil
}

// recreateLease creates the lease of a stream with the id that it had on the other
// cluster.
func (m *Store) recreateLease(ctx context.Context, s Stream) error {
	ttl := schema.DecodeHead(s.Value).TTLSeconds
	if ttl == 0 {
		ttl = int64(m.cfg.TTL / time.Second)
	}
	_, err := m.cfg.Lease.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: s.Lease, TTL: ttl})
	if !errors.Is(rpctypes.Error(err), rpctypes.ErrLeaseExist) {
		return err
	}
	return keepalive.Wait(ctx, m.cfg.Renewer.Renew(ctx, s.Lease)).Err // another import of the same state has created it
}

// FinishExport deletes the migration state of an imported user. It returns an
// lease.ErrUnavailable.
func (m *Store) FinishExport(ctx context.Context, user string) error {
	ctx, cancel := m.cfg.WithDeadline(ctx)
	defer cancel()
	_, err := m.cfg.KV.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte(m.cfg.Keys.Departed(user))})
	if err != nil {
		return etcdop.Unavailable("migrate "+user, err)
	}
	return nil
}

// UsersToMigrate returns users with keys here for whom moves returns true, up to some
// hundreds. It reads etcd. No users mean that there are none left. after is the token
// that the previous call returned; the zero token for the first call. It returns an
// lease.ErrUnavailable.
func (m *Store) UsersToMigrate(ctx context.Context, after PageToken, moves func(user string) bool) ([]string, PageToken, error) {
	ctx, cancel := m.cfg.WithDeadline(ctx)
	defer cancel()
	var found []string
	for prefixes := m.prefixes(); after.part < len(prefixes); after = (PageToken{part: after.part + 1}) {
		prefix := prefixes[after.part]
		r := etcdop.Prefix(prefix)
		for {
			if after.key != nil {
				r.From = append(after.key, 0)
			}
			ask := r.Request()
			ask.Limit, ask.KeysOnly = pageSize, true
			resp, err := m.cfg.KV.Range(ctx, ask)
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

// A PageToken is the position of [Store.UsersToMigrate].
type PageToken struct {
	part int
	key  []byte
}

const pageSize = 500

// prefixes returns the prefixes of the keys that migrate.
func (m *Store) prefixes() []string {
	return []string{m.cfg.Keys.UsersPrefix(), m.cfg.Keys.OverridesPrefix(), m.cfg.Keys.DepartedPrefix()}
}

// ClearImportMarks deletes the marks that [Store.Import] has written, after all users
// have migrated. It returns an lease.ErrUnavailable.
func (m *Store) ClearImportMarks(ctx context.Context) error {
	for {
		call, cancel := m.cfg.WithDeadline(ctx)
		ask := etcdop.Prefix(m.cfg.Keys.ArrivedPrefix()).Request()
		ask.Limit, ask.KeysOnly = pageSize, true
		resp, err := m.cfg.KV.Range(call, ask)
		if err == nil && len(resp.Kvs) > 0 {
			last := append(resp.Kvs[len(resp.Kvs)-1].Key, 0)
			_, err = m.cfg.KV.DeleteRange(call, &pb.DeleteRangeRequest{Key: resp.Kvs[0].Key, RangeEnd: last})
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
// how users are spread over them. A limiter does not interpret it. Every start and every
// change of a rule compares its revision in the transaction, so a node with an outdated
// routing record admits no stream.

// Routing returns the newest routing record that this node has observed. If Heartbeat,
// List or Remove reports that a stream or user does not exist, that was true while this
// record or an earlier one was current.
func (m *Store) Routing() *schema.RoutingRecord { return m.cfg.Replica.CurrentRouting() }

// ReadRouting reads the routing record from etcd. It returns an lease.ErrUnavailable.
func (m *Store) ReadRouting(ctx context.Context) (*schema.RoutingRecord, error) {
	ctx, cancel := m.cfg.WithDeadline(ctx)
	defer cancel()
	kv, err := etcdop.ReadKey(ctx, m.cfg.KV, m.cfg.Keys.Routing())
	if err != nil {
		return nil, etcdop.Unavailable("read the routing record", err)
	}
	return m.noteRouting(schema.DecodeRoutingRecord(kv)), nil
}

// noteRouting records a routing record. Later calls of [rules.Store.Plans] return the plans
// that were set before it.
func (m *Store) noteRouting(k *schema.RoutingRecord) *schema.RoutingRecord {
	m.cfg.Replica.RecordOwnWrite(k.Revision)
	return m.cfg.Replica.NoteRouting(k)
}

// PutRouting writes the routing record if it is still was, and, if unused is set, only
// if there are no streams. Otherwise it returns lease.ErrRouting or [ErrInUse]. After an
// lease.ErrUnavailable it may have been written.
func (m *Store) PutRouting(ctx context.Context, value []byte, was *schema.RoutingRecord, unused bool) (*schema.RoutingRecord, error) {
	ctx, cancel := m.cfg.WithDeadline(ctx)
	defer cancel()
	key, all := m.cfg.Keys.Routing(), etcdop.Prefix(m.cfg.Keys.UsersPrefix())
	t := &pb.TxnRequest{
		Compare: []*pb.Compare{etcdop.ModRevisionIs(key, was.Revision)},
		Success: []*pb.RequestOp{etcdop.Put(key, value, 0)},
		Failure: []*pb.RequestOp{etcdop.Read(etcdop.Key(key))},
	}
	if unused {
		t.Compare = append(t.Compare, etcdop.NoPutAfter(all, 0))
	}
	resp, err := m.cfg.KV.Txn(ctx, t)
	if err != nil {
		return nil, etcdop.Unavailable("write the routing record", err)
	}
	if resp.Succeeded {
		return m.noteRouting(&schema.RoutingRecord{Value: value, Revision: resp.Header.Revision}), nil
	}
	now := &schema.RoutingRecord{}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) == 1 {
		now = schema.DecodeRoutingRecord(kvs[0])
	}
	m.cfg.Replica.NoteRouting(now)
	if now.Revision == was.Revision {
		return nil, ErrInUse
	}
	return nil, schema.ErrRouting
}
