package edge

import (
	"errors"
	"net/http"
	"strconv"
	"strings"

	"streamcount/api/edge/profile"
	"streamcount/api/internal/convert"
	"streamcount/api/internal/problem"
	"streamcount/lease"
	"streamcount/lease/policy"
)

// A Decision is the answer to a check.
type Decision struct {
	Outcome Outcome
	// User and Session are those of the request; "" if they were not read. Session is secret.
	User, Session string
	Content       string // id of the content, "" without one
	// Streams and Limit are those of the user, if Counted is set.
	Streams, Limit int
	Counted        bool
	Degraded       bool         // the request is allowed although etcd did not answer in time
	Cookie         *http.Cookie // to set if the request is allowed, or nil
	// Refusal is why the request would be refused, if Outcome is Observed.
	Refusal Outcome
	// Problem is the body of the answer; nil if the request is allowed.
	Problem *problem.Problem
	// Err is why etcd or the verification of tokens is unavailable, for the log.
	Err error
	// Incomplete says which attribute the start lacks by the plan of the user, or has and is not
	// valid, for the operator, who has to change the profile or the plan; "" if it is not so.
	Incomplete string
}

// An Outcome is what a check has decided, and why.
type Outcome uint8

// The outcomes. The requests of the first group are allowed.
const (
	Passed    Outcome = iota // needs no identity
	Running                  // the stream of the session is running
	Started                  // started the stream of the session
	Moved                    // moved the stream of the session to other content
	Looked                   // HEAD, which has no effect
	Uncounted                // etcd is unavailable, and the profile allows the request
	Observed                 // would be refused, by a profile that only observes
	AtLimit
	Stopped
	Evicted
	Replaced
	Removed
	NoIdentity
	BadURI
	Unavailable
	BadKey
	numOutcomes
)

// outcomes has the label of each allowed outcome in metrics, and the reason of each denial.
var outcomes = [numOutcomes]string{
	Passed: "passed", Running: "running", Started: "started", Moved: "moved", Looked: "head", Uncounted: "uncounted", Observed: "observed",
	AtLimit: "limit", Stopped: "stopped", Evicted: "evicted", Replaced: "replaced", Removed: "removed",
	NoIdentity: "identity", BadURI: "uri", Unavailable: "unavailable", BadKey: "edge-key",
}

// Allowed reports whether the request is allowed.
func (o Outcome) Allowed() bool { return o < AtLimit }

// String returns the reason, as in metrics and in X-Streamcount-Reason.
func (o Outcome) String() string { return outcomes[o] }

// Decision returns "allow" or "deny".
func (o Outcome) Decision() string {
	if o.Allowed() {
		return "allow"
	}
	return "deny"
}

func (d Decision) deny(o Outcome, p *problem.Problem) Decision {
	d.Outcome, d.Problem = o, p
	return d
}

// observed is the decision on a request that a profile would refuse if it did not only observe.
func (d Decision) observed() Decision {
	d.Outcome, d.Refusal, d.Problem = Observed, d.Outcome, nil
	return d
}

func (d Decision) withUsage(streams, limit int) Decision {
	d.Streams, d.Limit, d.Counted = streams, limit, true
	return d
}

// atLimit is the decision on a request whose start was rejected.
func (d Decision) atLimit(e *lease.LimitError) Decision {
	p := convert.Problem(e)
	hideIDs(p)
	return d.deny(AtLimit, p).withUsage(len(e.Active), e.Limit)
}

// notInPlan is the decision on a request whose start lacks attributes that the user's plan requires,
// or has too many. It is not that of an outage, because it does not pass.
func (d Decision) notInPlan(profile string, err error) Decision {
	p := problem.LimitReached.New("")
	if missing, ok := errors.AsType[*policy.MissingAttributesError](err); ok {
		names := make([]string, len(missing.Missing))
		for i, name := range missing.Missing {
			names[i] = string(name)
		}
		p.Detail = "The user's plan requires " + strings.Join(names, ", ") + ", which the profile " + profile +
			" of the edge does not state for this request: add it to the profile in the edge file, or remove it from require of the plan."
	}
	if bad, ok := errors.AsType[*policy.AttributeError](err); ok {
		p.Detail = "The profile " + profile + " of the edge states attributes that are not valid: " + bad.Member + ": " + bad.Problem +
			". Change them in the edge file."
	}
	d.Incomplete = p.Detail
	return d.deny(AtLimit, p)
}

// tooOften is the decision on a request whose start exceeds the rate of the user. It is not that
// of an outage, because a viewer with many sessions could cause it.
func (d Decision) tooOften() Decision {
	return d.deny(AtLimit, problem.LimitReached.New("There are too many starts of this user.").WithHeader("Retry-After", "1"))
}

// hideIDs removes from the streams of a problem what lets others act on them, or on the sessions.
func hideIDs(p *problem.Problem) {
	for i := range p.Active {
		s := &p.Active[i]
		s.ID, s.Session, s.Labels, s.Priority = "", "", nil, nil
	}
}

// barOutcomes maps how a stream ended to the outcome for the requests of its session.
var barOutcomes = map[policy.Reason]Outcome{
	policy.ReasonEvicted: Evicted, policy.ReasonReplaced: Replaced, policy.ReasonRemoved: Removed,
}

// barred is the decision on a request of a session that may not start a stream.
func (d Decision) barred(b *lease.Bar) Decision {
	p := convert.Problem(&b.EndedError)
	p.Status = http.StatusForbidden
	p.Detail = "The stream of this session was ended. The session may play again when its player has sent no request for the " +
		"number of seconds in Retry-After."
	o, ok := barOutcomes[b.Reason]
	if !ok {
		o = Stopped
	}
	return d.deny(o, p.WithHeader("Retry-After", strconv.Itoa(problem.WholeSeconds(b.RetryAfter))))
}

// rejected is the decision on a request that a profile rejects.
func (d Decision) rejected(r *profile.Rejection) Decision {
	if r.Reason == profile.BadIdentity {
		return d.deny(NoIdentity, problem.Unauthorized.New(r.Detail).WithHeader("WWW-Authenticate", "Bearer"))
	}
	return d.deny(BadURI, problem.Forbidden.New(r.Detail))
}

// unavailable is the decision on a request that cannot be decided now.
func (d Decision) unavailable(err error) Decision {
	d.Err = err
	return d.deny(Unavailable, problem.Unavailable.New("The request cannot be checked now. "+problem.RetryAdvice).WithHeader("Retry-After", "1"))
}
