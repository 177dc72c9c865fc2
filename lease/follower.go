package lease

import (
	"context"
	"time"
)

// A Follower reads a [Feed] from some event on. It is for one goroutine.
type Follower struct {
	feed *Feed
	user string // whose events; everybody's if empty
	next uint64
	seen trail
	gap  string // why there is one, to be told first
}

// reachPatience is how long a follower waits for a node that is behind the one it
// comes from.
const reachPatience = 2 * time.Second

// Follow returns a follower of the events after a cursor, or of those to come if
// that is empty; with a user, of his alone. Where events after the cursor are no
// longer kept the first one is a gap: to read them again from etcd's history would
// let any follower put load on etcd, and that history is short as well. Returns
// [ErrBadCursor].
func (f *Feed) Follow(ctx context.Context, after, user string) (*Follower, error) {
	fo := &Follower{feed: f, user: user}
	if after == "" {
		fo.jump("")
		return fo, nil
	}
	c, err := parseCursor(after)
	if err != nil {
		return nil, err
	}
	f.await(ctx, c)
	f.mu.Lock()
	defer f.mu.Unlock()
	if why := fo.resumeLocked(c); why != "" {
		fo.jumpLocked(why)
	}
	return fo, nil
}

// await waits until this node knows what another one, where c comes from, did.
func (f *Feed) await(ctx context.Context, c cursor) {
	ctx, cancel := context.WithTimeout(ctx, reachPatience)
	defer cancel()
	f.mu.Lock()
	tellers := make([]*teller, 0, len(f.tellers))
	for _, s := range f.tellers {
		tellers = append(tellers, s)
	}
	f.mu.Unlock()
	for _, s := range tellers {
		if p, there := c.places[s.name]; there {
			s.limiter.view.reach(ctx, p.rev)
		}
	}
}

const (
	gapOld     = "what happened since is more than the node remembers"
	gapShard   = "a shard is new"
	gapHistory = "etcd's history does not go that far: it was restored, or this node is behind"
)

// resumeLocked goes on after c, or says why it cannot.
func (fo *Follower) resumeLocked(c cursor) (why string) {
	f := fo.feed
	for name, p := range c.places {
		if s := f.tellers[name]; s != nil {
			fo.seen.reach(s, p, true)
		}
	}
	if c.boot == f.boot && c.seq < f.next.Load() {
		if fo.next = c.seq + 1; fo.next < f.oldestLocked() {
			return gapOld
		}
		return ""
	}
	for name, s := range f.tellers {
		p, there := c.places[name]
		switch {
		case s.base == (place{}): // it will be a gap when it is listed
		case !there:
			return gapShard
		case p.before(s.base):
			return gapOld
		case p.rev > s.limiter.view.applied.Load():
			return gapHistory
		}
	}
	// Refusals from before that are of another node than those that c has seen, and
	// are left out.
	for fo.next = f.oldestLocked(); fo.next < f.next.Load(); fo.next++ {
		e := f.at(fo.next)
		if p := c.places[e.from.name]; !e.from.out.Load() && e.place != (place{}) && p.before(e.place) {
			break
		}
	}
	return ""
}

// jump goes to the present; why is told as a gap unless it is empty.
func (fo *Follower) jump(why string) {
	fo.feed.mu.Lock()
	defer fo.feed.mu.Unlock()
	fo.jumpLocked(why)
}

func (fo *Follower) jumpLocked(why string) {
	fo.gap, fo.next, fo.seen = why, fo.feed.next.Load(), nil
	for _, s := range fo.feed.tellers {
		if s.last != (place{}) {
			fo.seen = append(fo.seen, step{s, s.last})
		}
	}
}

// Next returns the next event, nil if there is none yet.
func (fo *Follower) Next() *Event {
	for {
		if fo.gap != "" {
			e := &Event{Kind: EventGap, At: time.Now(), Detail: fo.gap}
			fo.gap = ""
			return e
		}
		if fo.next >= fo.feed.next.Load() {
			return nil
		}
		e := fo.feed.at(fo.next)
		if e == nil {
			fo.jump("this reader is too slow for what happens")
			continue
		}
		fo.next++
		if e.place != (place{}) && !fo.seen.reach(e.from, e.place, e.Kind == EventGap) {
			continue
		}
		if fo.user == "" || fo.user == e.User || e.Kind == EventGap {
			return e
		}
	}
}

// Cursor is where the follower stands after the last event that it returned.
func (fo *Follower) Cursor() string {
	fo.tidy()
	return fo.seen.write(fo.feed.boot, fo.next-1)
}

// tidy forgets shards that are no longer there.
func (fo *Follower) tidy() {
	for i := 0; i < len(fo.seen); i++ {
		if fo.seen[i].from.out.Load() {
			fo.seen = append(fo.seen[:i], fo.seen[i+1:]...)
			i--
		}
	}
}

// Settle moves the cursor of a follower that waits to where etcd is: that nothing
// happened is something that it knows as well.
func (fo *Follower) Settle() {
	places := make([]int64, len(fo.seen))
	for i, s := range fo.seen {
		places[i] = s.from.limiter.view.applied.Load()
	}
	if fo.gap != "" || fo.next != fo.feed.next.Load() { // looked at after: events come before their revision is applied
		return
	}
	for i, rev := range places {
		if p := (place{rev, wholeRevision}); fo.seen[i].at.before(p) {
			fo.seen[i].at = p
		}
	}
}

// Wait returns when there may be something for Next, or with ctx's error.
func (fo *Follower) Wait(ctx context.Context) error {
	f := fo.feed
	f.waiting.Add(1)
	defer f.waiting.Add(-1)
	f.mu.Lock()
	wake := f.wake
	f.mu.Unlock()
	if fo.gap != "" || fo.next < f.next.Load() {
		return nil
	}
	select {
	case <-wake:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
