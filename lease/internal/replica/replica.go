package replica

import (
	"context"
	"hash/maphash"
	"log/slog"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/time/rate"

	"streamcount/lease/internal/bars"
	"streamcount/lease/internal/monotonic"
	"streamcount/lease/internal/schema"
	"streamcount/lease/internal/ttlmap"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// A Replica is a node's in-memory copy of the streams and the rules in etcd,
// maintained by list and watch. It serves lists, statistics and heartbeats without
// a request to etcd, and it supplies the snapshots that starts decide on. A start's
// transaction checks its snapshot, so a stale replica never admits too many streams.
// Every other use requires that the replica is current: that its list is complete
// and that its watch made progress within [MaxProgressAge].
//
// A reader loads the applied revision before it reads a user's keys. The keys may be
// newer than that revision, but never older. A transaction requires that no key of
// the user was put after the revision, so a revision that is too low is safe.
type Replica struct {
	cfg     Config
	kv      pb.KVClient
	watcher clientv3.Watcher
	keys    schema.Keys

	seed    maphash.Seed
	stripes [256]stripe
	counts  usageCounts
	rules   *Rules
	routing atomic.Pointer[schema.RoutingRecord] // the newest known put

	endings      *ttlmap.Map[streamid.Nonce, schema.Tombstone] // how streams ended
	reportedGone *ttlmap.Map[streamid.Nonce, struct{}]         // streams reported as ended for an unknown reason
	renewalHints *ttlmap.Map[streamid.Nonce, time.Time]        // renewals of streams that are not in the replica yet
	bars         *bars.Bars                                    // sessions that may not start streams implicitly
	expiries     atomic.Int64                                  // streams that ended without a tombstone

	applied      atomic.Int64 // every change up to this revision has been applied
	waiters      revisionWaiters
	lastOwnWrite atomic.Int64 // revision of this node's last write to any user
	lastProgress atomic.Int64 // monotonic time of the request for the last proof of progress; 0 before the first list
	progressed   broadcast    // wakes the waiters for progress
	wantProgress chan struct{}
	beacons      *beaconState
	barrier      barrier
	lists        atomic.Int64          // completed lists
	lastError    atomic.Pointer[error] // why the last list or watch ended; nil if none has

	// Only run uses the following fields.
	listGeneration uint32
	watchCount     int          // watches created
	mark           *historyMark // nil for an empty etcd
	watchFrom      int64        // first revision of the next watch
	resurrected    int          // deleted keys that the current list found again
	changes        []Change     // scratch space of applyRevision
}

// Config configures a Replica. The observer and each function may be nil.
type Config struct {
	Timeout    time.Duration // of each request to etcd
	Log        *slog.Logger
	EndingsTTL time.Duration // minimum time for which reasons of ended streams are cached
	Bars       *bars.Bars    // receives the bars of tombstones; nil means that only this replica has them

	Observer    Observer
	OnSecrets   func(value []byte) // receives the record of the secrets that sign stream ids
	OnRestore   func()             // called when etcd has lost acknowledged writes
	BeaconLease func() int64       // returns the lease of the beacon key; 0 to put none. nil puts it without a lease
}

// An Observer receives the changes that a replica applies, in the order of
// their revisions.
type Observer interface {
	// StreamsChanged receives the changes of one revision. It must not keep the slice.
	StreamsChanged(rev int64, changes []Change)
	// Relisted reports that the replica was rebuilt from a list at rev. Changes since
	// the last call of StreamsChanged were not observed.
	Relisted(rev int64)
	// StreamCount receives the number of a user's keys whenever it increases.
	StreamCount(user string, streams int)
}

// A Change is the start or the end of a stream.
type Change struct {
	User    string
	Streams int // number of the user's keys after it
	Ended   bool
	Reason  policy.Reason       // why the stream ended
	By      *schema.Replacement // what the stream was ended for; nil if nothing
	Limits  []string            // as in a [schema.Tombstone]
	ID      streamid.ID
	Record  []byte // as stored; must not be changed
}

type noObserver struct{}

func (noObserver) StreamsChanged(int64, []Change) {}
func (noObserver) Relisted(int64)                 {}
func (noObserver) StreamCount(string, int)        {}

// MaxProgressAge is the maximum age of the last proof of progress while the replica
// is current.
const MaxProgressAge = 3 * time.Second

// New returns a Replica of the keys k. It is not current before Run has listed them.
func New(kv pb.KVClient, watcher clientv3.Watcher, k schema.Keys, cfg Config) *Replica {
	if cfg.Observer == nil {
		cfg.Observer = noObserver{}
	}
	if cfg.OnSecrets == nil {
		cfg.OnSecrets = func([]byte) {}
	}
	if cfg.Bars == nil {
		cfg.Bars = bars.New(0)
	}
	if cfg.OnRestore == nil {
		cfg.OnRestore = func() {}
	}
	r := &Replica{
		kv: kv, watcher: watcher, keys: k, cfg: cfg,
		seed:         maphash.MakeSeed(),
		rules:        newRules(cfg.Log),
		barrier:      barrier{limit: rate.NewLimiter(barrierRate, barrierBurst)},
		endings:      ttlmap.New[streamid.Nonce, schema.Tombstone](cfg.EndingsTTL, 1<<18),
		reportedGone: ttlmap.New[streamid.Nonce, struct{}](cfg.EndingsTTL, 1<<17),
		renewalHints: ttlmap.New[streamid.Nonce, time.Time](10*time.Second, 1<<17),
		bars:         cfg.Bars,
		beacons:      newBeaconState(),
		wantProgress: make(chan struct{}, 1),
	}
	for i := range r.stripes {
		r.stripes[i].users = make(map[string]*Entry)
	}
	r.routing.Store(&schema.RoutingRecord{})
	r.counts.init()
	return r
}

// Current reports whether the list is complete and the watch makes progress.
func (r *Replica) Current() bool {
	last := monotonic.Time(r.lastProgress.Load())
	return last != 0 && time.Since(last.Time()) < MaxProgressAge
}

// ProgressTime returns the time of the request for the last proof of progress, or
// zero if the replica is not listed.
func (r *Replica) ProgressTime() time.Time { return monotonic.Time(r.lastProgress.Load()).Time() }

// AppliedRevision returns the revision up to which every change has been applied.
func (r *Replica) AppliedRevision() int64 { return r.applied.Load() }

// Rules returns the rules, which change with those in etcd.
func (r *Replica) Rules() *Rules { return r.rules }

// UserEntries returns the user's keys ordered by start, a revision that is not newer
// than they are, and whether the replica is current.
func (r *Replica) UserEntries(user string) (entries []schema.Entry, rev int64, current bool) {
	rev = r.applied.Load() // before the keys
	sh := r.stripeOf(user)
	sh.RLock()
	for at := sh.users[user]; at != nil; at = at.next {
		entries = append(entries, at.SlotEntry(r.keys, user))
	}
	sh.RUnlock()
	schema.SortEntries(entries)
	return entries, rev, r.Current()
}

// Lookup returns the entry of a stream, or nil if the replica does not contain it,
// and whether the replica is current.
func (r *Replica) Lookup(user string, who streamid.ID) (*Entry, bool) {
	sh := r.stripeOf(user)
	sh.RLock()
	defer sh.RUnlock()
	for at := sh.users[user]; at != nil; at = at.next {
		if at.nonce == who.Nonce && at.lease == who.Lease && int(at.slot) == int(who.Slot) {
			return at, r.Current()
		}
	}
	return nil, r.Current()
}

// Ending returns how a stream ended, if that is cached.
func (r *Replica) Ending(n streamid.Nonce) (schema.Tombstone, bool) { return r.endings.Get(n) }

// Bars returns the sessions that may not start streams implicitly.
func (r *Replica) Bars() *bars.Bars { return r.bars }

// LookupSession returns the user's stream with the session, as of the last applied change, or
// nil; the number of the user's streams; and whether the replica is current.
func (r *Replica) LookupSession(user, session string) (found *Entry, streams int, current bool) {
	sh := r.stripeOf(user)
	sh.RLock()
	defer sh.RUnlock()
	for at := sh.users[user]; at != nil; at = at.next {
		streams++
		if found == nil && at.slot >= 0 && at.isStream() && schema.DecodeHead(at.Value).Session == session {
			found = at
		}
	}
	return found, streams, r.Current()
}

// MarkReportedGone records that a response has reported a stream as ended for an unknown
// reason. From then on the replica's entry of the stream is not sufficient:
// heartbeats check etcd, because the user may have migrated away and back.
func (r *Replica) MarkReportedGone(n streamid.Nonce) { r.reportedGone.Put(n, struct{}{}) }

// WasReportedGone reports whether MarkReportedGone was called for the stream.
func (r *Replica) WasReportedGone(n streamid.Nonce) bool {
	_, gone := r.reportedGone.Get(n)
	return gone
}

// MayHaveEnded reports whether the stream has ended or was reported as ended. The
// caller then has to check etcd.
func (r *Replica) MayHaveEnded(n streamid.Nonce) bool {
	if _, ended := r.endings.Get(n); ended {
		return true
	}
	return r.WasReportedGone(n)
}

// RecordOwnEnding records how this node ended a stream of user. If etcd accepted no
// tombstone, the watch may have delivered the deletion before this call and counted
// it as an expiry; the count is then corrected.
func (r *Replica) RecordOwnEnding(user string, g schema.Tombstone) {
	old, known := r.endings.Get(g.Nonce)
	if known && old.Reason == policy.ReasonExpired && g.Reason != policy.ReasonExpired {
		r.expiries.Add(-1)
	}
	r.endings.Put(g.Nonce, g)
	if !known || old.Intended || old.Reason == policy.ReasonExpired { // otherwise a later stream may have lifted the bar
		r.setBar(user, g)
	}
}

// setBar sets the bar of a tombstone of user, unless its session has started another stream.
func (r *Replica) setBar(user string, g schema.Tombstone) {
	if g.Bar == (schema.BarKey{}) {
		return
	}
	sh := r.stripeOf(user)
	sh.RLock() // so that no stream starts until the bar is set
	defer sh.RUnlock()
	for at := sh.users[user]; at != nil; at = at.next {
		if at.isStream() && at.nonce != g.Nonce && schema.BarKeyOf(user, schema.DecodeHead(at.Value).Session) == g.Bar {
			return
		}
	}
	r.bars.Set(g)
}

// RecordIntendedEnding is recordOwnEnding for a stream that this node has not ended
// yet. The stream may exist until then, so the ending does not answer calls.
func (r *Replica) RecordIntendedEnding(g schema.Tombstone) {
	if _, known := r.endings.Get(g.Nonce); !known {
		g.Intended = true
		r.endings.Put(g.Nonce, g)
	}
}

// Expiries returns how many streams have expired since the node started.
func (r *Replica) Expiries() int64 { return r.expiries.Load() }

// AddRenewalHint records when this node renewed the lease of a stream that may not
// be in the replica yet. A hint applies to one stream only. For the next stream on
// the same lease it would be wrong: the start of that stream may have an unknown
// outcome, and its lease is then revoked.
func (r *Replica) AddRenewalHint(user string, who streamid.ID, renewed time.Time) {
	r.renewalHints.Put(who.Nonce, renewed)
	if s, _ := r.Lookup(user, who); s != nil {
		s.RecordRenewal(renewed)
	}
}

// RecordOwnWrite records the revision of a write of this node.
func (r *Replica) RecordOwnWrite(rev int64) {
	for {
		old := r.lastOwnWrite.Load()
		if old >= rev || r.lastOwnWrite.CompareAndSwap(old, rev) {
			return
		}
	}
}

// WaitOwnWrites waits until the replica contains every write of this node. It returns
// false if ctx ends first, and at once if the replica is not current.
func (r *Replica) WaitOwnWrites(ctx context.Context) bool {
	return r.WaitApplied(ctx, r.lastOwnWrite.Load())
}

// WaitApplied waits until every change up to revision rev is applied. It returns
// false if ctx ends first, and at once if the replica is not current.
func (r *Replica) WaitApplied(ctx context.Context, rev int64) bool {
	if !r.Current() {
		return false
	}
	if r.applied.Load() < rev {
		select {
		case <-r.waiters.wait(rev, &r.applied):
		case <-ctx.Done():
			return false
		}
	}
	return r.Current()
}

// advance raises the applied revision to rev.
func (r *Replica) advance(rev int64) {
	if rev > r.applied.Load() {
		r.applied.Store(rev)
		r.waiters.release(rev)
	}
}
