package apitype

// An EdgeRequest is a request of a player to explain.
type EdgeRequest struct {
	URI    string              `json:"uri"`              // path and query
	Method string              `json:"method,omitempty"` // default GET
	Header map[string][]string `json:"header,omitempty"`
	Client string              `json:"client,omitempty"` // address of the player
}

// An EdgeExplanation is what the edge would decide on a request of a player, and why.
type EdgeExplanation struct {
	Profile  string `json:"profile"`
	Decision string `json:"decision"` // allow or deny
	Reason   string `json:"reason"`
	Status   int    `json:"status"`
	Detail   string `json:"detail,omitempty"`
	// Counts is counted, checked (HEAD), passed or denied; "" if the target cannot be read.
	Counts  string `json:"counts,omitempty"`
	Entry   bool   `json:"entry,omitempty"` // the viewer begins to play
	Content string `json:"content,omitempty"`
	User    string `json:"user,omitempty"`
	Session string `json:"session,omitempty"` // a hash
	// Attributes are what the profile and the credential state for plans, except the id of the
	// content: device.id, content.type, labels.KEY and so on.
	Attributes map[string]string `json:"attributes,omitempty"`
	Caller     string            `json:"caller,omitempty"` // the plan and limit by the credential
	Cookie     bool              `json:"cookie,omitempty"` // the answer sets a cookie
	// Stream is the running stream of the session, without its id.
	Stream *Stream `json:"stream,omitempty"`
	// Would is what the request would do: start, move, renew, be refused, or nothing.
	Would    string `json:"would,omitempty"`
	Streams  *int   `json:"streams,omitempty"`
	Limit    *int   `json:"limit,omitempty"`
	Degraded bool   `json:"degraded,omitempty"` // the node's data may be out of date
	// Observe means that the profile only observes: the request is allowed, whatever the decision is.
	Observe bool `json:"observe,omitempty"`
}
