package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"regexp"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"streamcount/api/apitype"
)

// A kind is one type of problem. Clients branch on its status and type; people
// read its title, and its help at /problems/{name}.
type kind struct {
	name   string
	status int
	title  string
	help   string
}

// The kinds of problems.
var (
	limitReached = kind{"limit-reached", http.StatusForbidden, "Maximum number of streams reached",
		"The user already has as many streams as the limit allows. The answer lists them, so that a player can " +
			"offer to stop one. A slot also comes back by itself when a stream goes silent for its time to live; " +
			"Retry-After says when the first could."}
	unauthorized = kind{"unauthorized", http.StatusUnauthorized, "Credential required",
		"The call needs a credential, or the one it came with is not good. Send an API key or a viewer's token as " +
			"'Authorization: Bearer ...'. Heartbeats and stops of a stream need only its id, unless the service is " +
			"configured otherwise. Players play on."}
	forbidden = kind{"forbidden", http.StatusForbidden, "Not allowed",
		"The credential is good, but not for this call: a key that may only read cannot write, and a viewer's " +
			"token is not for operators. This is not the limit: that refusal has its own title and type."}
	foreign = kind{"not-your-user", http.StatusNotFound, "No such user for this caller",
		"A viewer's token speaks for the user it names and for nobody else. Of others it is told nothing, not even " +
			"whether they exist."}
	streamEnded = kind{"stream-ended", http.StatusGone, "Stream has ended",
		"The stream is gone for good, and 'reason' says how it ended. After 'expired' and 'ended' start again " +
			"quietly; after the other reasons tell the viewer."}
	userNotFound = kind{"user-not-found", http.StatusNotFound, "User not found",
		"The user has no streams. For this service a user with no streams does not exist."}
	nothingToStop = kind{"nothing-to-stop", http.StatusNotFound, "User has no active streams to stop",
		"A stop without a stream id ends the stream least recently heard from, and the user has none."}
	streamNotFound = kind{"stream-not-found", http.StatusNotFound, "Stream not found",
		"The stream id was not made by this service for this user. Use the id that the user's own start returned."}
	planNotFound = kind{"plan-not-found", http.StatusNotFound, "Plan not found",
		"There is no plan of that name. The plans are listed at /api/v1/plans."}
	overrideNotFound = kind{"override-not-found", http.StatusNotFound, "User has no limit of their own",
		"Nothing was set for this user, whose limit is that of a plan, or the default: 'limit' says what it is."}
	rulesChanged = kind{"rules-changed", http.StatusConflict, "Rules have changed",
		"A limit or plan was changed after the dry run whose revision was sent, so nothing was applied. Look at the " +
			"differences again."}
	notFound = kind{"not-found", http.StatusNotFound, "No such address",
		"Nothing is served at this path. Paths are taken literally: no trailing slash, no doubled slashes, no " +
			"dot segments and no encoded slash. The calls are described at /docs."}
	methodNotAllowed = kind{"method-not-allowed", http.StatusMethodNotAllowed, "Method not allowed",
		"The path exists, but not with this method. The Allow header names the methods it has."}
	malformed = kind{"malformed-request", http.StatusBadRequest, "Request cannot be read",
		"The request is not well formed, or could be read in more than one way: bad JSON, more than one " +
			"document, duplicate keys, too deep nesting, a bad query, or an unclear length."}
	tooSlow = kind{"request-timeout", http.StatusRequestTimeout, "Request took too long to arrive",
		"The body of the request did not arrive in time. Send it again."}
	bodyTooLarge = kind{"body-too-large", http.StatusRequestEntityTooLarge, "Request body is too large",
		"A body may have 16 KiB; a batch of heartbeats 512 KiB."}
	targetTooLong = kind{"target-too-long", http.StatusRequestURITooLong, "Request target is too long",
		"The path and query together may have 2 KiB."}
	mediaType = kind{"unsupported-media-type", http.StatusUnsupportedMediaType, "Unsupported media type",
		"Send the body as application/json in UTF-8, without a content encoding."}
	invalid = kind{"invalid-request", http.StatusUnprocessableEntity, "Request is not valid",
		"The request was read, but something in it breaks a rule. 'errors' says what, and where."}
	tooManyRequests = kind{"too-many-requests", http.StatusTooManyRequests, "Too many requests",
		"The user, the API key or the address has sent more requests than it may, by far. Players play on and try " +
			"again after Retry-After. This is not the limit of streams."}
	crossOrigin = kind{"cross-origin", http.StatusForbidden, "Request from another origin",
		"A page of another origin tried to change something. If it is one of yours, have its origin allowed by " +
			"cors-origins. This is not the limit of streams."}
	misdirected = kind{"misdirected-request", http.StatusMisdirectedRequest, "Request for another host",
		"The Host of the request is not a name of this service. On a node that only its own machine can reach " +
			"that is localhost or 127.0.0.1; others are allowed by the setting hosts."}
	headersTooLarge = kind{"too-many-headers", http.StatusRequestHeaderFieldsTooLarge,
		"Too many request headers", "A request may have 100 headers in 8 KiB."}
	internal = kind{"internal-error", http.StatusInternalServerError, "Internal error",
		"Something went wrong on our side; the node's log has the detail. Players play on and try again."}
	overloaded = kind{"overloaded", http.StatusServiceUnavailable, "Server is overloaded",
		"The node serves as many requests as it can. Players play on and try again after Retry-After."}
	unavailable = kind{"unavailable", http.StatusServiceUnavailable, "Service temporarily unavailable",
		"The node could not reach its store in time. The outcome of a start is unknown: try again with the same " +
			"session and it will not count twice. Players play on and try again after Retry-After."}
)

// allKinds lists the kinds, the more general one of a status first.
func allKinds() []kind {
	return []kind{
		malformed, unauthorized, limitReached, forbidden, crossOrigin, notFound, foreign, userNotFound, planNotFound,
		overrideNotFound, streamNotFound, nothingToStop, methodNotAllowed, tooSlow, rulesChanged, misdirected,
		tooManyRequests,
		streamEnded, bodyTooLarge, targetTooLong, mediaType, invalid, headersTooLarge, internal, unavailable,
		overloaded,
	}
}

// A problem is an error that can be answered as it is.
type problem struct {
	apitype.Problem
	header http.Header
}

func (k kind) problem(detail string) *problem {
	return &problem{
		Problem: apitype.Problem{
			Type: "/problems/" + k.name, Title: k.title, Status: k.status, Detail: detail, Text: k.title,
		},
		header: http.Header{},
	}
}

// at adds where in the request the problem is.
func (p *problem) at(location, message string) *problem {
	p.Errors = append(p.Errors, apitype.FieldError{Location: location, Message: message})
	return p
}

// with adds a header to the answer.
func (p *problem) with(name, value string) *problem {
	p.header.Set(name, value)
	return p
}

// Error makes a problem an error; GetStatus, GetHeaders and ContentType are
// what huma asks of one.
func (p *problem) Error() string { return p.Title + ": " + p.Detail }

// GetStatus returns the status to answer with.
func (p *problem) GetStatus() int { return p.Status }

// GetHeaders returns the headers to answer with.
func (p *problem) GetHeaders() http.Header { return p.header }

// ContentType returns the media type of problems.
func (p *problem) ContentType(string) string { return problemType }

// write answers with p, outside huma.
func (p *problem) write(w http.ResponseWriter) {
	for name, values := range p.header {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	_ = json.NewEncoder(w).Encode(p) // the client is gone: there is nobody to tell
}

// huma takes its error type and its rule for the case of property names from
// package variables alone.
func init() {
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return humaProblem(status, msg, errs)
	}
	huma.ValidateStrictCasing = true
	huma.DefaultArrayNullable = false
}

// humaProblem makes a problem of what huma found wrong, without the values that
// huma would repeat.
func humaProblem(status int, msg string, errs []error) *problem {
	k := internal
	for _, known := range allKinds() {
		if known.status == status {
			k = known
			break
		}
	}
	if k.status >= http.StatusInternalServerError {
		return k.problem("The request could not be served.")
	}
	p := k.problem(msg)
	for _, err := range errs {
		var d *huma.ErrorDetail
		if errors.As(err, &d) {
			p = p.at(safeLocation(d.Location), d.Message)
		}
	}
	if len(p.Errors) > 0 {
		p.Detail = strings.TrimPrefix(p.Errors[0].Location+": "+p.Errors[0].Message, ": ")
	}
	return p
}

// plainLocation matches the paths of our own fields, and of near misses that
// are worth naming. Any other name is the client's data.
var plainLocation = regexp.MustCompile(`^[a-z]+(\.[A-Za-z0-9_]{1,40}(\[[0-9]{1,4}\])?){0,8}$`)

// safeLocation cuts a location down to the part that does not repeat data.
func safeLocation(loc string) string {
	for !plainLocation.MatchString(loc) {
		i := strings.LastIndexByte(loc, '.')
		if i < 0 {
			return ""
		}
		loc = loc[:i]
	}
	return loc
}
