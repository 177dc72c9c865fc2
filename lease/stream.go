package lease

import (
	"time"

	"streamcount/lease/internal/schema"
	"streamcount/lease/policy"
)

// A Device is the device of a stream, as its client describes it. All fields are
// optional.
type Device struct {
	ID   string
	Name string
	Type string
}

// Content is what a stream plays, as its client describes it. All fields are optional.
type Content struct {
	ID    string
	Title string
}

// A Stream is one running playback of a user.
type Stream struct {
	ID        string // opaque, URL-safe, unguessable, and valid only for its user
	User      string
	StartedAt time.Time
	ExpiresAt time.Time // when its lease expires unless it is renewed; zero if not known
	TTL       time.Duration
	Region    string // where it was started
	Session   string
	Device    Device
	Content   Content
	Via       string // what started it in place of its player; see Request.Via
	// Attributes are those that the start stated for plans with several limits; nil if none.
	// They are not to be modified.
	Attributes *policy.StartAttributes
	// Degraded means that etcd did not answer in time. The player should continue. After a
	// heartbeat, ExpiresAt is zero, and the stream is as the node saw it last; if the node has
	// not seen it, only ID, User and TTL are set.
	Degraded bool
}

// Usage describes a user's streams at one etcd revision.
type Usage struct {
	User  string
	Count int // number of keys
	Limit int
	// Counted is what the streams count for. It may be less than Count if the user's plan
	// counts content or devices.
	Counted int
	Active  []Stream // oldest first; set by List only
	// Stopped is the id of the stream that StopOldestHeartbeat ended.
	Stopped string
}

// A Request describes the stream that a client starts. All fields are optional.
type Request struct {
	// Session is an id that the client chooses for a playback. A start takes over the slot
	// of the user's stream with the same session.
	Session string
	// Replaces are the ids of streams of this user to end in the same transaction, up to
	// [policy.MaxLimit]. An id has no effect if its stream has already ended.
	Replaces   []string
	OnLimit    policy.OnLimit // "" means Deny; the limits decide which streams may end
	Device     Device
	Content    Content
	Attributes policy.StartAttributes
	// Join means that a running stream of the same session is the result, in place of a new
	// stream that takes over its slot. Of concurrent starts with Join, on any nodes, one
	// starts a stream.
	Join bool
	// Via is not empty if something else starts the stream in place of its player, such as
	// "edge:vod". If such a stream is ended on purpose, [Limiter.Attend] reports a [Bar] for
	// its session, and starts of the session with Via return it as an error.
	Via string
	// Plan is the plan of the user by the calling service. It must exist. Limit and Grant,
	// a plan, are from a trusted token. Limit takes precedence, and a plan in Grant that
	// does not exist is ignored. The user's override takes precedence over all of them.
	Plan  string
	Grant string
	Limit *int // 0 to [policy.MaxLimit]; a higher value counts as MaxLimit
	// RoutingRevision is the revision of the [RoutingRecord] by which the caller has routed
	// the user here; 0 if there is none.
	RoutingRevision int64
}

// Started is the result of an admitted start: the new stream, the usage at the revision
// that admitted it, and the streams that it has ended.
type Started struct {
	Usage
	Stream Stream
	Ended  []Ended
	// Joined means that the stream was running already. See Request.Join.
	Joined bool
	// Observed are the names of the limits that only observe, and that do not hold.
	Observed []string
}

// Ended is a stream that a start has ended.
type Ended struct {
	Stream Stream // without ExpiresAt
	Reason policy.Reason
}

// A HeartbeatRequest is one heartbeat of a batch.
type HeartbeatRequest struct{ User, ID string }

// A HeartbeatResult is the result of a [HeartbeatRequest]. Its fields have the meaning of
// those of a [Stream], and Err is the error that [Limiter.Heartbeat] returns.
type HeartbeatResult struct {
	ExpiresAt time.Time
	TTL       time.Duration
	Degraded  bool
	Err       error

	record []byte // of the stream, as stored
}

// NewHeartbeatResult returns what [Limiter.Heartbeat] returned as a HeartbeatResult.
func NewHeartbeatResult(s Stream, err error) HeartbeatResult {
	return HeartbeatResult{ExpiresAt: s.ExpiresAt, TTL: s.TTL, Degraded: s.Degraded, Err: err}
}

// Totals counts the streams of all users.
type Totals struct {
	Revision     int64 // the etcd revision that the totals describe
	Streams      int
	Users        int
	UsersAtLimit int
	ByRegion     map[string]int
	// ByVia counts the streams with Via, by its part before the colon: "edge" or
	// "other".
	ByVia map[string]int
	// Since the node started: starts that it admitted and rejected, and streams of all
	// nodes that expired.
	Admitted, Refused, Expired int64
}

// A RoutingRecord is the put of the key that says how users are spread over shards.
type RoutingRecord = schema.RoutingRecord

// describe copies what the client said about the stream to its record.
func (r *Request) describe(record *schema.Record) {
	record.Session, record.Via = r.Session, r.Via
	if r.Device != (Device{}) {
		record.Device = (*schema.Device)(&r.Device)
	}
	if r.Content != (Content{}) {
		record.Content = (*schema.Content)(&r.Content)
	}
	if !r.Attributes.Empty() {
		record.Attributes = (*schema.Attributes)(&r.Attributes)
	}
}

// newStream returns the stream that r describes.
func newStream(user, id string, r schema.Record) Stream {
	s := Stream{
		ID:        id,
		User:      user,
		StartedAt: r.StartTime(),
		TTL:       time.Duration(r.TTLSeconds) * time.Second,
		Region:    r.Region,
		Session:   r.Session,
		Via:       r.Via,

		Attributes: (*policy.StartAttributes)(r.Attributes),
	}
	if r.Device != nil {
		s.Device = Device(*r.Device)
	}
	if r.Content != nil {
		s.Content = Content(*r.Content)
	}
	return s
}
