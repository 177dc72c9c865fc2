// Package leasestatus asks etcd's leader which leases have expired, and how long the others
// last.
package leasestatus

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/schema"
	"streamcount/lease/internal/ttlmap"
)

// A Status is the status of a lease as etcd's leader reported it. The zero Status means
// that there is no report.
type Status struct {
	Lease     int64
	QueriedAt time.Time     // before the request was sent
	Remaining time.Duration // minimum remaining TTL at that time, in whole seconds
	Expired   bool          // it had expired, or did not exist
	term      uint64        // raft term of the member that answered
}

// NotExpiredBefore returns a time before which the lease cannot expire; zero if there is
// no report.
func (s Status) NotExpiredBefore() time.Time {
	if s.QueriedAt.IsZero() {
		return time.Time{}
	}
	return s.QueriedAt.Add(s.Remaining)
}

// A Reader reads the status of leases.
type Reader struct {
	kv      pb.KVClient
	lease   pb.LeaseClient
	keys    schema.Keys
	timeout time.Duration // of a query

	cache   *ttlmap.Map[string, []Status] // by user
	queries singleflight.Group            // shares concurrent queries of the same leases
	term    termReader
}

// New returns a Reader.
func New(kv pb.KVClient, lease pb.LeaseClient, keys schema.Keys, timeout time.Duration) *Reader {
	r := &Reader{kv: kv, lease: lease, keys: keys, timeout: timeout, cache: ttlmap.New[string, []Status](10*time.Second, 1<<14)}
	r.term.query = r.readTerm
	return r
}

// maxAge is how long a cached status is used.
const maxAge = time.Second

// OfUser returns the leader's report on leases of user, which were read at that raft term.
// It leaves out leases on which the leader does not report in time. Reports are cached
// briefly, and concurrent callers share a query, so that rejected clients cannot turn it
// into load. A cached report is used only while it proves that the lease is alive.
func (r *Reader) OfUser(ctx context.Context, user string, term uint64, leases []int64) map[int64]Status {
	statuses := make(map[int64]Status, len(leases))
	known, _ := r.cache.Get(user)
	now := time.Now()
	for _, s := range known {
		if now.Sub(s.QueriedAt) < maxAge && now.Before(s.NotExpiredBefore()) {
			statuses[s.Lease] = s
		}
	}
	var ids []int64
	for _, id := range leases {
		if _, ok := statuses[id]; !ok {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return statuses
	}
	query := r.queries.DoChan(fmt.Sprint(term, ids), func() (any, error) {
		// The deadline of the first caller does not apply to the others.
		ctx, cancel := context.WithTimeout(context.Background(), r.timeout)
		defer cancel()
		return r.Query(ctx, term, ids), nil
	})
	select {
	case v := <-query:
		maps.Copy(statuses, v.Val.(map[int64]Status))
	case <-ctx.Done():
		return statuses
	}
	r.cache.Put(user, slices.Collect(maps.Values(statuses)))
	return statuses
}

// Invalidate removes the cached reports on the leases of user.
func (r *Reader) Invalidate(user string) { r.cache.Remove(user) }

// Query queries the leader for the status of each lease, and leaves out those that it
// cannot determine. A leader that was paused or deposed may report leases as expired
// that its successor has renewed. So an expiry counts only if the leader had one raft
// term that a quorum confirmed before and after. before is the term at which the user's
// keys were read; 0 if no expiry may count.
func (r *Reader) Query(ctx context.Context, before uint64, ids []int64) map[int64]Status {
	answers := make([]Status, len(ids))
	var g errgroup.Group
	g.SetLimit(8)
	for i, id := range ids {
		g.Go(func() error {
			answers[i] = r.QueryTTL(ctx, id)
			return nil
		})
	}
	_ = g.Wait() // the functions return nil
	statuses := make(map[int64]Status, len(ids))
	anyExpired := false
	for _, s := range answers {
		if s.Lease != 0 {
			statuses[s.Lease] = s
			anyExpired = anyExpired || s.Expired
		}
	}
	if !anyExpired {
		return statuses
	}
	after, err := r.term.read(ctx)
	sure := err == nil && after == before
	maps.DeleteFunc(statuses, func(_ int64, s Status) bool { return s.Expired && (!sure || s.term != after) })
	return statuses
}

// QueryTTL queries the status of one lease, without regard to the raft term. It returns
// the zero Status if etcd does not answer. etcd truncates the remaining TTL to whole
// seconds, so 0 may be before or after the expiry. A negative value means that the lease
// has expired or does not exist.
func (r *Reader) QueryTTL(ctx context.Context, id int64) Status {
	asked := time.Now()
	resp, err := r.lease.LeaseTimeToLive(ctx, &pb.LeaseTimeToLiveRequest{ID: id})
	if err != nil {
		return Status{}
	}
	return Status{
		Lease:     id,
		QueriedAt: asked,
		Remaining: max(time.Duration(resp.TTL), 0) * time.Second,
		Expired:   resp.TTL < 0,
		term:      resp.Header.GetRaftTerm(),
	}
}

// termReader reads the raft term. Concurrent callers share a read.
type termReader struct {
	query func(context.Context) (uint64, error)

	mu            sync.Mutex
	running, next *termRead
}

type termRead struct {
	done chan struct{}
	term uint64
	err  error
}

// read returns the raft term at a linearizable read that begins after the call. A read
// that is already running may have been answered before the call, so callers that arrive
// during a read share the next one.
func (t *termReader) read(ctx context.Context) (uint64, error) {
	t.mu.Lock()
	mine := t.next
	switch {
	case t.running == nil:
		mine = &termRead{done: make(chan struct{})}
		t.running = mine
		go t.run(mine)
	case mine == nil:
		mine = &termRead{done: make(chan struct{})}
		t.next = mine
	}
	t.mu.Unlock()
	select {
	case <-mine.done:
		return mine.term, mine.err
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

func (t *termReader) run(r *termRead) {
	for r != nil {
		r.term, r.err = t.query(context.Background())
		close(r.done)
		t.mu.Lock()
		t.running, t.next = t.next, nil
		r = t.running
		t.mu.Unlock()
	}
}

// readTerm returns the raft term at a linearizable read.
func (r *Reader) readTerm(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	resp, err := r.kv.Range(ctx, etcdop.Key(r.keys.UsersPrefix()).Request()) // there is no such key
	if err != nil {
		return 0, etcdop.Unavailable("read the raft term", err)
	}
	return resp.Header.RaftTerm, nil
}
