package convert

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"streamcount/api/apitype"
	"streamcount/api/internal/problem"
	"streamcount/events"
	"streamcount/lease"
	"streamcount/lease/policy"
	"streamcount/lease/rules"
	"streamcount/lease/streamid"
	"streamcount/lease/userdata"
	"streamcount/lease/userid"
)

// ErrNothingToStop is lease.ErrNoStreams for a stop without an id, whose problem has a
// different title.
var ErrNothingToStop = errors.New("api: no streams to stop")

// ErrPlanInPath is policy.ErrNoPlan where the plan is what the path names.
var ErrPlanInPath = errors.New("api: no plan of the name in the path")

// PlanNameRule is the rule for the names of plans.
const PlanNameRule = "1 to 64 characters out of A-Z a-z 0-9 . _ -"

const tryAgain = "etcd did not respond in time. " + problem.RetryAdvice

// errorProblems maps errors to problems. Any other error is an internal error: status 500
// with a fixed text, and the error in the log.
var errorProblems = []struct {
	err    error
	kind   problem.Type
	detail string
}{
	{lease.ErrLimit, problem.LimitReached, "All of the user's slots are taken. Stop one of the active streams, or wait."},
	{lease.ErrEnded, problem.StreamEnded, "The stream id is no longer valid. Start a new stream to continue playback."},
	{ErrNothingToStop, problem.NothingToStop, "The user has no streams to stop."},
	{lease.ErrNoStreams, problem.UserNotFound, "The user has no streams."},
	{userdata.ErrNoData, problem.UserNotFound, "Nothing is stored about this user."},
	{streamid.ErrForeign, problem.StreamNotFound, "The stream id does not belong to this user."},
	{streamid.ErrHandle, problem.Invalid, "This is the handle of a stream, which callers with read access get instead of its id. Heartbeats " +
		"and stops do not accept handles. Send the id that start returned, or list the streams with a credential that may " +
		"stop them."},
	{streamid.ErrMalformed, problem.Invalid, "The stream id is malformed. Send the id exactly as start returned it."},
	{lease.ErrBadUser, problem.Invalid, "Invalid user id: expected " + userid.Rule + "."},
	{events.ErrBadCursor, problem.Invalid, "Invalid event cursor. Send the id of an event exactly as you received it."},
	{ErrPlanInPath, problem.PlanNotFound, "There is no plan with that name."},
	{policy.ErrNoPlan, problem.Invalid, "The plan in the body does not exist. Create it first, or name another plan."},
	{rules.ErrNoOverride, problem.OverrideNotFound, "No limit or plan is set for this user."},
	{policy.ErrBadRule, problem.Invalid, "Invalid rule: a limit is 0 to 60, the name of a plan has " + PlanNameRule + ", and a set has at most 1000 rules."},
	{rules.ErrChanged, problem.RulesChanged, "A rule was changed since that revision, so nothing was applied. Make a new dry run."},
	{rules.ErrOlderNodes, problem.OlderNodes, "A registered node does not support the rules, so nothing was applied."},
	{policy.ErrBadAttributes, problem.Invalid, "An attribute of the start is invalid."},
	{policy.ErrMissingAttributes, problem.Invalid, "The user's plan requires attributes that the start does not state."},
	{policy.ErrUnreadable, problem.Unavailable, "This node runs a version that cannot read the user's plan or limit. " + problem.RetryAdvice},
	{lease.ErrUnavailable, problem.Unavailable, tryAgain},
	{lease.ErrRouting, problem.Unavailable, tryAgain}, // the router retried until the deadline
	{lease.ErrInUse, problem.Unavailable, tryAgain},   // no call of the API causes it
	{context.DeadlineExceeded, problem.Unavailable, tryAgain},
	{context.Canceled, problem.Unavailable, tryAgain},
}

// Problem returns the problem for an error of a handler.
func Problem(err error) *problem.Problem {
	var p *problem.Problem
	if errors.As(err, &p) {
		return p
	}
	for _, r := range errorProblems {
		if errors.Is(err, r.err) {
			return addDetails(r.kind.New(r.detail), err)
		}
	}
	return problem.Internal.New("An internal error occurred.")
}

// addDetails adds the members and headers that only some problems have.
func addDetails(p *problem.Problem, err error) *problem.Problem {
	switch {
	case errors.Is(err, lease.ErrLimit):
		full := &lease.LimitError{}
		errors.As(err, &full)
		AddRefusal(&p.Problem, full)
		p.Detail = cmp.Or(refusalDetail(full.Limits), p.Detail)
		addEvictionDenial(p, full)
		return p.WithHeader("Retry-After", strconv.Itoa(problem.WholeSeconds(full.RetryAfter)))
	case errors.Is(err, policy.ErrNoPlan):
		return p.WithField("body", "names a plan that does not exist")
	case errors.Is(err, policy.ErrBadRule):
		if bad, ok := errors.AsType[*policy.PlanError](err); ok {
			p.Detail = "Invalid rule: " + bad.Fields[0].Location + ": " + bad.Fields[0].Problem + "."
		}
	case errors.Is(err, policy.ErrBadAttributes):
		if bad, ok := errors.AsType[*policy.AttributeError](err); ok {
			return p.WithField("body."+bad.Member, bad.Problem)
		}
	case errors.Is(err, policy.ErrMissingAttributes):
		if missing, ok := errors.AsType[*policy.MissingAttributesError](err); ok {
			for _, name := range missing.Missing {
				p = p.WithField("body."+string(name), "the user's plan requires it")
			}
		}
	case errors.Is(err, rules.ErrOlderNodes):
		if older, ok := errors.AsType[*rules.OlderNodesError](err); ok {
			addOlderNodes(p, older)
		}
	case errors.Is(err, rules.ErrNoOverride):
		none := &rules.NoOverrideError{}
		errors.As(err, &none)
		p.Limit = &none.Limit
	case errors.Is(err, lease.ErrEnded):
		end := &lease.EndedError{Reason: policy.ReasonEnded}
		errors.As(err, &end)
		p.Reason, p.By = string(end.Reason), EndedBy(end.By)
	case p.Status == problem.Unavailable.Status:
		return p.WithHeader("Retry-After", problem.RetryAfterJittered())
	}
	return p
}

// refusalDetail returns why the limits of a plan reject a start, in the words of the plan's
// author if the first of them has any; "" if the plan has only one limit.
func refusalDetail(limits []policy.RefusingLimit) string {
	switch {
	case len(limits) == 0:
		return ""
	case limits[0].Message != "":
		return limits[0].Message
	case limits[0].Limit == 0:
		return fmt.Sprintf("The user's plan does not allow this stream: the limit %q is 0.", limits[0].Name)
	}
	return fmt.Sprintf("The limit %q of the user's plan is reached: %d of %d. Stop one of the streams that count for it, or wait.",
		limits[0].Name, limits[0].Counted, limits[0].Limit)
}

// addEvictionDenial adds why a start with replace-oldest did not end another stream.
func addEvictionDenial(p *problem.Problem, full *lease.LimitError) {
	switch full.NoEviction {
	case lease.NoEvictionPlan:
		if len(full.Limits) > 0 {
			return
		}
		p.Detail = "All of the user's slots are taken, and the user's plan does not allow a start to end another stream. " +
			"Stop one of the active streams, or wait."
	case lease.NoEvictionCooldown:
		p.EvictAfterSeconds = problem.WholeSeconds(full.EvictAfter)
		p.Detail = fmt.Sprintf("All of the user's slots are taken. Another start recently ended a stream of this session or "+
			"device, so it may end another stream only after %d seconds. Stop one of the active streams, or wait.", p.EvictAfterSeconds)
	}
}

// maxOlderNodes is the maximum number of nodes that a problem names.
const maxOlderNodes = 20

// addOlderNodes adds the nodes that do not support a rule, and what to do.
func addOlderNodes(p *problem.Problem, older *rules.OlderNodesError) {
	named := older.Nodes[:min(len(older.Nodes), maxOlderNodes)]
	names := make([]string, len(named))
	for i, n := range named {
		p.Nodes = append(p.Nodes, apitype.Node{ID: n.ID, Region: n.Region, Version: n.Version})
		names[i] = fmt.Sprintf("%s (region %s, version %s)", n.ID, cmp.Or(n.Region, "unknown"), cmp.Or(n.Version, "unknown"))
	}
	if more := len(older.Nodes) - len(named); more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	p.Detail = fmt.Sprintf("The rules need %s, and these nodes do not support it: %s. Nothing was changed. Finish the upgrade of the nodes, "+
		"wait until the older ones are no longer registered (up to 15 seconds after they have stopped), and repeat the request.",
		strings.Join(older.Needs, ", "), strings.Join(names, ", "))
}
