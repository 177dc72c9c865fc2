package access

import "slices"

// Kind is a kind of caller.
type Kind uint8

// The kinds. Anonymous comes without a credential.
const (
	Anonymous    Kind = iota
	Unrestricted      // any caller of a service without credentials
	Service           // an API key of scope all
	Reader            // an API key of scope read
	Operator          // an API key of scope operator
	Viewer            // a token of one user
	Scraper           // an API key of scope metrics
	Edge              // an API key of scope edge: a proxy, which may only use the edge
	kinds             // the number of constants above
)

func (k Kind) String() string {
	return [...]string{"anonymous", "anyone", "service", "reader", "operator", "viewer", "scraper", "edge"}[k]
}

// A Caller is an authenticated caller. None of its fields is secret.
type Caller struct {
	Kind Kind
	Name string // of the API key; of a viewer, the user id
	// The plan and limit in a viewer's token; "" and nil if there are none.
	Plan  string
	Limit *int
	// Attributes are those of a viewer's streams, by the token.
	Attributes Attributes
}

// HasKey reports whether the caller's credential is an API key.
func (c Caller) HasKey() bool {
	switch c.Kind {
	case Service, Reader, Operator, Scraper, Edge:
		return true
	}
	return false
}

// String returns the kind, and the name if there is one, for logs.
func (c Caller) String() string {
	if c.Name == "" {
		return c.Kind.String()
	}
	return c.Kind.String() + " " + c.Name
}

// An Action is what a call does, as far as rights are concerned.
type Action uint8

// The actions. No caller may do the zero Action.
const (
	NoAction    Action = iota
	ReadStreams        // of one user
	StartStream        // for one user
	StopStream         // stop or heartbeat of one stream, by its id
	EndStreams         // of one user, without ids
	ReadTotals         // and events
	ReadRules          // limits and plans
	WriteRules
	ReadMetrics
	ExportData // everything that is stored about one user
	EraseData
	EndAnyStreams // of all users, by conditions
	actions       // the number of constants above
)

// A Decision is whether a caller may do an action.
type Decision uint8

// The decisions. Unauthenticated may be allowed with a credential. OtherUser is a viewer's
// call about another user; its answer must not reveal whether that user exists.
const (
	Allowed Decision = iota
	Unauthenticated
	Forbidden
	OtherUser
)

// permissions lists the actions of each kind. A viewer may do them to their own user only.
var permissions = map[Kind][]Action{
	Unrestricted: {ReadStreams, StartStream, StopStream, EndStreams, ReadTotals, ReadRules, WriteRules, ReadMetrics, ExportData, EraseData, EndAnyStreams},
	Service:      {ReadStreams, StartStream, StopStream, EndStreams, ReadTotals, ReadRules, WriteRules, ReadMetrics, ExportData, EraseData, EndAnyStreams},
	Reader:       {ReadStreams, ReadTotals, ReadRules, ReadMetrics},
	Operator:     {ReadStreams, StopStream, EndStreams, ReadTotals, ReadRules, WriteRules, ReadMetrics, ExportData, EraseData, EndAnyStreams},
	Viewer:       {ReadStreams, StartStream, StopStream, EndStreams},
	Scraper:      {ReadMetrics},
	Edge:         {},
}

// Authorize decides whether c may do a to user, "" if the action is about no user.
func (c Caller) Authorize(a Action, user string) Decision {
	switch {
	case a == NoAction || a >= actions:
		return Forbidden
	case c.Kind == Anonymous:
		return Unauthenticated
	case !slices.Contains(permissions[c.Kind], a):
		return Forbidden
	case c.Kind == Viewer && user != c.Name:
		return OtherUser
	}
	return Allowed
}
