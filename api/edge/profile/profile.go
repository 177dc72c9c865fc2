// Package profile reads the file of edge profiles, and the requests of players that a profile
// describes. It computes from values: it calls no service and keeps no state.
package profile

import (
	"fmt"
	"net/http"
	"time"

	"streamcount/access"
	"streamcount/lease"
	"streamcount/lease/policy"
)

// A Profile describes the requests of the players of one kind of media, such as films.
type Profile struct {
	Name     string
	From     Source
	OnOutage OutagePolicy
	Change   Change
	OnLimit  policy.OnLimit
	Cache    time.Duration // how long a proxy may cache that a request is allowed, in whole seconds
	// Observe means that no request is refused: the edge only counts those that it would refuse.
	// OnLimit is then Deny, so that no stream is ended either.
	Observe bool

	templates []template
	unmatched Kind     // of paths that match no template: Passed or Denied
	only      []string // extensions of files that count, in lower case; none means all
	entries   []string // patterns of paths with which a viewer begins to play
	countPost bool

	user     []source
	sessions []source
	// bindAgent and bindNetwork mix the User-Agent and the network of the player into the session.
	bindAgent, bindNetwork bool
	// deriveAgent mixes the User-Agent into derived sessions.
	deriveAgent bool
	deviceID    source
	deviceName  source
	contentID   source
	attributes  attributeSources
	claims      []string      // names of the claims that optional sources refer to
	cookie      *cookieConfig // nil if the edge sets none
}

// A Source is where a profile reads the player's request in a request of a proxy.
type Source string

// The sources.
const (
	FromOriginal  Source = "original"  // X-Original-URI and X-Original-Method
	FromForwarded Source = "forwarded" // X-Forwarded-Uri and X-Forwarded-Method
	FromRequest   Source = "request"   // the request itself, below /edge/v1/{profile}/uri/
)

// An OutagePolicy is what the edge answers while etcd is unavailable.
type OutagePolicy string

// The outage policies.
const (
	AllowAll   OutagePolicy = "allow" // every viewer, uncounted
	AllowKnown OutagePolicy = "known" // the sessions that this node has seen recently
	DenyAll    OutagePolicy = "deny"
)

// Change is what the edge does if a session requests other content.
type Change string

// The changes.
const (
	Move  Change = "move"  // the session's stream takes the new content
	Split Change = "split" // each content of a session is a stream
)

// A Request is a request of a player, as a proxy reports it.
type Request struct {
	Method string
	Target string      // path and query, exactly as the player sent them
	Header http.Header // of the proxy's request, which contains the player's headers
	Client string      // address of the player; "" if it is not known
}

// A Target is what a profile reads from the method, path and query of a request.
type Target struct {
	Kind    Kind
	Entry   bool   // the request is one with which a viewer begins to play
	Content string // id of the content, or ""
	Why     string // why the request does not count, for people; "" if Kind is Counted or Checked

	path     string    // normalised
	query    string    // as the player sent it
	template *template // that the path matches, or nil
}

// A Kind is how a request counts.
type Kind int

// The kinds of requests.
const (
	Counted Kind = iota // starts or renews the stream of its session
	Checked             // needs an identity and no bar, and starts and renews nothing: HEAD
	Passed              // is allowed without an identity: other files, OPTIONS
	Denied              // matches no path, and the profile denies such requests
)

// An Identity is who sends a request.
type Identity struct {
	User    string
	Session string // of at most 200 bytes; it is secret, and not to be logged
	Caller  access.Caller
	Device  lease.Device
	// Attributes are those for plans with several limits, by the profile and the credential.
	Attributes policy.StartAttributes
	Cookie     *http.Cookie // to set in the response, or nil
}

// A Reason is the value of X-Streamcount-Reason for a request that cannot be read.
type Reason string

// The reasons of rejections.
const (
	BadURI      Reason = "uri"
	BadIdentity Reason = "identity"
)

// A Rejection is a request that a profile rejects. Its text contains no credential.
type Rejection struct {
	Reason Reason
	Detail string
}

// Error returns the detail.
func (r *Rejection) Error() string { return r.Detail }

func reject(reason Reason, format string, args ...any) error {
	return &Rejection{reason, fmt.Sprintf(format, args...)}
}
