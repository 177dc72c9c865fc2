package lease

import (
	"errors"
	"fmt"
	"time"

	"streamcount/lease/internal/etcdop"
	"streamcount/lease/internal/schema"
	"streamcount/lease/migration"
	"streamcount/lease/policy"
)

var (
	// ErrLimit means that the user is at the limit. The error is a [*LimitError].
	ErrLimit = errors.New("lease: maximum number of streams reached")
	// ErrEnded means that the stream has ended. The error is an [*EndedError].
	ErrEnded = schema.ErrEnded
	// ErrNoStreams means that the user has no streams.
	ErrNoStreams = errors.New("lease: user has no streams")
	// ErrBadUser means that the user id is not valid. See [userid.Rule].
	ErrBadUser = schema.ErrBadUserID
	// ErrRouting means that the routing record is not the one that the caller used. Nothing
	// was written.
	ErrRouting = schema.ErrRouting
	// ErrInUse means that there are streams where there should be none.
	ErrInUse = migration.ErrInUse
	// ErrUnavailable means that etcd did not answer in time, or rejected the call for
	// a reason that the caller cannot change. The outcome of a write is unknown.
	ErrUnavailable = etcdop.ErrUnavailable
)

// A LimitError rejects a start of a user at the limit. It lists the streams from which
// the user can choose one to end. It is an [ErrLimit].
type LimitError struct {
	Limit   int      // of the first limit that rejects the start
	Counted int      // what Active counts for, if the limit does not count every stream
	Active  []Stream // oldest first
	// Limits are the limits that reject the start, and Blocking says for each stream in
	// Active which of them it counts for. Both are empty unless the plan has several limits.
	Limits   []policy.RefusingLimit
	Blocking []policy.Blocking
	// RetryAfter is the time until the first of Active expires if it gets no further
	// heartbeat. It is at least a second.
	RetryAfter time.Duration
	// NoEviction is why a start with ReplaceOldest ended no stream.
	NoEviction NoEvictionReason
	// EvictAfter is when it may, if NoEviction is NoEvictionCooldown.
	EvictAfter time.Duration
}

// A NoEvictionReason is why a start with [policy.ReplaceOldest] did not end the oldest
// stream.
type NoEvictionReason string

// The values of NoEvictionReason. It is empty for other starts.
const (
	NoEvictionPlan     NoEvictionReason = "plan"    // the user's plan does not allow it, or a limit of the plan does not
	NoEvictionCooldown NoEvictionReason = "cooling" // the start's session or device was evicted less than a cool-down ago
)

func (e *LimitError) Error() string {
	if len(e.Limits) > 0 {
		return fmt.Sprintf("%v: limit %s: %d of %d", ErrLimit, e.Limits[0].Name, e.Counted, e.Limit)
	}
	return fmt.Sprintf("%v: %d of %d", ErrLimit, len(e.Active), e.Limit)
}

// LimitNames returns the names of Limits.
func (e *LimitError) LimitNames() []string { return policy.LimitNames(e.Limits) }

// Unwrap makes a LimitError an [ErrLimit].
func (e *LimitError) Unwrap() error { return ErrLimit }

// A Replacement describes the stream that took the place of an ended one.
type Replacement struct {
	Device    Device
	StartedAt time.Time
}

// An EndedError says why a stream has ended, as far as that is known. It is an
// [ErrEnded].
type EndedError struct {
	Reason policy.Reason
	By     *Replacement // nil unless another stream took its place
}

func (e *EndedError) Error() string { return fmt.Sprintf("%v: %s", ErrEnded, e.Reason) }

// Unwrap makes an EndedError an [ErrEnded].
func (e *EndedError) Unwrap() error { return ErrEnded }

// endedError returns the error for a stream whose end t describes.
func endedError(t schema.Tombstone) *EndedError {
	return &EndedError{Reason: t.Reason, By: newReplacement(t.By)}
}

// newReplacement returns the replacement that r describes; nil for nil.
func newReplacement(r *schema.Replacement) *Replacement {
	if r == nil {
		return nil
	}
	return &Replacement{Device: Device(r.Device), StartedAt: time.UnixMilli(r.Started)}
}
