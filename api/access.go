package api

import (
	"context"
	"errors"
	"net/http"

	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/api/internal/denials"
	"streamcount/api/internal/openapi"
	"streamcount/api/internal/overload"
	"streamcount/api/internal/problem"
	"streamcount/lease/streamid"
)

// Access authenticates requests. For an error that is [access.ErrUnavailable] the response
// is 503, for any other 401 with the text of the error, which must not contain secrets.
type Access interface {
	Authenticate(r *http.Request) (access.Caller, error)
}

// authorize authenticates the caller, records it in rec, and returns a problem if the caller
// may not make the call. A node without credentials permits every call.
func (s *Server) authorize(traits openapi.Traits, rec *recorder, r *http.Request, user string) *problem.Problem {
	rec.caller = access.Caller{Kind: access.Unrestricted}
	if s.cfg.Access != nil {
		caller, err := s.cfg.Access.Authenticate(r)
		// An expired token must not interrupt playback.
		if byID := traits.ByStreamID && s.idSuffices(access.Caller{}, traits.Action); err != nil && !byID {
			s.auditDenial(r.Context(), rec, denials.OfCredential(r, err))
			return authError(err)
		}
		rec.caller = caller
	}
	if s.idSuffices(rec.caller, traits.Action) {
		return s.checkAuditSpace(traits)
	}
	if user == "" && rec.caller.Kind == access.Viewer {
		user = rec.caller.Name // the handler checks the users in the body
	}
	if d := rec.caller.Authorize(traits.Action, user); d != access.Allowed {
		s.auditDenial(r.Context(), rec, denials.OfDecision(d))
		return denial(d)
	}
	if p := s.checkCrossSite(r, rec.caller, traits.ByStreamID); p != nil {
		return p
	}
	if p := s.limitRates(r.Context(), rec.caller, traits, user); p != nil {
		return p
	}
	return s.checkAuditSpace(traits)
}

// limitRates applies the rates of an API key, and of writes about one user. Only calls that
// are allowed count, so that other callers cannot use up the rate of a user. Heartbeats have
// no such rate, because no playback may end because of another client.
func (s *Server) limitRates(ctx context.Context, c access.Caller, traits openapi.Traits, user string) *problem.Problem {
	if c.HasKey() {
		if p := s.takeRate(ctx, overload.RatePerKey, c.Name); p != nil {
			return p
		}
	}
	switch traits.Action {
	case access.StartStream, access.StopStream, access.EndStreams, access.EraseData:
		if user != "" && !traits.Heartbeat {
			return s.takeRate(ctx, overload.RatePerUser, user)
		}
	}
	return nil
}

// idSuffices reports whether the id of a stream replaces a credential: a player may have
// nothing else. The limiter verifies the id.
func (s *Server) idSuffices(c access.Caller, does access.Action) bool {
	return c.Kind == access.Anonymous && does == access.StopStream && !s.cfg.NoStreamIDAccess
}

func authError(err error) *problem.Problem {
	if errors.Is(err, access.ErrUnavailable) {
		return problem.Unavailable.New("Tokens cannot be verified now. "+problem.RetryAdvice).WithHeader("Retry-After", problem.RetryAfterJittered())
	}
	return problem.Unauthorized.New(err.Error()).WithHeader("WWW-Authenticate", `Bearer error="invalid_token"`)
}

// denial returns the problem for a decision; nil if the call is allowed. A viewer does not
// learn whether another user exists.
func denial(d access.Decision) *problem.Problem {
	switch d {
	case access.Allowed:
		return nil
	case access.Unauthenticated:
		return problem.Unauthorized.New("This call requires a credential. Send it as 'Authorization: Bearer ...'.").
			WithHeader("WWW-Authenticate", "Bearer")
	case access.OtherUser:
		return problem.NotYourUser.New("This token is for another user.")
	default:
		return problem.Forbidden.New("This credential does not permit the call.")
	}
}

// callerOf returns the caller of the request that ctx belongs to.
func callerOf(ctx context.Context) access.Caller {
	if rec, ok := ctx.Value(recorderKey{}).(*recorder); ok {
		return rec.caller
	}
	return access.Caller{}
}

// requireUser returns a problem if the caller may not act for the user.
func (s *Server) requireUser(ctx context.Context, does access.Action, user string) *problem.Problem {
	c := callerOf(ctx)
	if c.Kind == access.Anonymous { // authorized by the stream ids
		return nil
	}
	return s.deny(ctx, c.Authorize(does, user))
}

// deny returns the problem for a decision of a handler, and counts it.
func (s *Server) deny(ctx context.Context, d access.Decision) *problem.Problem {
	if rec, ok := ctx.Value(recorderKey{}).(*recorder); ok && d != access.Allowed {
		s.auditDenial(ctx, rec, denials.OfDecision(d))
	}
	return denial(d)
}

// maySeeIDs reports whether a caller gets the ids of streams: an id is enough to stop its
// stream. Others get handles.
func maySeeIDs(c access.Caller) bool {
	return c.Authorize(access.StopStream, c.Name) == access.Allowed
}

// withHandle returns a stream for callers who may not act on it.
func withHandle(s apitype.Stream) apitype.Stream {
	s.ID, s.Handle = "", streamid.Handle(s.ID)
	return s
}

// withoutServiceMembers removes what only a calling service may state, and players do not
// receive.
func withoutServiceMembers(c access.Caller, s apitype.Stream) apitype.Stream {
	if c.Kind == access.Viewer || c.Kind == access.Anonymous {
		s.Labels, s.Priority = nil, nil
	}
	return s
}

// visibleTo removes from the streams of a list what a caller may not see.
func visibleTo(c access.Caller, list []apitype.Stream) []apitype.Stream {
	for i, s := range list {
		if !maySeeIDs(c) {
			s = withHandle(s)
		}
		list[i] = withoutServiceMembers(c, s)
	}
	return list
}
