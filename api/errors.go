package api

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"streamcount/lease"
)

// errNothingToStop is lease.ErrNoStreams where the call was a stop without an
// id: the same finding under the title that clients of that call know.
var errNothingToStop = errors.New("api: no streams to stop")

// refusals is where errors meet HTTP. An error not listed is our fault: 500, a
// fixed text, and the detail in the log alone.
var refusals = []struct {
	err    error
	kind   kind
	detail string
}{
	{lease.ErrLimit, limitReached, "The user's slots are all taken. Stop one of the active streams, or wait."},
	{lease.ErrEnded, streamEnded, "This stream id will not work again. Start a new stream to play on."},
	{errNothingToStop, nothingToStop, "The user has no streams: there is nothing left to stop."},
	{lease.ErrNoStreams, userNotFound, "The user has no streams."},
	{lease.ErrForeignID, streamNotFound, "The stream id is not one of this user's."},
	{lease.ErrBadID, invalid, "The stream id is malformed. Use the id that start returned, unchanged."},
	{lease.ErrBadUser, invalid, "The user id is malformed: " + userRule + "."},
	{lease.ErrBadCursor, invalid, "The place in the events is none: send the id of an event as it was received."},
	{errPlanInPath, planNotFound, "There is no plan of that name."},
	{lease.ErrNoPlan, invalid, "There is no plan of the name that the body gives. Make it first, or name another."},
	{lease.ErrNoOverride, overrideNotFound, "The user has no limit or plan of their own: nothing to read or remove."},
	{lease.ErrBadRule, invalid, "A limit is 0 to 60, a plan's name " + planRule + ", and a set has at most 1000 rules."},
	{lease.ErrRuleChanged, rulesChanged, "A rule was changed since that revision. Nothing was applied: look again."},
	{lease.ErrUnavailable, unavailable, tryAgain},
	{lease.ErrRouting, unavailable, tryAgain}, // the router has tried until the deadline
	{lease.ErrInUse, unavailable, tryAgain},   // no call asks for what it refuses
	{context.DeadlineExceeded, unavailable, tryAgain},
	{context.Canceled, unavailable, tryAgain},
}

const (
	tryAgain = "The store did not answer in time. Play on, and try again after the seconds in Retry-After."
	userRule = "1 to 128 characters out of A-Z a-z 0-9 . _ ~ @ : | + = -"
)

// toProblem turns an error of a handler into the answer for it.
func toProblem(err error) *problem {
	var p *problem
	if errors.As(err, &p) {
		return p
	}
	for _, r := range refusals {
		if errors.Is(err, r.err) {
			return r.kind.problem(r.detail).because(err)
		}
	}
	return internal.problem("The request could not be served.")
}

// because fills in the members and headers that only some refusals have.
func (p *problem) because(err error) *problem {
	switch {
	case errors.Is(err, lease.ErrLimit):
		full := &lease.LimitError{}
		errors.As(err, &full)
		held := len(full.Active)
		p.Limit, p.Streams, p.Active = &full.Limit, &held, streams(full.Active)
		p.Counted = counted(full.Counted, held)
		p.kept(full)
		return p.with("Retry-After", strconv.Itoa(wholeSeconds(full.RetryAfter)))
	case errors.Is(err, lease.ErrNoPlan):
		return p.at("body", "names a plan that does not exist")
	case errors.Is(err, lease.ErrNoOverride):
		none := &lease.NoOverrideError{}
		errors.As(err, &none)
		p.Limit = &none.Limit
	case errors.Is(err, lease.ErrEnded):
		end := &lease.EndedError{Reason: lease.ReasonEnded}
		errors.As(err, &end)
		p.Reason, p.By = string(end.Reason), by(end.By)
	case p.Status == unavailable.status:
		return p.with("Retry-After", soon())
	}
	return p
}

// kept says why a start that asked for replace-oldest replaced nobody.
func (p *problem) kept(full *lease.LimitError) {
	switch full.Kept {
	case lease.KeptByPlan:
		p.Detail = "The user's slots are all taken, and the user's plan does not let a start end another stream. Stop " +
			"one of the active streams, or wait."
	case lease.KeptCooling:
		p.EvictAfterSeconds = wholeSeconds(full.EvictAfter)
		p.Detail = fmt.Sprintf("The user's slots are all taken. This session or device was itself ended by "+
			"another start a moment ago, so it may end another stream only after %d seconds. Stop one of the active "+
			"streams, or wait.", p.EvictAfterSeconds)
	}
}

// refuse is toProblem with a note for the request's line in the log.
func refuse(ctx context.Context, err error) *problem {
	p := toProblem(err)
	if rec, ok := ctx.Value(recorderKey{}).(*recorder); ok && p.Status >= 500 {
		rec.err = err
		rec.gone = errors.Is(ctx.Err(), context.Canceled) // nobody is left to read the answer
	}
	return p
}

// wholeSeconds rounds up, so that whoever waits that long does not come early.
func wholeSeconds(d time.Duration) int {
	return max(1, int((d+time.Second-1)/time.Second))
}

// soon is a Retry-After of 1 to 5 seconds, spread so that the clients of an
// outage do not come back as one.
func soon() string { return strconv.Itoa(1 + rand.IntN(5)) }
