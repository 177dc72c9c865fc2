package bulkend

import (
	"context"
	"errors"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"streamcount/internal/retry"
	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/replica"
	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// A Store finds and ends the streams of one etcd cluster. It is safe for concurrent use.
type Store struct {
	cfg   Config
	slots chan struct{} // semaphore of ends in progress, of all calls together
}

// Config configures a [Store].
type Config struct {
	KV           pb.KVClient
	Keys         schema.Keys
	Replica      *replica.Replica
	Waiting      func() int64                                                // returns the number of writes that wait for a batch
	WithDeadline func(context.Context) (context.Context, context.CancelFunc) // bounds a write
	// Locate returns the key of a stream, or lease.ErrEnded.
	Locate func(ctx context.Context, user string, id streamid.ID) (schema.Entry, error)
	// End ends a stream by its put, with the reason [policy.ReasonRemoved]. It returns
	// lease.ErrEnded if the put is not the current one. After any other error the outcome is
	// unknown.
	End      func(ctx context.Context, user string, e schema.Entry) error
	Count    func(error)                              // counts the outcome of an end
	StreamID func(user string, e schema.Entry) string // returns the id of a stream
}

const (
	// maxInFlight is the number of streams that are being ended at once. Their writes share
	// about one batch, so a start waits for one batch more than it would otherwise.
	maxInFlight = 128
	// maxWaiting is the number of waiting writes above which an end waits: then writes of other
	// calls are waiting too.
	maxWaiting = 2 * maxInFlight
	// maxYield bounds that wait, so that a busy node makes progress.
	maxYield   = 50 * time.Millisecond
	yieldStep  = 5 * time.Millisecond
	retryDelay = 20 * time.Millisecond
)

// New returns a Store.
func New(cfg Config) *Store { return &Store{cfg: cfg, slots: make(chan struct{}, maxInFlight)} }

// A Match is a stream that fulfils the conditions of a [Query].
type Match struct {
	User  string
	entry *replica.Entry
}

// ID returns the identity of the stream.
func (m Match) ID() streamid.ID { return m.entry.StreamID() }

// Found are the streams that fulfil conditions.
type Found struct {
	Matches  []Match // those of a user one after the other
	Complete bool    // all streams were compared with the conditions
}

// Find returns the streams that fulfil all conditions. They include every stream whose start
// was answered before the call, unless it has ended. Find stops at until. It returns an
// lease.ErrUnavailable if the replica of this node is not current.
func (s *Store) Find(ctx context.Context, until time.Time, where []policy.Condition) (Found, error) {
	if !s.waitForReplica(ctx) {
		return Found{}, etcdop.Unavailable("find streams", errStale)
	}
	found := Found{Complete: true}
	parts := necessaryParts(where)
	seen := 0
	s.cfg.Replica.EachStream(func(user string, e *replica.Entry) bool {
		if seen++; seen%checkEvery == 0 && (ctx.Err() != nil || !time.Now().Before(until)) {
			found.Complete = false
			return false
		}
		if !parts.in(e.Value) {
			return true
		}
		record := schema.DecodeRecord(e.Value)
		if policy.Selects(where, record.PolicyAttributes()) {
			found.Matches = append(found.Matches, Match{user, e})
		}
		return true
	})
	return found, nil
}

// waitForReplica waits until the replica contains what a linearizable read returns.
func (s *Store) waitForReplica(ctx context.Context) bool {
	ctx, cancel := s.cfg.WithDeadline(ctx)
	defer cancel()
	for !s.cfg.Replica.WaitForRead(ctx) {
		if retry.Sleep(ctx, retryDelay) != nil {
			return false
		}
	}
	return true
}

// checkEvery is the number of streams after which Find checks the time.
const checkEvery = 1024

var errStale = errors.New("this node is still reading the streams from etcd: try again in a moment, or use another node")

// Describe returns a stream that was found.
func (s *Store) Describe(m Match) Stream {
	r := schema.DecodeRecord(m.entry.Value)
	out := Stream{
		User: m.User, ID: s.cfg.StreamID(m.User, m.entry.SlotEntry(s.cfg.Keys, m.User)),
		StartedAt: r.StartTime(), Region: r.Region,
	}
	if r.Content != nil {
		out.ContentID, out.ContentTitle = r.Content.ID, r.Content.Title
	}
	return out
}

// End ends a stream of this etcd cluster by its put, so that a newer stream in its slot is
// not ended. It repeats the write until the outcome is known or ctx ends. It returns
// lease.ErrEnded if the stream has ended already, or has moved to another cluster. After any
// other error the outcome is unknown.
func (s *Store) End(ctx context.Context, m Match) error {
	return s.end(ctx, m.User, func(context.Context) (schema.Entry, error) {
		return m.entry.SlotEntry(s.cfg.Keys, m.User), nil
	})
}

// EndMoved is [Store.End] for a stream that was found on another etcd cluster.
func (s *Store) EndMoved(ctx context.Context, m Match) error {
	return s.end(ctx, m.User, func(ctx context.Context) (schema.Entry, error) {
		return s.cfg.Locate(ctx, m.User, m.ID())
	})
}

func (s *Store) end(ctx context.Context, user string, find func(context.Context) (schema.Entry, error)) error {
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return etcdop.Unavailable("end a stream of "+user, context.Cause(ctx))
	}
	s.yield(ctx)
	for {
		err := s.tryEnd(ctx, user, find)
		if err == nil || errors.Is(err, schema.ErrEnded) {
			s.cfg.Count(err)
			return err
		}
		if retry.Sleep(ctx, retryDelay) != nil {
			err = etcdop.Unavailable("end a stream of "+user, err)
			s.cfg.Count(err)
			return err
		}
	}
}

func (s *Store) tryEnd(ctx context.Context, user string, find func(context.Context) (schema.Entry, error)) error {
	ctx, cancel := s.cfg.WithDeadline(ctx)
	defer cancel()
	e, err := find(ctx)
	if err != nil {
		return err
	}
	return s.cfg.End(ctx, user, e)
}

// yield waits while many writes of other calls are waiting.
func (s *Store) yield(ctx context.Context) {
	for began := time.Now(); s.cfg.Waiting() > maxWaiting && time.Since(began) < maxYield; {
		if retry.Sleep(ctx, yieldStep) != nil {
			return
		}
	}
}

// DepartedUsers returns users who have left this etcd cluster and may not have arrived on
// another one. It reads etcd, and returns an lease.ErrUnavailable.
func (s *Store) DepartedUsers(ctx context.Context) ([]string, error) {
	ctx, cancel := s.cfg.WithDeadline(ctx)
	defer cancel()
	prefix := s.cfg.Keys.DepartedPrefix()
	ask := etcdop.Prefix(prefix).Request()
	ask.Limit, ask.KeysOnly = pageSize, true
	var users []string
	for {
		resp, err := s.cfg.KV.Range(ctx, ask)
		if err != nil {
			return nil, etcdop.Unavailable("list users who move", err)
		}
		for _, kv := range resp.Kvs {
			ask.Key = append(kv.Key, 0)
			if user, ok := schema.UnescapeUserID(strings.TrimPrefix(string(kv.Key), prefix)); ok {
				users = append(users, user)
			}
		}
		if !resp.More {
			return users, nil
		}
	}
}

const pageSize = 500
