package events

import (
	"context"
	"time"
)

// A Follower reads the events of a [Feed]. Only one goroutine may use it.
type Follower struct {
	feed      *Feed
	user      string // whose events it returns; empty for all users
	next      uint64
	positions shardPositions
	gap       string // detail of a gap event to return first; empty for none
}

// cursorWaitTimeout limits how long [Feed.Follow] waits for a node that lags behind the
// node of the cursor.
const cursorWaitTimeout = 2 * time.Second

// Details of gap events.
const (
	gapOld     = "the node no longer holds all events since the cursor"
	gapShard   = "a shard was added"
	gapHistory = "the cursor is newer than the node's copy of etcd: etcd was restored, or the node lags"
	gapSlow    = "the reader is too slow"
)

// Follow returns a follower of the events after a cursor, or of future events if the
// cursor is empty. If user is not empty, it returns only events of that user. The
// first event is a gap if the feed no longer holds the events after the cursor. They
// are not read from etcd's history: that would let any follower put load on etcd, and
// the history is short too. Returns [ErrBadCursor].
func (f *Feed) Follow(ctx context.Context, after, user string) (*Follower, error) {
	fo := &Follower{feed: f, user: user}
	if after == "" {
		fo.skipToEnd("")
		return fo, nil
	}
	c, err := parseCursor(after)
	if err != nil {
		return nil, err
	}
	f.waitForCursor(ctx, c)
	f.mu.Lock()
	defer f.mu.Unlock()
	if gap := fo.resumeLocked(c); gap != "" {
		fo.skipToEndLocked(gap)
	}
	return fo, nil
}

// waitForCursor waits until this node has applied the revisions of c, which another
// node may have issued.
func (f *Feed) waitForCursor(ctx context.Context, c eventCursor) {
	ctx, cancel := context.WithTimeout(ctx, cursorWaitTimeout)
	defer cancel()
	for _, s := range f.allPublishers() {
		if p, ok := c.positions[s.shard]; ok {
			s.limiter.WaitApplied(ctx, p.rev)
		}
	}
}

func (f *Feed) allPublishers() []*Publisher {
	f.mu.Lock()
	defer f.mu.Unlock()
	all := make([]*Publisher, 0, len(f.publishers))
	for _, s := range f.publishers {
		all = append(all, s)
	}
	return all
}

// resumeLocked continues after c. If it cannot, it returns the detail of the gap.
func (fo *Follower) resumeLocked(c eventCursor) (gap string) {
	f := fo.feed
	for name, p := range c.positions {
		if s := f.publishers[name]; s != nil {
			fo.positions.advance(s, p, true)
		}
	}
	if c.feedID == f.id && c.seq < f.next.Load() {
		if fo.next = c.seq + 1; fo.next < f.oldestLocked() {
			return gapOld
		}
		return ""
	}
	for name, s := range f.publishers {
		p, ok := c.positions[name]
		switch {
		case s.base == (position{}): // its first list will publish a gap
		case !ok:
			return gapShard
		case p.before(s.base):
			return gapOld
		case p.rev > s.limiter.AppliedRevision():
			return gapHistory
		}
	}
	// Earlier refusals are skipped: they are those of this node, and the cursor was
	// issued by another one.
	for fo.next = f.oldestLocked(); fo.next < f.next.Load(); fo.next++ {
		e := f.event(fo.next)
		p := c.positions[e.publisher.shard]
		if !e.publisher.closed.Load() && e.position != (position{}) && p.before(e.position) {
			break
		}
	}
	return ""
}

// skipToEnd continues with future events. If gap is not empty, a gap event with this
// detail comes first.
func (fo *Follower) skipToEnd(gap string) {
	fo.feed.mu.Lock()
	defer fo.feed.mu.Unlock()
	fo.skipToEndLocked(gap)
}

func (fo *Follower) skipToEndLocked(gap string) {
	fo.gap, fo.next, fo.positions = gap, fo.feed.next.Load(), nil
	for _, s := range fo.feed.publishers {
		if s.last != (position{}) {
			fo.positions = append(fo.positions, shardPosition{s, s.last})
		}
	}
}

// Next returns the next event; nil if there is none yet.
func (fo *Follower) Next() *Event {
	for {
		if fo.gap != "" {
			e := &Event{Kind: Gap, At: time.Now(), Detail: fo.gap}
			fo.gap = ""
			return e
		}
		if fo.next >= fo.feed.next.Load() {
			return nil
		}
		e := fo.feed.event(fo.next)
		if e == nil {
			fo.skipToEnd(gapSlow)
			continue
		}
		fo.next++
		if e.position != (position{}) && !fo.positions.advance(e.publisher, e.position, e.Kind == Gap) {
			continue
		}
		if fo.user == "" || fo.user == e.User || e.Kind == Gap {
			return e
		}
	}
}

// Cursor returns the cursor after the last event that Next returned.
func (fo *Follower) Cursor() string {
	fo.prune()
	return fo.positions.cursor(fo.feed.id, fo.next-1)
}

// prune removes the positions of shards that were removed.
func (fo *Follower) prune() {
	for i := 0; i < len(fo.positions); i++ {
		if fo.positions[i].publisher.closed.Load() {
			fo.positions = append(fo.positions[:i], fo.positions[i+1:]...)
			i--
		}
	}
}

// AdvanceCursor moves the cursor of a follower that has read all events to the revision
// that the node has applied. A node that started later can resume from it.
func (fo *Follower) AdvanceCursor() {
	revisions := make([]int64, len(fo.positions))
	for i, s := range fo.positions {
		revisions[i] = s.publisher.limiter.AppliedRevision()
	}
	// Checked after the revisions were read: an event is published before its revision
	// counts as applied.
	if fo.gap != "" || fo.next != fo.feed.next.Load() {
		return
	}
	for i, rev := range revisions {
		if p := (position{rev, endOfRevision}); fo.positions[i].at.before(p) {
			fo.positions[i].at = p
		}
	}
}

// Wait returns when Next may have an event. It returns ctx's error if ctx ends first.
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
