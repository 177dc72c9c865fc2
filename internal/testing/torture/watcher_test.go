//go:build linux

package torture

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A watcher follows everything below the prefix from the first revision, with its own
// clients that no fault affects, and checks each revision against the rules. It reads keys
// and values as docs/ARCHITECTURE.md describes them, and shares no code with the service.
//
// It also measures when revisions were committed: it records when it received each, and
// reads the newest revision continuously.
type watcher struct {
	etcd      *cluster
	prefix    string
	revisions *revisionChecker

	mu       sync.Mutex
	last     int64 // the last revision that was applied
	readings []reading
	terms    []termChange // of raft
	leases   []leaseReading
	broken   string // why it cannot continue
}

// A reading is a linearizable read of etcd's newest revision.
type reading struct {
	sentAt, receivedAt time.Duration
	rev                int64
}

// A termChange is the first response with a raft term.
type termChange struct {
	at   time.Duration
	term uint64
}

// A leaseReading is a read of how long a stream's lease remains.
type leaseReading struct {
	stream             *observedStream
	sentAt, receivedAt time.Duration
	expires            time.Duration // it expires before this time, unless it is renewed after sentAt
}

// run follows until ctx ends.
func (w *watcher) run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { w.read(ctx) })
	all.Go(func() { w.readLeases(ctx) })
	for member := 0; ctx.Err() == nil; member = (member + 1) % members {
		w.follow(ctx, member)
	}
	all.Wait()
}

// follow watches through one member until that is silent for a second.
func (w *watcher) follow(ctx context.Context, member int) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	client := w.etcd.clients[member]
	events := client.Watch(ctx, w.prefix+"/", clientv3.WithPrefix(), clientv3.WithRev(max(w.lastRevision(), 1)))
	silence := time.NewTimer(time.Second)
	progress := time.NewTicker(250 * time.Millisecond)
	defer progress.Stop()
	for {
		select {
		case resp, open := <-events:
			if !open || resp.Err() != nil {
				if resp.CompactRevision > w.lastRevision() {
					w.markBroken(fmt.Sprintf("revision %d was compacted before it was checked", w.lastRevision()+1))
				}
				wait(ctx, 20*time.Millisecond)
				return
			}
			silence.Reset(time.Second)
			w.take(resp)
		case <-progress.C:
			_ = client.RequestProgress(ctx) // an answer shows that the member works
		case <-silence.C:
			return
		}
	}
}

// take applies the revisions of a response.
func (w *watcher) take(resp clientv3.WatchResponse) {
	seen := now()
	w.mu.Lock()
	defer w.mu.Unlock()
	for events := resp.Events; len(events) > 0; {
		rev, n := events[0].Kv.ModRevision, 1
		for n < len(events) && events[n].Kv.ModRevision == rev {
			n++
		}
		if rev > w.last { // else another member has sent it already
			w.revisions.apply(rev, seen, eventsOf(events[:n]))
			w.last = rev
		}
		events = events[n:]
	}
	if resp.IsProgressNotify() {
		w.last = max(w.last, resp.Header.Revision)
	}
	w.noteTerm(resp.Header.RaftTerm)
}

func eventsOf(events []*clientv3.Event) []event {
	out := make([]event, len(events))
	for i, e := range events {
		out[i] = event{string(e.Kv.Key), e.Kv.Value, e.Kv.Lease, e.Type == mvccpb.Event_PUT}
	}
	return out
}

// noteTerm notes a term. The caller holds the lock.
func (w *watcher) noteTerm(term uint64) {
	if n := len(w.terms); n == 0 || w.terms[n-1].term < term {
		w.terms = append(w.terms, termChange{now(), term})
	}
}

// read reads the newest revision continuously.
func (w *watcher) read(ctx context.Context) {
	for member := 0; !wait(ctx, 10*time.Millisecond); {
		call, cancel := context.WithTimeout(ctx, 700*time.Millisecond)
		sentAt := now()
		resp, err := w.etcd.clients[member].Get(call, w.prefix+"/none")
		cancel()
		if err != nil {
			member = (member + 1) % members
			continue
		}
		w.mu.Lock()
		w.readings = append(w.readings, reading{sentAt, now(), resp.Header.Revision})
		w.noteTerm(resp.Header.RaftTerm)
		w.mu.Unlock()
	}
}

// readLeases continuously reads how long the lease of some stream remains.
func (w *watcher) readLeases(ctx context.Context) {
	for member := 0; !wait(ctx, 10*time.Millisecond); {
		r := leaseReading{stream: w.someStream(), sentAt: now()}
		if r.stream == nil {
			continue
		}
		call, cancel := context.WithTimeout(ctx, 700*time.Millisecond)
		resp, err := w.etcd.clients[member].TimeToLive(call, clientv3.LeaseID(r.stream.lease))
		cancel()
		if err != nil {
			member = (member + 1) % members
			continue
		}
		if resp.TTL < 0 || resp.TTL > resp.GrantedTTL { // it is gone, or no leader counts its time yet
			continue
		}
		r.receivedAt = now()
		r.expires = r.receivedAt + time.Duration(resp.TTL+1)*time.Second // etcd truncates to seconds
		w.mu.Lock()
		w.leases = append(w.leases, r)
		w.mu.Unlock()
	}
}

// someStream returns a stream that exists, or nil. The order of a map is random.
func (w *watcher) someStream() *observedStream {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.revisions.leases {
		return l
	}
	return nil
}

func (w *watcher) markBroken(why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = why
}

func (w *watcher) lastRevision() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// awaitLatest waits until the newest revision of etcd is applied.
func (w *watcher) awaitLatest(ctx context.Context) error {
	var rev int64
	err := retry(ctx, func(call context.Context) error {
		resp, err := w.etcd.all.Get(call, w.prefix+"/none")
		if err == nil {
			rev = resp.Header.Revision
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("read the newest revision: %w", err)
	}
	for until := now() + patience; w.lastRevision() < rev; {
		if now() > until || wait(ctx, 10*time.Millisecond) {
			return fmt.Errorf("the watch is at revision %d, and etcd at %d", w.lastRevision(), rev)
		}
	}
	return nil
}

// record returns what was recorded since the last call, which is one round. No request may
// be under way.
func (w *watcher) record() *record {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := &record{
		streams: w.revisions.streams, violations: w.revisions.violations, readings: w.readings, terms: w.terms,
		revisions: w.revisions.revisions, rules: w.revisions.ruleChanges, leases: w.leases, states: w.revisions.states,
	}
	if w.broken != "" {
		r.violations = append(r.violations, w.broken)
	}
	w.revisions.startRound()
	w.readings, w.leases = nil, nil
	w.terms = w.terms[len(w.terms)-1:]
	return r
}
