package etcdsim

import (
	"bytes"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// An Etcd is a simulated cluster with its keys and leases. [New] returns one.
type Etcd struct {
	// Audit is called with every revision before any client can read it, and with its cause.
	Audit func(*Etcd, Cause)
	// AuditRenewal is called with every renewal: the link through which it came, and its lease.
	AuditRenewal func(*Link, int64)
	// Backlog is the maximum time for which an expired lease waits for its revocation. etcd
	// revokes at most 1,000 leases per second.
	Backlog time.Duration

	mu      sync.Mutex
	rev     int64
	term    uint64
	keys    map[string]*mvccpb.KeyValue
	leases  map[int64]*lease
	deposed deposedLeader
	history []*mvccpb.Event // of all revisions
	changed chan struct{}   // closed by the next revision
}

// A Cause is the cause of a revision.
type Cause int

// The causes.
const (
	Written Cause = iota // a transaction, or a delete
	Revoked              // a client revoked a lease
	Expired              // a lease expired
)

type lease struct {
	ttl     time.Duration
	expiry  time.Time // it may be revoked after that
	renewed time.Time // when it was renewed or granted
}

// deposedLeader is a leader that was deposed and has not noticed it yet.
type deposedLeader struct {
	term   uint64
	expiry map[int64]time.Time // of its leases
	until  time.Time           // when it notices
}

// New returns an Etcd without keys.
func New() *Etcd {
	return &Etcd{
		rev: 1, term: 1, keys: map[string]*mvccpb.KeyValue{}, leases: map[int64]*lease{}, changed: make(chan struct{}),
	}
}

// revokeInterval is how often etcd revokes expired leases.
const revokeInterval = 500 * time.Millisecond

// Tick revokes expired leases. The leader of a real etcd does so twice a second.
func (e *Etcd) Tick() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for id, l := range e.leases {
		backlog := time.Duration(uint64(id) % uint64(e.Backlog+1))
		if time.Now().After(l.expiry.Add(backlog)) {
			e.revoke(id, Expired)
		}
	}
}

// Elect changes the leader. Every lease gets its full TTL again.
func (e *Etcd) Elect() { e.Depose(0) }

// Depose changes the leader, and the old leader does not notice for a time. Until then it
// answers some requests for remaining TTLs from its old state.
func (e *Etcd) Depose(unnoticed time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.deposed = deposedLeader{e.term, map[int64]time.Time{}, time.Now().Add(unnoticed)}
	for id, l := range e.leases {
		e.deposed.expiry[id] = l.expiry
	}
	e.term++
	for _, l := range e.leases {
		l.expiry = time.Now().Add(l.ttl)
	}
}

// Read returns the keys with a prefix, in order. Audit calls [Etcd.Locked] instead.
func (e *Etcd) Read(prefix string) []*mvccpb.KeyValue {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.Locked(prefix)
}

// Locked is [Etcd.Read] for Audit.
func (e *Etcd) Locked(prefix string) []*mvccpb.KeyValue {
	return e.match([]byte(prefix), append([]byte(prefix), 0xff))
}

// Renewed returns when a lease was granted or last renewed, or the zero time if it does not
// exist. It is for Audit.
func (e *Etcd) Renewed(id int64) time.Time {
	if l := e.leases[id]; l != nil {
		return l.renewed
	}
	return time.Time{}
}

// LastRenewal is [Etcd.Renewed] for callers other than Audit.
func (e *Etcd) LastRenewal(id int64) time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.Renewed(id)
}

// Revision returns the newest revision. It is for Audit.
func (e *Etcd) Revision() int64 { return e.rev }

// Leases returns the number of leases.
func (e *Etcd) Leases() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.leases)
}

// match returns the keys in a range, as requests of etcd describe it.
func (e *Etcd) match(from, end []byte) []*mvccpb.KeyValue {
	if len(end) == 0 {
		if kv := e.keys[string(from)]; kv != nil {
			return []*mvccpb.KeyValue{kv}
		}
		return nil
	}
	return inRange(e.keys, from, end)
}

func inRange(keys map[string]*mvccpb.KeyValue, from, end []byte) []*mvccpb.KeyValue {
	var out []*mvccpb.KeyValue
	for _, kv := range keys {
		if bytes.Compare(kv.Key, from) >= 0 && (len(end) == 1 && end[0] == 0 || bytes.Compare(kv.Key, end) < 0) {
			out = append(out, kv)
		}
	}
	slices.SortFunc(out, func(a, b *mvccpb.KeyValue) int { return bytes.Compare(a.Key, b.Key) })
	return out
}

// past returns the keys in a range as of a revision.
func (e *Etcd) past(from, end []byte, rev int64) []*mvccpb.KeyValue {
	then := map[string]*mvccpb.KeyValue{}
	for _, ev := range e.history {
		switch {
		case ev.Kv.ModRevision > rev:
		case ev.Type == mvccpb.Event_PUT:
			then[string(ev.Kv.Key)] = ev.Kv
		default:
			delete(then, string(ev.Kv.Key))
		}
	}
	if len(end) == 0 {
		end = append(slices.Clone(from), 0)
	}
	return inRange(then, from, end)
}

// write is a revision that is not committed yet.
type write struct {
	*Etcd
	cause  Cause
	events []*mvccpb.Event
}

func (w *write) put(r *pb.PutRequest) {
	kv := &mvccpb.KeyValue{
		Key: r.Key, Value: r.Value, Lease: r.Lease, CreateRevision: w.rev + 1, ModRevision: w.rev + 1, Version: 1,
	}
	if old := w.keys[string(r.Key)]; old != nil {
		kv.CreateRevision, kv.Version = old.CreateRevision, old.Version+1
	}
	w.keys[string(r.Key)] = kv
	w.events = append(w.events, &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: kv})
}

func (w *write) delete(from, end []byte) []*mvccpb.KeyValue {
	deleted := w.match(from, end)
	for _, kv := range deleted {
		delete(w.keys, string(kv.Key))
		w.events = append(w.events, &mvccpb.Event{
			Type: mvccpb.Event_DELETE, Kv: &mvccpb.KeyValue{Key: kv.Key, ModRevision: w.rev + 1},
		})
	}
	return deleted
}

// commit makes the write the newest revision, if it has changed anything.
func (w *write) commit() {
	if len(w.events) == 0 {
		return
	}
	w.rev++
	w.history = append(w.history, w.events...)
	if w.Audit != nil {
		w.Audit(w.Etcd, w.cause)
	}
	close(w.changed)
	w.changed = make(chan struct{})
}

// revoke ends a lease and its keys, in one revision.
func (e *Etcd) revoke(id int64, why Cause) {
	delete(e.leases, id)
	w := &write{Etcd: e, cause: why}
	for _, kv := range inRange(e.keys, nil, []byte{0}) {
		if kv.Lease == id {
			w.delete(kv.Key, nil)
		}
	}
	w.commit()
}

func (e *Etcd) header() *pb.ResponseHeader {
	return &pb.ResponseHeader{Revision: e.rev, RaftTerm: e.term}
}

// read answers a range request, alone or within a transaction.
func (e *Etcd) read(r *pb.RangeRequest) (*pb.RangeResponse, error) {
	var kvs []*mvccpb.KeyValue
	switch {
	case r.Revision > e.rev:
		return nil, rpctypes.ErrGRPCFutureRev
	case r.Revision > 0:
		kvs = e.past(r.Key, r.RangeEnd, r.Revision)
	default:
		kvs = e.match(r.Key, r.RangeEnd)
	}
	resp := &pb.RangeResponse{Header: e.header(), Count: int64(len(kvs))}
	if n := int(r.Limit); n > 0 && len(kvs) > n {
		kvs, resp.More = kvs[:n], true
	}
	if !r.CountOnly {
		resp.Kvs = kvs
	}
	return resp, nil
}
