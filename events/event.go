package events

import (
	"sync"
	"time"

	"streamcount/lease"
	"streamcount/lease/policy"
)

// A Kind is the kind of an [Event].
type Kind string

// The kinds of events.
const (
	Start   Kind = "start"
	Stop    Kind = "stop"
	Expiry  Kind = "expiry"
	Refusal Kind = "refusal" // a start that this node rejected; etcd does not record it
	Gap     Kind = "gap"     // events before it were not observed or are no longer held
)

// An Event is something that happened to a user's streams. All followers of a [Feed]
// share it, so it must not be changed.
type Event struct {
	Kind     Kind
	At       time.Time // when this node observed it
	Revision int64     // of the user's etcd cluster
	User     string
	Streams  int           // the user's streams after it
	Reason   policy.Reason // of a stop
	Detail   string        // of a gap

	publisher *Publisher // nil for a gap that only one follower receives
	seq       uint64     // in the feed
	position  position   // zero for a refusal
	limit     int        // of a refusal
	limits    []string   // of a refusal
	change    lease.Change

	once    [encodings]sync.Once
	encoded [encodings][]byte
}

// An Encoding is a form in which an [Event] is written for followers.
type Encoding int

// The encodings: one contains the ids of streams, the other their handles.
const (
	WithIDs Encoding = iota
	WithHandles
	encodings // number of encodings
)

// Stream returns the stream that started or ended. It returns false for a refusal or
// a gap. The stream is decoded by the call, so followers that skip the event do not
// pay for it.
func (e *Event) Stream() (lease.Stream, bool) {
	if e.change.Record == nil {
		return lease.Stream{}, false
	}
	return e.publisher.limiter.ChangedStream(e.change), true
}

// Limit returns the user's limit. For a refusal it is the limit at which the start was
// rejected, otherwise the limit that is now in force.
func (e *Event) Limit() int {
	if e.change.Record == nil {
		return e.limit
	}
	return e.publisher.limiter.CurrentLimit(e.change)
}

// Limits returns the names of the limits that rejected a start, or for which a stream was
// evicted. It is empty unless the user's plan has several limits.
func (e *Event) Limits() []string {
	if e.change.Record == nil {
		return e.limits
	}
	return e.change.Limits
}

// By returns the stream that took the place of the ended one; nil if there is none.
func (e *Event) By() *lease.Replacement { return e.change.By }

// Shard returns the name of the shard, if the feed has several.
func (e *Event) Shard() string {
	if e.publisher == nil || !e.publisher.feed.multiShard.Load() {
		return ""
	}
	return e.publisher.shard
}

// Encoded returns the result of encode, which is called once per form for all
// followers.
func (e *Event) Encoded(form Encoding, encode func(*Event, Encoding) []byte) []byte {
	e.once[form].Do(func() { e.encoded[form] = encode(e, form) })
	return e.encoded[form]
}
