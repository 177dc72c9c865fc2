package client

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"time"

	"streamcount/api/apitype"
)

var (
	// ErrLimit means that the user has as many streams as a limit allows. The error is a
	// [*LimitError]. No other error means that.
	ErrLimit = errors.New("maximum number of streams reached")
	// ErrEnded means that a stream has ended permanently. The error is an [*EndedError].
	ErrEnded = errors.New("stream has ended")
	// ErrInvalid means that an argument is invalid, and no request was sent.
	ErrInvalid = errors.New("invalid argument")
	// ErrPlaintext means that a credential would be sent unencrypted.
	ErrPlaintext = errors.New("the credential could be read on the network: use https")
	// ErrClosed means that the Client was closed.
	ErrClosed = errors.New("client is closed")
)

// errUnreadable means that an answer is not the service's, such as the page of a proxy. It
// implies nothing about a stream.
var errUnreadable = errors.New("unreadable answer")

// The reasons after which a client starts again without a message. After all others, known
// or not, it notifies the viewer.
const (
	ReasonExpired = "expired" // no heartbeat arrived within the TTL
	ReasonEnded   = "ended"   // the reason is no longer known
)

// An EndedError is the reason why a stream has ended. It is an [ErrEnded].
type EndedError struct {
	// Reason is stopped, expired, replaced, evicted, removed or ended. Later versions of
	// the service may have others; the viewer is notified after those as well.
	Reason string
	By     *apitype.By // the stream that took its place, if known
	// Cause is the error of the last heartbeat, if the stream expired without an answer of the
	// service. It is nil otherwise.
	Cause error
}

func (e *EndedError) Error() string {
	if e.Cause != nil {
		return fmt.Sprintf("%v: %s: %v", ErrEnded, e.Reason, e.Cause)
	}
	return fmt.Sprintf("%v: %s", ErrEnded, e.Reason)
}

// Unwrap makes an EndedError an [ErrEnded], and its Cause.
func (e *EndedError) Unwrap() []error {
	if e.Cause == nil {
		return []error{ErrEnded}
	}
	return []error{ErrEnded, e.Cause}
}

// A ProblemError is any other answer that is not a success.
type ProblemError struct {
	// Problem is the service's answer. If the answer was not a problem of the service, only
	// Status and Title are set, from the HTTP status.
	Problem    apitype.Problem
	RetryAfter time.Duration // 0 if the answer has none
}

func (e *ProblemError) Error() string {
	p := e.Problem
	text := cmp.Or(p.Title, http.StatusText(p.Status), "unknown status")
	if p.Detail != "" {
		text += ": " + p.Detail
	}
	for _, f := range p.Errors[:min(len(p.Errors), maxMembers)] {
		text += fmt.Sprintf("; %s: %s", f.Location, f.Message)
	}
	return fmt.Sprintf("%d %s", p.Status, text)
}

// maxMembers is the maximum number of invalid members that an error names.
const maxMembers = 20

// notFoundType is the type of the problem of an unknown path, as opposed to an unknown
// stream: the server address is wrong.
const notFoundType = "/problems/not-found"

// unknownStream reports whether the service itself, and not a proxy, answered that the stream
// does not exist.
func (e *ProblemError) unknownStream() bool {
	p := e.Problem
	return p.Status == http.StatusNotFound && p.Type != "" && p.Type != notFoundType
}

// asEnded returns err as an EndedError if it means that the stream has ended.
func asEnded(err error) (*EndedError, bool) {
	if ended, ok := errors.AsType[*EndedError](err); ok {
		return ended, true
	}
	if p, ok := errors.AsType[*ProblemError](err); ok && p.unknownStream() {
		return &EndedError{Reason: ReasonEnded}, true
	}
	return nil, false
}

// transient reports whether the same request may succeed later.
func transient(err error) bool {
	if errors.Is(err, ErrLimit) || errors.Is(err, ErrEnded) || errors.Is(err, ErrInvalid) {
		return false
	}
	p, ok := errors.AsType[*ProblemError](err)
	if !ok {
		return true // no answer, or an unreadable one
	}
	switch p.Problem.Status {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return p.Problem.Status >= 500
}

// rejection returns err as a ProblemError, and whether the service rejected the request itself:
// the error is neither the limit, nor the end of a stream, nor a transient failure.
func rejection(err error) (*ProblemError, bool) {
	p, ok := errors.AsType[*ProblemError](err)
	return p, ok && !transient(err)
}

// retryAfter returns the Retry-After of the answer; 0 if it has none.
func retryAfter(err error) time.Duration {
	if p, ok := errors.AsType[*ProblemError](err); ok {
		return p.RetryAfter
	}
	return 0
}
