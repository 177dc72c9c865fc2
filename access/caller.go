package access

import "slices"

// Kind is a kind of caller.
type Kind uint8

// The kinds. Anonymous comes without a credential.
const (
	Anonymous Kind = iota
	Anyone         // whoever reaches a service that asks for no credentials
	Service        // an API key of scope all
	Reader         // an API key of scope read
	Operator       // an API key of scope operator
	Viewer         // a token that speaks for one user
	kinds          // how many there are
)

func (k Kind) String() string {
	return [...]string{"anonymous", "anyone", "service", "reader", "operator", "viewer"}[k]
}

// Caller is who makes a call. None of its fields is secret.
type Caller struct {
	Kind Kind
	Name string // of the API key; of a viewer the user
	// What a viewer's token says of its user, "" and nil if nothing.
	Plan  string
	Limit *int
}

// String is for logs: the kind, and the name if there is one.
func (c Caller) String() string {
	if c.Name == "" {
		return c.Kind.String()
	}
	return c.Kind.String() + " " + c.Name
}

// Action is something that a call does.
type Action uint8

// The actions. A call that does Nothing known is nobody's to make.
const (
	Nothing     Action = iota
	ReadStreams        // of one user
	StartStream        // of one user
	StopStream         // and heartbeat, of a stream whose id the caller knows
	EndStreams         // of one user, without ids
	ReadTotals         // and events
	ReadRules          // limits and plans
	WriteRules
	actions // how many there are
)

// Decision is whether a caller may do something.
type Decision uint8

// The decisions. Unauthenticated may be allowed with a credential; Foreign is a
// viewer's call about another user, of whom nothing must be told.
const (
	Allowed Decision = iota
	Unauthenticated
	Forbidden
	Foreign
)

// may lists what each kind may do; a viewer to his own user alone.
var may = map[Kind][]Action{
	Anyone:   {ReadStreams, StartStream, StopStream, EndStreams, ReadTotals, ReadRules, WriteRules},
	Service:  {ReadStreams, StartStream, StopStream, EndStreams, ReadTotals, ReadRules, WriteRules},
	Reader:   {ReadStreams, ReadTotals, ReadRules},
	Operator: {ReadStreams, StopStream, EndStreams, ReadTotals, ReadRules, WriteRules},
	Viewer:   {ReadStreams, StartStream, StopStream, EndStreams},
}

// May decides whether c may do a to user, "" if the action is about no user.
func (c Caller) May(a Action, user string) Decision {
	switch {
	case a == Nothing || a >= actions:
		return Forbidden
	case c.Kind == Anonymous:
		return Unauthenticated
	case !slices.Contains(may[c.Kind], a):
		return Forbidden
	case c.Kind == Viewer && user != c.Name:
		return Foreign
	}
	return Allowed
}
