// Package apitype defines the JSON bodies of streamcount's HTTP API, once, for
// the server and its clients. It depends on the standard library alone.
package apitype

import (
	"fmt"
	"time"
)

// UserPattern is the rule for user ids, after percent-decoding.
const UserPattern = `^[A-Za-z0-9._~@:|+=-]{1,128}$`

// MaxID is the largest number of characters in a stream id.
const MaxID = 64

// MaxBatch is the largest number of heartbeats in one request.
const MaxBatch = 1000

// A Time travels as RFC 3339 in UTC with milliseconds.
type Time struct{ time.Time }

const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// At returns t for the wire, or nil where t is zero, so that it is left out.
func At(t time.Time) *Time {
	if t.IsZero() {
		return nil
	}
	return &Time{t}
}

// MarshalText writes t in UTC with exactly three digits of a second.
func (t Time) MarshalText() ([]byte, error) {
	return []byte(t.UTC().Format(timeLayout)), nil
}

// MarshalJSON is MarshalText in quotes; without it the embedded time's own
// encoding would win.
func (t Time) MarshalJSON() ([]byte, error) {
	return []byte(`"` + t.UTC().Format(timeLayout) + `"`), nil
}

// UnmarshalText reads any RFC 3339 time.
func (t *Time) UnmarshalText(b []byte) error {
	parsed, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		return fmt.Errorf("time %q: %w", b, err)
	}
	t.Time = parsed
	return nil
}

// UnmarshalJSON reads an RFC 3339 time in quotes.
func (t *Time) UnmarshalJSON(b []byte) error {
	if len(b) < 2 || b[0] != '"' || b[len(b)-1] != '"' {
		return fmt.Errorf("time %s: want a string", b)
	}
	return t.UnmarshalText(b[1 : len(b)-1])
}

// A Device is the thing a stream plays on, in the client's words.
type Device struct {
	ID   string `json:"id,omitempty" maxLength:"200" doc:"The device's own id." example:"b8d0"`
	Name string `json:"name,omitempty" maxLength:"200" doc:"A name its owner knows it by." example:"Living room TV"`
	Type string `json:"type,omitempty" maxLength:"200" doc:"What kind of device it is." example:"tv"`
}

// Content is what a stream plays, in the client's words.
type Content struct {
	ID    string `json:"id,omitempty" maxLength:"200" doc:"The id of what is playing." example:"film-77"`
	Title string `json:"title,omitempty" maxLength:"200" doc:"Its title, for people." example:"Metropolis"`
}

// A Stream is one running playback.
type Stream struct {
	ID               string   `json:"id" doc:"Opaque, URL-safe, at most 64 characters; valid for its user alone."`
	StartedAt        *Time    `json:"startedAt,omitempty" format:"date-time" doc:"When it was admitted."`
	ExpiresAt        *Time    `json:"expiresAt,omitempty" format:"date-time" doc:"When its slot comes back unless a heartbeat arrives first."`
	TTLSeconds       int      `json:"ttlSeconds" doc:"How long a silent stream keeps its slot." example:"90"`
	HeartbeatSeconds int      `json:"heartbeatSeconds" doc:"How often to send a heartbeat." example:"30"`
	Region           string   `json:"region,omitempty" doc:"Where it was started." example:"local"`
	Session          string   `json:"session,omitempty" doc:"The client's own id for this playback."`
	Device           *Device  `json:"device,omitempty"`
	Content          *Content `json:"content,omitempty"`
	Degraded         bool     `json:"degraded,omitempty" doc:"The heartbeat could not reach etcd in time: play on, and beat again soon."`
}

// A User is a user's streams.
type User struct {
	UserID  string   `json:"userId" doc:"The user." example:"maya"`
	Streams int      `json:"streams" doc:"How many streams the user has." example:"2"`
	Counted *int     `json:"counted,omitempty" doc:"What the streams count for, where the user's plan counts content or devices, and it is less than their number."`
	Limit   int      `json:"limit" doc:"How many the user may have." example:"3"`
	Active  []Stream `json:"active,omitempty" doc:"The streams, oldest first. Start and stop leave it out."`
	Stream  *Stream  `json:"stream,omitempty" doc:"The stream that this call started."`
	Message string   `json:"message,omitempty" doc:"Set when a stop leaves the user with no streams."`
}

// A Start is the body of a start; every field is optional.
type Start struct {
	Session  string   `json:"session,omitempty" maxLength:"200" doc:"An id the client chose once for this playback (a tab, a device). A start takes over the slot of the user's live stream of the same session, under a new stream id, and never counts twice."`
	Replaces string   `json:"replaces,omitempty" maxLength:"200" doc:"The id of a stream of this user to end in the same transaction, so that a hand-over at the limit succeeds."`
	OnLimit  string   `json:"onLimit,omitempty" enum:"deny,replace-oldest" doc:"What to do when all slots are taken; deny unless said otherwise."`
	Device   *Device  `json:"device,omitempty"`
	Content  *Content `json:"content,omitempty"`
	Plan     string   `json:"plan,omitempty" maxLength:"64" doc:"The user's plan, as the calling service knows it; it must exist. What was set for the user goes before it. Viewers may not say it: theirs is in the token."`
}

// A Stop is the body of a stop; without an id it ends the stream least
// recently heard from.
type Stop struct {
	StreamID *string `json:"streamId,omitempty" maxLength:"200" doc:"The stream to end. Without it, the one least recently heard from."`
}

// A Beat is one heartbeat of a batch.
type Beat struct {
	UserID   string `json:"userId" maxLength:"200"`
	StreamID string `json:"streamId" maxLength:"200"`
}

// Beats is the body of a batch of heartbeats.
type Beats struct {
	Heartbeats []Beat `json:"heartbeats" minItems:"1" maxItems:"1000" nullable:"false"`
}

// EndedBeat is one heartbeat of a batch whose stream is gone.
type EndedBeat struct {
	UserID   string `json:"userId"`
	StreamID string `json:"streamId"`
	Reason   string `json:"reason" doc:"As in the 410 answer to a single heartbeat."`
}

// BeatsResult is the answer to a batch of heartbeats.
type BeatsResult struct {
	Alive    int         `json:"alive" doc:"How many of the streams play on."`
	Degraded int         `json:"degraded,omitempty" doc:"How many of those could not be renewed because etcd was out of reach."`
	Ended    []EndedBeat `json:"ended" nullable:"false" doc:"The streams that are gone."`
}

// By is the stream that took the place of an ended one.
type By struct {
	Device    *Device `json:"device,omitempty"`
	StartedAt *Time   `json:"startedAt,omitempty" format:"date-time"`
}

// A FieldError is one thing wrong with a request.
type FieldError struct {
	Location string `json:"location,omitempty" doc:"Where in the request." example:"body.session"`
	Message  string `json:"message" doc:"What is wrong there."`
}

// A Problem is the body of every error (RFC 9457). Members that a status does
// not use are left out.
type Problem struct {
	Type   string `json:"type" doc:"A path under /problems/ that names the kind of problem." example:"/problems/limit-reached"`
	Title  string `json:"title" doc:"The kind of problem in words." example:"Maximum number of streams reached"`
	Status int    `json:"status" doc:"The HTTP status." example:"403"`
	Detail string `json:"detail,omitempty" doc:"What was wrong this time, and what to do."`
	// Text repeats Title in the field that the service's first version had.
	Text   string       `json:"error" doc:"The title again, for clients of the first version."`
	Errors []FieldError `json:"errors,omitempty" doc:"Each thing wrong with the request."`

	Limit   *int     `json:"limit,omitempty" doc:"403: how many streams the user may have."`
	Streams *int     `json:"streams,omitempty" doc:"403: how many the user has."`
	Active  []Stream `json:"active,omitempty" doc:"403: the streams that hold the slots."`
	Counted *int     `json:"counted,omitempty" doc:"403: what those streams count for, where that is less than their number."`
	// EvictAfterSeconds is set where a start asked for replace-oldest too soon.
	EvictAfterSeconds int `json:"evictAfterSeconds,omitempty" doc:"403: when this session or device may end another stream; it was itself ended by one."`

	Reason string `json:"reason,omitempty" doc:"410: stopped, expired, replaced, evicted, removed, or ended when no longer known."`
	By     *By    `json:"by,omitempty" doc:"410: what took the stream's place, where known."`
}

// Node describes the node that answers.
type Node struct {
	ID        string `json:"id" doc:"This node's name in etcd."`
	Region    string `json:"region" doc:"Where it runs."`
	Version   string `json:"version" doc:"The program's version."`
	StartedAt *Time  `json:"startedAt,omitempty" format:"date-time" doc:"When the process started."`
}

// Shard describes one etcd cluster.
type Shard struct {
	Name    string       `json:"name" example:"default"`
	Leader  string       `json:"leader,omitempty" doc:"The name of its leading member, where known."`
	Members int          `json:"members" doc:"How many members it has."`
	Streams int          `json:"streams" doc:"How many streams live on it."`
	Error   string       `json:"error,omitempty" doc:"Why nothing is known of it."`
	Etcd    []EtcdMember `json:"etcd" nullable:"false" doc:"Its members, at most a few seconds ago."`
}

// Stats are the totals that a node reports.
type Stats struct {
	Streams      int            `json:"streams" doc:"Streams now, on all nodes."`
	Users        int            `json:"users" doc:"Users with at least one stream."`
	UsersAtLimit int            `json:"usersAtLimit" doc:"Users who could not start another."`
	Regions      map[string]int `json:"regions" nullable:"false" doc:"Streams by the region they were started in."`
	Admitted     int64          `json:"admitted" doc:"Starts that this node admitted since it started."`
	Refused      int64          `json:"refused" doc:"Starts that this node refused since it started."`
	Expired      int64          `json:"expired" doc:"Streams, on all nodes, seen to expire since this node started."`
	Node         Node           `json:"node"`
	Rates        Rates          `json:"rates"`
	Latency      Latency        `json:"latency"`
	Nodes        []NodeReport   `json:"nodes" nullable:"false" doc:"All nodes that are registered."`
	Leader       string         `json:"leader,omitempty" doc:"The name of etcd's leading member, where known."`
	Shards       []Shard        `json:"shards" nullable:"false"`
	Revision     int64          `json:"revision" doc:"The etcd revision that the totals describe."`
}

// Removed is the answer to the removal of a user.
type Removed struct {
	UserID  string `json:"userId"`
	Streams int    `json:"streams"`
	Message string `json:"message"`
}
