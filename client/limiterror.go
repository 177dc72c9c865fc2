package client

import (
	"fmt"
	"time"

	"streamcount/api/apitype"
)

// A LimitError is a refused start, with the streams from which the viewer can choose. It is
// an [ErrLimit].
type LimitError struct {
	Limit   int              // of Limits[0], if there are any
	Streams int              // how many the user has
	Counted int              // what Active counts for toward Limit
	Active  []apitype.Stream // the streams that hold the slots, oldest first
	// Limits are the limits that refuse the start, if the user's plan has several; otherwise
	// it is empty. Each stream in Active then has Blocks, the names of those that it counts
	// for, and Enough.
	Limits []apitype.RefusingLimit
	// Detail is the reason as a text in English. It is the message of Limits[0], if that has one.
	Detail string
	// RetryAfter is the time until the first of Active could expire; 0 if unknown.
	RetryAfter time.Duration
	// EvictAfter is the time until a start with replace-oldest may evict a stream, if its own
	// session or device was evicted recently; otherwise 0.
	EvictAfter time.Duration
}

func (e *LimitError) Error() string {
	if len(e.Limits) > 0 {
		return fmt.Sprintf("%v: limit %s: %d of %d", ErrLimit, e.Limits[0].Name, e.Counted, e.Limit)
	}
	return fmt.Sprintf("%v: %d of %d", ErrLimit, e.Streams, e.Limit)
}

// Unwrap makes a LimitError an [ErrLimit].
func (e *LimitError) Unwrap() error { return ErrLimit }

// Message returns the text for viewers that the plan has for the limits that refuse the start.
// If several have one, it is the first. It is empty if none has one.
func (e *LimitError) Message() string {
	for _, l := range e.Limits {
		if l.Message != "" {
			return l.Message
		}
	}
	return ""
}

// Enough returns the streams of which the end of any one is enough for the start: the start is
// admitted if its Replaces is the id of one of them, unless another start comes first. It is
// empty if several streams have to end, or if the plan forbids the start. Under a plan that has
// one limit, and counts devices or contents, the service does not report which they are, and
// Enough returns all streams.
func (e *LimitError) Enough() []apitype.Stream {
	var out []apitype.Stream
	for _, s := range e.Active {
		enough := e.Limit > 0 && e.Counted <= e.Limit
		if s.Enough != nil {
			enough = *s.Enough
		}
		if enough {
			out = append(out, s)
		}
	}
	return out
}
