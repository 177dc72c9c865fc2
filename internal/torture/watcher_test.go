package torture

import (
	"context"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// A watcher follows everything below the prefix, revision by revision, from the
// first on, through clients of its own past all faults, and holds it against the
// rules. It knows the keys and their values as docs/ARCHITECTURE.md describes
// them, and shares no code with the service.
//
// It also measures when revisions were committed: it knows when it saw each, and
// asks etcd all the time for the newest.
type watcher struct {
	etcd   *cluster
	prefix string
	book   *book

	mu       sync.Mutex
	last     int64 // revision up to which everything is in the book
	readings []reading
	terms    []change // of raft
	broken   string   // why it cannot go on
}

// A reading is a linearizable read of etcd's newest revision.
type reading struct {
	asked, told time.Duration
	rev         int64
}

// A change is the first that was heard of a raft term.
type change struct {
	at   time.Duration
	term uint64
}

// run follows until ctx ends.
func (w *watcher) run(ctx context.Context) {
	var all sync.WaitGroup
	all.Go(func() { w.read(ctx) })
	for member := 0; ctx.Err() == nil; member = (member + 1) % members {
		w.follow(ctx, member)
	}
	all.Wait()
}

// follow watches through one member until it says nothing for a while.
func (w *watcher) follow(ctx context.Context, member int) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	client := w.etcd.clients[member]
	events := client.Watch(ctx, w.prefix+"/", clientv3.WithPrefix(), clientv3.WithRev(max(w.done(), 1)))
	heard := time.NewTimer(time.Second)
	ask := time.NewTicker(250 * time.Millisecond)
	defer ask.Stop()
	for {
		select {
		case resp, open := <-events:
			if !open || resp.Err() != nil {
				if resp.CompactRevision > w.done() {
					w.fail(fmt.Sprintf("revision %d was compacted before it was looked at", w.done()+1))
				}
				wait(ctx, 20*time.Millisecond)
				return
			}
			heard.Reset(time.Second)
			w.take(resp)
		case <-ask.C:
			_ = client.RequestProgress(ctx) // silence tells
		case <-heard.C:
			return
		}
	}
}

// take puts an answer's revisions into the book.
func (w *watcher) take(resp clientv3.WatchResponse) {
	seen := now()
	w.mu.Lock()
	defer w.mu.Unlock()
	for events := resp.Events; len(events) > 0; {
		rev, n := events[0].Kv.ModRevision, 1
		for n < len(events) && events[n].Kv.ModRevision == rev {
			n++
		}
		if rev > w.last { // else it was seen through another member
			w.book.enter(rev, seen, eventsOf(events[:n]))
			w.last = rev
		}
		events = events[n:]
	}
	if resp.IsProgressNotify() {
		w.last = max(w.last, resp.Header.Revision)
	}
	w.heardTerm(resp.Header.RaftTerm)
}

func eventsOf(events []*clientv3.Event) []event {
	out := make([]event, len(events))
	for i, e := range events {
		out[i] = event{string(e.Kv.Key), e.Kv.Value, e.Kv.Lease, e.Type == mvccpb.Event_PUT}
	}
	return out
}

// heardTerm notes a term. The caller holds the lock.
func (w *watcher) heardTerm(term uint64) {
	if n := len(w.terms); n == 0 || w.terms[n-1].term < term {
		w.terms = append(w.terms, change{now(), term})
	}
}

// read asks for the newest revision all the time.
func (w *watcher) read(ctx context.Context) {
	for member := 0; !wait(ctx, 10*time.Millisecond); {
		call, cancel := context.WithTimeout(ctx, 700*time.Millisecond)
		asked := now()
		resp, err := w.etcd.clients[member].Get(call, w.prefix+"/none")
		cancel()
		if err != nil {
			member = (member + 1) % members
			continue
		}
		w.mu.Lock()
		w.readings = append(w.readings, reading{asked, now(), resp.Header.Revision})
		w.heardTerm(resp.Header.RaftTerm)
		w.mu.Unlock()
	}
}

func (w *watcher) fail(why string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken = why
}

func (w *watcher) done() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// awaitNow waits until everything that is in etcd now is in the book.
func (w *watcher) awaitNow(ctx context.Context) error {
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
	for until := now() + 30*time.Second; w.done() < rev; {
		if now() > until || wait(ctx, 10*time.Millisecond) {
			return fmt.Errorf("the watch is at revision %d, and etcd at %d", w.done(), rev)
		}
	}
	return nil
}

// record takes what was seen since the last call: a round's. Nothing may be
// under way.
func (w *watcher) record() *record {
	w.mu.Lock()
	defer w.mu.Unlock()
	r := &record{
		lives: w.book.lives, complaints: w.book.complaints, readings: w.readings, terms: w.terms,
		revisions: w.book.revisions, rules: w.book.ruleChanges,
	}
	if w.broken != "" {
		r.complaints = append(r.complaints, w.broken)
	}
	w.book.turn()
	w.readings = nil
	w.terms = w.terms[len(w.terms)-1:]
	return r
}
