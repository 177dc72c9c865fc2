package lease

import (
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// An EventKind says what an [Event] is.
type EventKind string

// The kinds of events.
const (
	EventStart   EventKind = "start"
	EventStop    EventKind = "stop"
	EventExpiry  EventKind = "expiry"
	EventRefusal EventKind = "refusal" // by this node; it is nothing that etcd knows of
	EventGap     EventKind = "gap"     // what happened meanwhile was not seen, or is no longer known
)

// An Event is something that happened to a user's streams, on any node, as this one
// learned of it. All who follow a [Feed] share it: it is not to be changed.
type Event struct {
	Kind     EventKind
	At       time.Time // when this node learned of it
	Revision int64     // of etcd, on the user's shard
	User     string
	Streams  int    // of the user, after it
	Reason   Reason // of a stop
	Detail   string // of a gap

	from  *teller // nil for a gap of the follower's own
	seq   uint64
	place place // zero for what etcd does not know of
	limit int   // of a refusal
	by    *by
	// The stream is read from its record only for those who want to know.
	id    ident
	value []byte

	once    sync.Once
	encoded []byte
}

// Stream is the stream that started or ended; of a refusal or a gap there is none.
func (e *Event) Stream() (Stream, bool) {
	if e.value == nil {
		return Stream{}, false
	}
	l := e.from.limiter
	return streamOf(e.User, l.ids.sign(e.User, e.id), e.value), true
}

// Limit is how many streams the user may have, as far as this node knows.
func (e *Event) Limit() int {
	if e.Kind == EventRefusal || e.from == nil || e.User == "" {
		return e.limit
	}
	return e.from.limiter.ruleOf(e.User, e.value).limit
}

// By is what took the place of a stream that was stopped; nil if nothing did.
func (e *Event) By() *By {
	if e.by == nil {
		return nil
	}
	return &By{Device: e.by.Device, StartedAt: time.UnixMilli(e.by.Started)}
}

// Shard is where it happened, if there are several.
func (e *Event) Shard() string {
	if e.from == nil || !e.from.feed.several.Load() {
		return ""
	}
	return e.from.name
}

// Encoded returns what encode makes of the event, which is called once for all who
// follow.
func (e *Event) Encoded(encode func(*Event) []byte) []byte {
	e.once.Do(func() { e.encoded = encode(e) })
	return e.encoded
}

// A teller is what tells a feed of one shard. A nil one tells nobody.
type teller struct {
	feed    *Feed
	name    string
	limiter *Limiter
	out     atomic.Bool // it tells nothing any more

	// The feed's lock guards what follows.
	last place // of what was told last
	base place // nothing before it can be told any more; zero before the first list
}

// teller is one that does not tell anything yet; nil of a nil feed.
func (f *Feed) teller(l *Limiter) *teller {
	if f == nil {
		return nil
	}
	return &teller{feed: f, name: l.cfg.Shard, limiter: l}
}

// listed is called when all streams have been read anew, as of revision rev: what
// happened since the last event was not seen.
func (s *teller) listed(rev int64) {
	if s == nil {
		return
	}
	at := place{rev, wholeRevision}
	s.feed.publish([]*Event{{
		Kind: EventGap, At: time.Now(), Revision: rev, from: s, place: at,
		Detail: "the node has read all streams anew",
	}}, func() { s.base = at })
}

// refused tells of a start that was refused with a [*LimitError].
func (s *teller) refused(user string, err error) {
	if s == nil {
		return
	}
	refused, ok := errors.AsType[*LimitError](err)
	if !ok {
		return
	}
	s.feed.refusals.Add(1)
	s.feed.peaks.refused(user, refused.Limit)
	s.feed.publish([]*Event{{
		Kind: EventRefusal, At: time.Now(), Revision: s.limiter.view.applied.Load(), User: user,
		Streams: len(refused.Active), limit: refused.Limit, from: s,
	}}, nil)
}

// admitted counts a start that this node has admitted.
func (s *teller) admitted() {
	if s != nil {
		s.feed.admitted.Add(1)
	}
}

// saw notes that user has n streams.
func (s *teller) saw(user string, n int) {
	if s != nil {
		s.feed.peaks.saw(user, n)
	}
}

// A telling collects what is to be told of one revision.
type telling struct {
	*teller
	rev    int64
	now    time.Time
	events []*Event
}

// telling begins with revision rev. A watch may begin with one that is in already:
// nothing of it changes the view, so nothing is told twice.
func (s *teller) telling(rev int64) telling {
	if s == nil {
		return telling{}
	}
	return telling{teller: s, rev: rev, now: time.Now()}
}

func (t *telling) start(user string, s *live, streams int) {
	if t.teller == nil {
		return
	}
	t.feed.starts.Add(1)
	t.add(&Event{Kind: EventStart, User: user, Streams: streams}, s)
}

func (t *telling) end(user string, s *live, g grave, streams int) {
	if t.teller == nil {
		return
	}
	e := &Event{Kind: EventStop, User: user, Streams: streams, Reason: g.Reason, by: g.By}
	if g.Reason == ReasonExpired {
		e.Kind, e.Reason = EventExpiry, ""
		t.feed.expiries.Add(1)
	} else {
		t.feed.stops.Add(1)
	}
	t.add(e, s)
}

func (t *telling) add(e *Event, s *live) {
	e.At, e.Revision, e.from = t.now, t.rev, t.teller
	e.id = ident{uint16(max(s.slot, 0)), s.lease, s.nonce}
	e.value = s.value
	e.place = place{t.rev, int32(len(t.events) + 1)}
	t.events = append(t.events, e)
}

// done tells what was collected.
func (t *telling) done() {
	if len(t.events) == 0 {
		return
	}
	t.events[len(t.events)-1].place.n = wholeRevision
	t.feed.publish(t.events, nil)
}
