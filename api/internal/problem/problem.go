// Package problem holds the errors of the HTTP API as clients receive them: problems
// according to RFC 9457, each of one of the types in a table.
package problem

import (
	"encoding/json"
	"net/http"

	"streamcount/api/apitype"
)

// A Type is a type of problem. Clients act on its status and its name. The title is for
// people, and so is the help text, which is served at /problems/{name}.
type Type struct {
	Name   string
	Status int
	Title  string
	Help   string
}

// The types of problems.
var (
	LimitReached = Type{"limit-reached", http.StatusForbidden, "Maximum number of streams reached",
		"The user already has as many streams as the limit allows. The response lists the streams, so that a player can " +
			"offer to stop one. A slot also becomes free when a stream expires; Retry-After is the time until the first of " +
			"the streams could expire."}
	Unauthorized = Type{"unauthorized", http.StatusUnauthorized, "Credential required",
		"The call requires a credential, or the credential is not valid. Send an API key or a viewer's token as " +
			"'Authorization: Bearer ...'. Heartbeats and stops of a stream require only its id, unless the service is " +
			"configured otherwise. Players continue playback."}
	Forbidden = Type{"forbidden", http.StatusForbidden, "Not allowed",
		"The credential is valid, but does not permit this call: a key of scope read cannot write, and a viewer's " +
			"token cannot make calls for operators. This is not the limit of streams, which has its own title and type."}
	NotYourUser = Type{"not-your-user", http.StatusNotFound, "No such user for this caller",
		"A viewer's token permits only calls about the user that it names. The response does not show whether another " +
			"user exists."}
	StreamEnded = Type{"stream-ended", http.StatusGone, "Stream has ended",
		"The stream has ended, and 'reason' says why. After 'expired' and 'ended', start a new stream without asking the " +
			"viewer. After the other reasons, inform the viewer."}
	UserNotFound = Type{"user-not-found", http.StatusNotFound, "User not found",
		"The user has no streams. A user without streams does not exist for this service. In a response to a call about " +
			"the data of the user: nothing is stored about them."}
	NothingToStop = Type{"nothing-to-stop", http.StatusNotFound, "User has no active streams to stop",
		"A stop without a stream id ends the stream with the oldest heartbeat, and the user has no streams."}
	StreamNotFound = Type{"stream-not-found", http.StatusNotFound, "Stream not found",
		"This service did not issue the stream id for this user. Use the id from the response to the user's start."}
	PlanNotFound = Type{"plan-not-found", http.StatusNotFound, "Plan not found",
		"There is no plan with that name. GET /api/v1/plans lists the plans."}
	OverrideNotFound = Type{"override-not-found", http.StatusNotFound, "User has no limit of their own",
		"No limit or plan is set for this user. The limit comes from the default plan, and 'limit' is its value."}
	RulesChanged = Type{"rules-changed", http.StatusConflict, "Rules have changed",
		"A limit or plan was changed after the dry run whose revision was sent, so nothing was applied. Make a new dry " +
			"run."}
	OlderNodes = Type{"older-nodes", http.StatusConflict, "Older nodes are running",
		"A plan or limit needs a feature that some registered nodes do not support, and those nodes would enforce only a part " +
			"of it. 'nodes' names them. Nothing was applied. Finish the upgrade of all nodes, wait until the older ones are no " +
			"longer registered, and repeat the request."}
	NotFound = Type{"not-found", http.StatusNotFound, "No such address",
		"Nothing is served at this path. Paths are matched exactly: no trailing slash, no doubled slashes, no dot " +
			"segments, and no encoded slash except in a user id. /docs describes the calls."}
	MethodNotAllowed = Type{"method-not-allowed", http.StatusMethodNotAllowed, "Method not allowed",
		"The path exists, but not with this method. The Allow header lists the methods."}
	Malformed = Type{"malformed-request", http.StatusBadRequest, "Request cannot be read",
		"The request is not well formed, or has more than one possible meaning: invalid JSON, more than one JSON " +
			"document, duplicate names, too deep nesting, an invalid query, or an ambiguous length."}
	RequestTimeout = Type{"request-timeout", http.StatusRequestTimeout, "Request took too long to arrive",
		"The body of the request did not arrive in time. Send it again."}
	BodyTooLarge = Type{"body-too-large", http.StatusRequestEntityTooLarge, "Request body is too large",
		"The maximum size of a body is 16 KiB, and 512 KiB for a batch of heartbeats, a set of rules, or a try of a plan."}
	TargetTooLong = Type{"target-too-long", http.StatusRequestURITooLong, "Request target is too long",
		"The maximum length of the path and the query together is 2 KiB."}
	UnsupportedMediaType = Type{"unsupported-media-type", http.StatusUnsupportedMediaType, "Unsupported media type",
		"Send the body as application/json in UTF-8, without a content encoding."}
	Invalid = Type{"invalid-request", http.StatusUnprocessableEntity, "Request is not valid",
		"The request is well formed, but something in it is not valid. 'errors' lists what is wrong, and where."}
	TooManyRequests = Type{"too-many-requests", http.StatusTooManyRequests, "Too many requests",
		"The user, the API key or the address has sent many more requests than are allowed. Players continue playback, " +
			"and retry after the time in Retry-After. This is not the limit of streams."}
	CrossOrigin = Type{"cross-origin", http.StatusForbidden, "Request from another origin",
		"A page of another origin tried to change something. If the page is yours, add its origin to the setting " +
			"cors-origins. This is not the limit of streams."}
	Misdirected = Type{"misdirected-request", http.StatusMisdirectedRequest, "Request for another host",
		"The Host of the request is not a name of this service, or the request came through a proxy to a node that " +
			"requires no credential. A node that listens only on loopback accepts localhost and 127.0.0.1; a node with " +
			"auth-none accepts IP addresses and the names of its machine. The setting hosts adds other names, such as " +
			"that of a Kubernetes Service."}
	HeadersTooLarge = Type{"too-many-headers", http.StatusRequestHeaderFieldsTooLarge,
		"Too many request headers", "A request may have at most 100 headers and 8 KiB of headers."}
	Internal = Type{"internal-error", http.StatusInternalServerError, "Internal error",
		"An error occurred in the service. The log of the node has the details. Players continue playback, and retry."}
	Overloaded = Type{"overloaded", http.StatusServiceUnavailable, "Server is overloaded",
		"The node has reached one of its limits. Players continue playback, and retry after the time in Retry-After."}
	Unavailable = Type{"unavailable", http.StatusServiceUnavailable, "Service temporarily unavailable",
		"The node could not reach etcd in time. The outcome of a start is unknown: retry it with the same session, and " +
			"it is counted once. Players continue playback, and retry after the time in Retry-After."}
)

// Types lists the types. Of those with the same status, the most general comes first.
func Types() []Type {
	return []Type{
		Malformed, Unauthorized, LimitReached, Forbidden, CrossOrigin, NotFound, NotYourUser, UserNotFound, PlanNotFound,
		OverrideNotFound, StreamNotFound, NothingToStop, MethodNotAllowed, RequestTimeout, RulesChanged, OlderNodes,
		Misdirected,
		TooManyRequests, StreamEnded, BodyTooLarge, TargetTooLong, UnsupportedMediaType, Invalid, HeadersTooLarge, Internal,
		Unavailable, Overloaded,
	}
}

// MediaType is the media type of problems.
const MediaType = "application/problem+json"

// A Problem is an error in the form in which clients receive it.
type Problem struct {
	apitype.Problem
	header http.Header
}

// New returns a problem of type t. detail says what is wrong and what to do.
func (t Type) New(detail string) *Problem {
	return &Problem{
		Problem: apitype.Problem{
			Type: "/problems/" + t.Name, Title: t.Title, Status: t.Status, Detail: detail, Text: t.Title,
		},
		header: http.Header{},
	}
}

// WithField adds the location of an error in the request.
func (p *Problem) WithField(location, message string) *Problem {
	p.Errors = append(p.Errors, apitype.FieldError{Location: location, Message: message})
	return p
}

// WithHeader adds a header to the response.
func (p *Problem) WithHeader(name, value string) *Problem {
	p.header.Set(name, value)
	return p
}

// Error returns the title and the detail.
func (p *Problem) Error() string { return p.Title + ": " + p.Detail }

// GetStatus returns the status of the response. It implements huma.StatusError.
func (p *Problem) GetStatus() int { return p.Status }

// GetHeaders returns the headers of the response. It implements huma.HeadersError.
func (p *Problem) GetHeaders() http.Header { return p.header }

// ContentType returns the media type of problems. It implements huma.ContentTypeFilter.
func (p *Problem) ContentType(string) string { return MediaType }

// A Recorder is a response writer that records the problem of a response.
type Recorder interface{ RecordProblem(p *Problem) }

// Write writes p as the response.
func (p *Problem) Write(w http.ResponseWriter) {
	if rec, ok := w.(Recorder); ok {
		rec.RecordProblem(p)
	}
	for name, values := range p.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", MediaType)
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // fails only if the client is gone
}
