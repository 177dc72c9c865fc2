package lease

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrLimit means that the user has as many streams as the limit allows.
	// The error that carries it is a [*LimitError].
	ErrLimit = errors.New("lease: maximum number of streams reached")
	// ErrEnded means that the stream is gone for good. The error that carries
	// it is an [*EndedError].
	ErrEnded = errors.New("lease: stream has ended")
	// ErrNoStreams means that the user has no streams: for this service the
	// user does not exist.
	ErrNoStreams = errors.New("lease: user has no streams")
	// ErrForeignID means that the stream id is well formed but was not made
	// for this user, or not by this service.
	ErrForeignID = errors.New("lease: not a stream of this user")
	// ErrBadID means that the text is not a stream id at all.
	ErrBadID = errors.New("lease: malformed stream id")
	// ErrBadUser means that the user id breaks the rule in [ValidUser].
	ErrBadUser = errors.New("lease: malformed user id")
	// ErrNoPlan means that there is no plan of that name.
	ErrNoPlan = errors.New("lease: no such plan")
	// ErrNoOverride means that the user has no limit or plan of his own. The
	// error that carries it is a [*NoOverrideError].
	ErrNoOverride = errors.New("lease: user has no override")
	// ErrBadRule means that a plan or an override, or its name, breaks a rule;
	// the error's text says which.
	ErrBadRule = errors.New("lease: not a valid rule")
	// ErrRuleChanged means that a rule was changed by somebody else meanwhile,
	// and that nothing was applied.
	ErrRuleChanged = errors.New("lease: the rules have changed")
	// ErrUnavailable means that etcd did not answer in time, or refused for a
	// reason that is not the caller's. The outcome of a write is unknown.
	ErrUnavailable = errors.New("lease: etcd is unavailable")
)

// A LimitError is a refused start with what the viewer needs to choose from.
// It is an [ErrLimit].
type LimitError struct {
	Limit   int
	Counted int      // what Active counts for, where the plan counts content or devices
	Active  []Stream // the streams that hold the slots, oldest first
	// RetryAfter is the time until the first of Active could lapse, were it
	// silent from now on. At least a second.
	RetryAfter time.Duration
	// Kept says why a start that asked for ReplaceOldest ended nobody.
	Kept Kept
	// EvictAfter is when it may, if Kept is KeptCooling.
	EvictAfter time.Duration
}

// Kept is a reason not to end the oldest stream in favour of a start.
type Kept string

// The reasons. A start that did not ask for it has none.
const (
	KeptByPlan  Kept = "plan"    // the user's plan does not allow it
	KeptCooling Kept = "cooling" // the start's session or device was itself evicted just now
)

func (e *LimitError) Error() string {
	return fmt.Sprintf("%v: %d of %d", ErrLimit, len(e.Active), e.Limit)
}

// Unwrap makes a LimitError an [ErrLimit].
func (e *LimitError) Unwrap() error { return ErrLimit }

// A NoOverrideError tells what the user has in place of an override. It is an
// [ErrNoOverride].
type NoOverrideError struct{ Limit int }

func (e *NoOverrideError) Error() string {
	return fmt.Sprintf("%v: the limit is %d", ErrNoOverride, e.Limit)
}

// Unwrap makes a NoOverrideError an [ErrNoOverride].
func (e *NoOverrideError) Unwrap() error { return ErrNoOverride }

// A Reason says how a stream ended.
type Reason string

// The reasons. ReasonEnded stands for every ending that is no longer known.
const (
	ReasonStopped  Reason = "stopped"
	ReasonExpired  Reason = "expired"
	ReasonReplaced Reason = "replaced" // by its own session, or by a start that named it
	ReasonEvicted  Reason = "evicted"  // by a start with replace-oldest
	ReasonRemoved  Reason = "removed"  // with all of the user's streams
	ReasonEnded    Reason = "ended"
)

// By describes the stream that took the place of an ended one.
type By struct {
	Device    Device
	StartedAt time.Time
}

// An EndedError says why a stream is gone, as far as that is known. It is an
// [ErrEnded].
type EndedError struct {
	Reason Reason
	By     *By // nil unless another stream took its place
}

func (e *EndedError) Error() string { return fmt.Sprintf("%v: %s", ErrEnded, e.Reason) }

// Unwrap makes an EndedError an [ErrEnded].
func (e *EndedError) Unwrap() error { return ErrEnded }
