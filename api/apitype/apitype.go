// Package apitype defines the JSON bodies of streamcount's HTTP API, once, for
// the server and its clients. It depends on the standard library alone.
package apitype

import (
	"fmt"
	"time"
)

// UserPattern is the rule for user ids, after percent-decoding: UTF-8 without control
// characters. Beyond the pattern, an id has at most 128 bytes.
const UserPattern = `^[^\x00-\x1f\x7f-\x9f]{1,128}$`

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
	return t.AppendJSON(nil), nil
}

// AppendJSON appends what MarshalJSON returns.
func (t Time) AppendJSON(b []byte) []byte {
	b = t.UTC().AppendFormat(append(b, '"'), timeLayout)
	return append(b, '"')
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

// MaxLabel is how many characters (Unicode code points) of a label are kept. A label
// is text for people; a longer one is cut, not rejected.
const MaxLabel = 200

// A Device is the thing a stream plays on, in the client's words.
type Device struct {
	_ struct{} `additionalProperties:"true"` // unknown members are ignored

	ID   string `json:"id,omitempty" maxLength:"200" doc:"The device's own id." example:"b8d0"`
	Name string `json:"name,omitempty" doc:"A name its owner gave it. Cut after 200 characters." example:"Living room TV"`
	Type string `json:"type,omitempty" doc:"What kind of device it is. Cut after 200 characters." example:"tv"`
}

// Content is what a stream plays, in the client's words.
type Content struct {
	_ struct{} `additionalProperties:"true"` // unknown members are ignored

	ID     string   `json:"id,omitempty" maxLength:"200" doc:"The id of what is playing." example:"film-77"`
	Title  string   `json:"title,omitempty" doc:"Its title, for people. Cut after 200 characters." example:"Metropolis"`
	Type   string   `json:"type,omitempty" maxLength:"64" doc:"What kind of content it is, for limits of plans." example:"live"`
	Labels []string `json:"labels,omitempty" maxItems:"8" doc:"Labels of the content, for limits of plans, such as a channel group or a rights package. Each has 1 to 64 characters."`
}

// A Stream is one running playback.
type Stream struct {
	ID               string   `json:"id,omitempty" doc:"Opaque, URL-safe, at most 64 characters; valid only for its user. Callers with read access only get handle instead."`
	Handle           string   `json:"handle,omitempty" doc:"Instead of id for callers with read access only, such as API keys of scope read. Opaque, and constant while the stream lives. Heartbeats and stops do not accept it."`
	StartedAt        *Time    `json:"startedAt,omitempty" format:"date-time" doc:"When it was admitted."`
	ExpiresAt        *Time    `json:"expiresAt,omitempty" format:"date-time" doc:"When it expires unless a heartbeat arrives first."`
	TTLSeconds       int      `json:"ttlSeconds" doc:"How long a stream without heartbeats keeps its slot." example:"90"`
	HeartbeatSeconds int      `json:"heartbeatSeconds" doc:"How often to send a heartbeat." example:"30"`
	Region           string   `json:"region,omitempty" doc:"Where it was started." example:"local"`
	Session          string   `json:"session,omitempty" doc:"The client's own id for this playback."`
	Via              string   `json:"via,omitempty" doc:"What started the stream in place of its player, such as edge:vod for the profile vod of the edge. Left out if the player, or its service, started it." example:"edge:vod"`
	Device           *Device  `json:"device,omitempty"`
	Content          *Content `json:"content,omitempty"`
	Profile          string   `json:"profile,omitempty" doc:"The profile of the account that watches."`
	Labels           Labels   `json:"labels,omitempty" doc:"The labels that the calling service set. Viewers do not receive them."`
	Priority         *int     `json:"priority,omitempty" doc:"The priority that the calling service set. Viewers do not receive it."`
	Blocks           []string `json:"blocks,omitzero" doc:"403 of a plan with several limits: the names of the refusing limits that the stream counts for."`
	Enough           *bool    `json:"enough,omitempty" doc:"403 of a plan with several limits: whether the start is admitted if this stream ends."`
	Token            *Token   `json:"token,omitempty" doc:"Heartbeat: the playback token that the request asked for."`
	Degraded         bool     `json:"degraded,omitempty" doc:"The heartbeat could not reach etcd in time: continue playback, and send another soon."`
}

// A User is a user's streams.
type User struct {
	UserID  string   `json:"userId" doc:"The user." example:"maya"`
	Streams int      `json:"streams" doc:"How many streams the user has." example:"2"`
	Counted *int     `json:"counted,omitempty" doc:"How many streams count toward the limit, if the user's plan counts content or devices and that is less than their number."`
	Limit   int      `json:"limit" doc:"How many the user may have." example:"3"`
	Active  []Stream `json:"active,omitempty" doc:"The streams, oldest first. Start and stop leave it out."`
	Stream  *Stream  `json:"stream,omitempty" doc:"The stream that this call started."`
	Token   *Token   `json:"token,omitempty" doc:"Start: the playback token that the request asked for."`
	Message string   `json:"message,omitempty" doc:"Set when a stop leaves the user with no streams."`
}

// A Start is the body of a start; every field is optional.
type Start struct {
	Session  string    `json:"session,omitempty" maxLength:"200" doc:"An id that the client chooses once for this playback (a tab, a device). A start takes over the slot of the user's live stream of the same session, under a new stream id, and never counts twice."`
	Replaces StreamIDs `json:"replaces,omitempty" doc:"The id of a stream of this user, or a list of ids, to end in the same transaction, so that a hand-over at the limit succeeds."`
	OnLimit  string    `json:"onLimit,omitempty" enum:"deny,replace-oldest" doc:"What to do when all slots are taken; the default is deny. The limits of the user's plan decide which streams may end."`
	Device   *Device   `json:"device,omitempty"`
	Content  *Content  `json:"content,omitempty"`
	Profile  string    `json:"profile,omitempty" maxLength:"200" doc:"The profile of the account that watches, for limits of plans. Not for viewers if a claim of their token contains it."`
	Labels   Labels    `json:"labels,omitempty" doc:"Up to 8 labels, for limits of plans. Not for viewers, whose labels are in the token."`
	Priority *int      `json:"priority,omitempty" minimum:"0" maximum:"9" doc:"How important the stream is, for limits that replace the stream with the lowest priority; the default is 5. Not for viewers."`
	Network  string    `json:"network,omitempty" maxLength:"200" doc:"An opaque text that is the same for all devices on a network, for limits of plans. Not for viewers."`
	Plan     string    `json:"plan,omitempty" maxLength:"64" doc:"The name of the user's plan; the plan must exist. A limit or plan that is set for the user takes precedence. Not for viewers, whose plan is in the token."`
}

// A Stop is the body of a stop. Without an id it ends the stream with the oldest
// heartbeat.
type Stop struct {
	StreamID *string `json:"streamId,omitempty" maxLength:"200" doc:"The stream to end. Without it, the stream with the oldest heartbeat."`
}

// A Heartbeat is one heartbeat of a batch.
type Heartbeat struct {
	UserID   string `json:"userId" maxLength:"200"`
	StreamID string `json:"streamId" maxLength:"200"`
}

// Heartbeats is the body of a batch of heartbeats.
type Heartbeats struct {
	Heartbeats []Heartbeat `json:"heartbeats" minItems:"1" maxItems:"1000" nullable:"false"`
}

// EndedHeartbeat is one heartbeat of a batch whose stream is gone.
type EndedHeartbeat struct {
	UserID   string `json:"userId"`
	StreamID string `json:"streamId"`
	Reason   string `json:"reason" doc:"As in the 410 answer to a single heartbeat."`
}

// HeartbeatsResult is the answer to a batch of heartbeats.
type HeartbeatsResult struct {
	Alive    int              `json:"alive" doc:"How many of the streams are alive."`
	Degraded int              `json:"degraded,omitempty" doc:"How many of those could not be renewed because etcd did not respond."`
	Ended    []EndedHeartbeat `json:"ended" nullable:"false" doc:"The streams that have ended."`
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
	Type   string `json:"type" doc:"The type of the problem, a path under /problems/." example:"/problems/limit-reached"`
	Title  string `json:"title" doc:"The type in words." example:"Maximum number of streams reached"`
	Status int    `json:"status" doc:"The HTTP status." example:"403"`
	Detail string `json:"detail,omitempty" doc:"What is wrong, and what to do."`
	// Text repeats Title in the field that the service's first version had.
	Text   string       `json:"error" doc:"The title again, for clients of the first version."`
	Errors []FieldError `json:"errors,omitempty" doc:"Each thing wrong with the request."`

	Limit   *int     `json:"limit,omitempty" doc:"403: how many streams the user may have."`
	Streams *int     `json:"streams,omitempty" doc:"403: how many the user has."`
	Active  []Stream `json:"active,omitempty" doc:"403: the streams that hold the slots."`
	Counted *int     `json:"counted,omitempty" doc:"403: how many of those streams count toward the limit, if fewer than all."`
	// Limits is set for a plan with several limits.
	Limits []RefusingLimit `json:"limits,omitempty" doc:"403 of a plan with several limits: the limits that reject the start."`
	// EvictAfterSeconds is set where a start asked for replace-oldest too soon.
	EvictAfterSeconds int `json:"evictAfterSeconds,omitempty" doc:"403: after how many seconds this session or device may end another stream. A start recently ended its own."`

	Reason string `json:"reason,omitempty" doc:"410: stopped, expired, replaced, evicted, removed, or ended if the reason is unknown."`
	By     *By    `json:"by,omitempty" doc:"410: the stream that took the place of the ended one, if known."`

	Nodes []Node `json:"nodes,omitempty" doc:"409: up to 20 registered nodes that do not support the rules."`
}

// Node describes a node of the service.
type Node struct {
	ID        string `json:"id" doc:"The node's name in etcd."`
	Region    string `json:"region" doc:"Where it runs."`
	Version   string `json:"version" doc:"The program's version."`
	StartedAt *Time  `json:"startedAt,omitempty" format:"date-time" doc:"When the process started."`
}

// Shard describes one etcd cluster.
type Shard struct {
	Name    string       `json:"name" example:"default"`
	Leader  string       `json:"leader,omitempty" doc:"The name of its leader, if known."`
	Members int          `json:"members" doc:"How many members it has."`
	Streams int          `json:"streams" doc:"How many streams it stores."`
	Error   string       `json:"error,omitempty" doc:"Why its state is unknown."`
	Etcd    []EtcdMember `json:"etcd" nullable:"false" doc:"Its members, at most a few seconds ago."`
}

// Stats are the totals that a node reports.
type Stats struct {
	Streams      int            `json:"streams" doc:"Streams now, on all nodes."`
	Users        int            `json:"users" doc:"Users with at least one stream."`
	UsersAtLimit int            `json:"usersAtLimit" doc:"Users who could not start another."`
	Regions      map[string]int `json:"regions" nullable:"false" doc:"Streams by the region they were started in."`
	Via          map[string]int `json:"via,omitempty" doc:"Streams that something started in place of their players, by the part of their via before the colon: edge or other."`
	Admitted     int64          `json:"admitted" doc:"Starts that this node admitted since it started."`
	Refused      int64          `json:"refused" doc:"Starts that this node refused since it started."`
	Expired      int64          `json:"expired" doc:"Streams of all nodes that have expired since this node started."`
	Node         Node           `json:"node"`
	Rates        Rates          `json:"rates"`
	Latency      Latency        `json:"latency"`
	Nodes        []NodeReport   `json:"nodes" nullable:"false" doc:"All nodes that are registered."`
	Leader       string         `json:"leader,omitempty" doc:"The name of the etcd leader, if known."`
	Shards       []Shard        `json:"shards" nullable:"false"`
	Revision     int64          `json:"revision" doc:"The etcd revision that the totals describe."`
}

// Removed is the answer to the removal of a user.
type Removed struct {
	UserID  string `json:"userId"`
	Streams int    `json:"streams"`
	Message string `json:"message"`
}
