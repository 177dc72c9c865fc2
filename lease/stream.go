package lease

import "time"

// A Device is what a client says about the thing it plays on. All optional.
type Device struct {
	ID   string `json:"id,omitempty"`
	Name string `json:"name,omitempty"`
	Type string `json:"type,omitempty"`
}

// Content is what a client says about what it plays. All optional.
type Content struct {
	ID    string `json:"id,omitempty"`
	Title string `json:"title,omitempty"`
}

// A Stream is one running playback of a user.
type Stream struct {
	ID        string // opaque, URL-safe, unguessable, valid for its user alone
	User      string
	StartedAt time.Time
	ExpiresAt time.Time // when its lease lapses unless renewed; zero if not known
	TTL       time.Duration
	Region    string // where it was started
	Session   string
	Device    Device
	Content   Content
	// Degraded marks the answer to a heartbeat that could not reach etcd in
	// time: the player goes on, and nothing but ID and TTL is known.
	Degraded bool
}

// Usage is a user's streams at one etcd revision.
type Usage struct {
	User  string
	Count int // how many keys the user held at that revision
	Limit int
	// Counted is what those streams count for: less than Count where the user's
	// plan counts content or devices.
	Counted int
	Active  []Stream // oldest first; only List fills it
}

// OnLimit says what a start does when the user's slots are full.
type OnLimit string

// The ways out of a full house.
const (
	Deny          OnLimit = "deny"           // refuse the new stream
	ReplaceOldest OnLimit = "replace-oldest" // end the oldest stream in its favour
)

// A Request is what a client may say when it starts a stream. The zero value
// asks for a plain new stream.
type Request struct {
	// Session is an id that the client chose once for a playback. A start
	// takes over the slot of the user's live stream of the same session.
	Session string
	// Replaces is the id of a stream of this user to end in the same
	// transaction. One that has ended already is no obstacle.
	Replaces string
	OnLimit  OnLimit // "" means Deny
	Device   Device
	Content  Content
	// Plan is what the calling service says of the user: the name of a plan,
	// which must exist. Limit, or else Grant, is what a trusted token says, and
	// a plan that does not exist is then none. A user's override beats them all.
	Plan  string
	Grant string // a plan
	Limit *int   // 0 to [MaxLimit]; more is taken for MaxLimit
	// Routed is the revision of the put of [ShardsKey] by which the caller found
	// that the user lives here; 0 if there was none.
	Routed int64
}

// Started is the answer to an admitted start: the new stream, the usage at the
// revision that admitted it, and the streams that were ended for it.
type Started struct {
	Usage
	Stream Stream
	Ended  []Ended
}

// Ended is a stream that a start has ended.
type Ended struct {
	Stream Stream // without ExpiresAt
	Reason Reason
}

// A Beat is one heartbeat of a batch.
type Beat struct{ User, ID string }

// A BeatResult is the answer to one [Beat]: a stream, or the error that
// Heartbeat would have returned for it.
type BeatResult struct {
	Stream Stream
	Err    error
}

// Totals counts all streams, for the statistics of a node.
type Totals struct {
	Revision     int64 // the etcd revision that the totals describe
	Streams      int
	Users        int
	UsersAtLimit int
	ByRegion     map[string]int
	// Since this node started: starts it admitted and refused, and streams it
	// saw expire anywhere in the cluster.
	Admitted, Refused, Expired int64
}
