package api

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"streamcount/access"
)

// Access finds out who makes a request. An error that is [access.ErrUnavailable]
// is answered 503, any other 401 with its text, which must hold no secret.
type Access interface {
	Authenticate(r *http.Request) (access.Caller, error)
}

// doesKey is where an operation says what it does, for [access.Caller.May].
const doesKey = "does"

// authorize finds out who calls, notes it in rec, and returns the refusal if he
// may not do what op does. A node without credentials lets anyone do everything.
func (s *Server) authorize(op *huma.Operation, rec *recorder, r *http.Request, user string) *problem {
	does, _ := op.Metadata[doesKey].(access.Action)
	rec.caller = access.Caller{Kind: access.Anyone}
	if s.cfg.Access != nil {
		caller, err := s.cfg.Access.Authenticate(r)
		// A token that expires in the middle of a film must not end it.
		if byID := needsID(op) && s.byID(access.Caller{}, does); err != nil && !byID {
			return unidentified(err)
		}
		rec.caller = caller
	}
	if s.byID(rec.caller, does) {
		return nil
	}
	if user == "" && rec.caller.Kind == access.Viewer {
		user = rec.caller.Name // the handler looks at whom the body is about
	}
	if p := decided(rec.caller.May(does, user)); p != nil {
		return p
	}
	if p := s.edge.forged(r, rec.caller, needsID(op)); p != nil {
		return p
	}
	return s.tooFast(r.Context(), rec.caller, does, op, user)
}

// tooFast refuses the calls of an API key, or those that write about one user,
// when there are too many of them. It is asked about calls that are allowed: others
// must not use up what the user may. Heartbeats are never too many: nobody's
// playback ends because somebody else is fast.
func (s *Server) tooFast(
	ctx context.Context, c access.Caller, does access.Action, op *huma.Operation, user string,
) *problem {
	if c.Kind == access.Service || c.Kind == access.Reader || c.Kind == access.Operator {
		if p := s.edge.tooFast(ctx, s.edge.perKey, c.Name, "API key"); p != nil {
			return p
		}
	}
	writes := does == access.StartStream || does == access.EndStreams || does == access.StopStream
	if user == "" || !writes || op.OperationID == "heartbeat" {
		return nil
	}
	return s.edge.tooFast(ctx, s.edge.perUser, user, "user")
}

// needsID reports whether an operation is about streams whose ids the caller has
// to know.
func needsID(op *huma.Operation) bool {
	return strings.Contains(op.Path, "{id}") || op.OperationID == "heartbeats"
}

// byID reports whether the id of a stream is all that the caller needs: a player
// may hold nothing else. The limiter checks the id.
func (s *Server) byID(c access.Caller, does access.Action) bool {
	return c.Kind == access.Anonymous && does == access.StopStream && !s.cfg.NoStreamIDAccess
}

func unidentified(err error) *problem {
	if errors.Is(err, access.ErrUnavailable) {
		return unavailable.problem("Tokens cannot be checked at the moment. Play on, and try again after the seconds "+
			"in Retry-After.").with("Retry-After", soon())
	}
	return unauthorized.problem(err.Error()).with("WWW-Authenticate", `Bearer error="invalid_token"`)
}

// decided is the refusal that a decision stands for; nil if it is none. What a
// viewer asks about others is answered as if there was nothing to know.
func decided(d access.Decision) *problem {
	switch d {
	case access.Allowed:
		return nil
	case access.Unauthenticated:
		return unauthorized.problem("This call needs a credential: send it as 'Authorization: Bearer ...'.").
			with("WWW-Authenticate", "Bearer")
	case access.Foreign:
		return foreign.problem("This token speaks for another user.")
	default:
		return forbidden.problem("This credential does not allow that call.")
	}
}

// callerOf is who makes the call that ctx belongs to.
func callerOf(ctx context.Context) access.Caller {
	if rec, ok := ctx.Value(recorderKey{}).(*recorder); ok {
		return rec.caller
	}
	return access.Caller{}
}

// onlyFor refuses a call about a user whom the caller may not act for.
func onlyFor(ctx context.Context, does access.Action, user string) *problem {
	c := callerOf(ctx)
	if c.Kind == access.Anonymous { // let in by the ids that it sends
		return nil
	}
	return decided(c.May(does, user))
}
