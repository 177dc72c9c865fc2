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
	// ErrLimit means that the user has as many streams as the limit allows.
	// The error that carries it is a [*LimitError]. Nothing else means that.
	ErrLimit = errors.New("maximum number of streams reached")
	// ErrEnded means that a stream is gone for good. The error that carries it
	// is an [*EndedError].
	ErrEnded = errors.New("stream has ended")
	// ErrInvalid means that an argument cannot be right, and was not sent.
	ErrInvalid = errors.New("invalid argument")
	// ErrClosed means that the Client was closed.
	ErrClosed = errors.New("client is closed")
)

// errUnreadable marks an answer that is not the service's, such as the page of
// a proxy. It says nothing about any stream.
var errUnreadable = errors.New("unreadable answer")

// A LimitError is a refused start, with what the viewer needs to choose from.
// It is an [ErrLimit].
type LimitError struct {
	Limit   int
	Streams int
	Active  []apitype.Stream // what holds the slots, oldest first
	// RetryAfter is the time until the first of Active could lapse; 0 if the
	// service did not say.
	RetryAfter time.Duration
	// EvictAfter is how long a start with replace-oldest has to wait before it may
	// end another stream, because its session or device was itself ended by one;
	// else 0.
	EvictAfter time.Duration
}

func (e *LimitError) Error() string {
	return fmt.Sprintf("%v: %d of %d", ErrLimit, e.Streams, e.Limit)
}

// Unwrap makes a LimitError an [ErrLimit].
func (e *LimitError) Unwrap() error { return ErrLimit }

// The reasons that a client acts upon: after these two it starts again quietly,
// after all others it tells the viewer.
const (
	ReasonExpired = "expired" // it was silent for longer than its lease
	ReasonEnded   = "ended"   // why is no longer known
)

// An EndedError says why a stream is gone. It is an [ErrEnded].
type EndedError struct {
	Reason string      // stopped, expired, replaced, evicted, removed or ended
	By     *apitype.By // what took its place, where known
	// Cause is what kept heartbeats from being answered, where the stream was
	// given up without the service's word. It is nil otherwise.
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
	// Problem is what the service said. Where the answer was not a problem of
	// the service, only Status and Title are set, from the HTTP status.
	Problem    apitype.Problem
	RetryAfter time.Duration // 0 if the answer did not say
}

func (e *ProblemError) Error() string {
	p := e.Problem
	text := cmp.Or(p.Title, http.StatusText(p.Status), "unknown status")
	if p.Detail != "" {
		text += ": " + p.Detail
	}
	for _, f := range p.Errors {
		text += fmt.Sprintf("; %s: %s", f.Location, f.Message)
	}
	return fmt.Sprintf("%d %s", p.Status, text)
}

// noSuchPath is the service's word on an address rather than on a stream: we
// were pointed at the wrong one.
const noSuchPath = "/problems/not-found"

// noStream reports whether the service itself, rather than something between it
// and us, says that it knows no such stream.
func (e *ProblemError) noStream() bool {
	p := e.Problem
	return p.Status == http.StatusNotFound && p.Type != "" && p.Type != noSuchPath
}

// gone reports whether err is the service's word that a stream is no more.
func gone(err error) (*EndedError, bool) {
	if ended, ok := errors.AsType[*EndedError](err); ok {
		return ended, true
	}
	if p, ok := errors.AsType[*ProblemError](err); ok && p.noStream() {
		return &EndedError{Reason: ReasonEnded}, true
	}
	return nil, false
}

// transient reports whether the same request may be answered better later.
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

// retryAfter is what the answer behind err asked for; 0 if nothing.
func retryAfter(err error) time.Duration {
	if p, ok := errors.AsType[*ProblemError](err); ok {
		return p.RetryAfter
	}
	return 0
}
