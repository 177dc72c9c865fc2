package api

import (
	"context"
	"errors"
	"fmt"

	"github.com/danielgtaylor/huma/v2"

	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/api/internal/attributes"
	"streamcount/api/internal/convert"
	"streamcount/api/internal/openapi"
	"streamcount/api/internal/overload"
	"streamcount/api/internal/problem"
	"streamcount/lease"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
	"streamcount/lease/userid"
)

// A userID is a path parameter with the rule for user ids.
type userID string

// Schema is the rule as huma checks and documents it.
func (userID) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeString, Pattern: apitype.UserPattern, PatternDescription: userid.Rule,
		Description: "The user, percent-encoded: " + userid.Rule + ". Case matters.", Examples: []any{"maya"},
	}
}

// A streamID is a path parameter with the outer shape of stream ids.
type streamID string

// Schema is the shape as huma checks and documents it.
func (streamID) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeString, Pattern: `^[A-Za-z0-9._~-]{1,64}$`,
		PatternDescription: streamIDRule,
		Description:        "The stream's id, as start returned it.", Examples: []any{openapi.ExampleID},
	}
}

const (
	streamIDRule    = "a stream id, unchanged from the start that returned it"
	streamIDMessage = "expected string to be " + streamIDRule // as huma puts it
)

type userInput struct {
	User userID `path:"user"`
}

type listInput struct {
	User        userID `path:"user"`
	Consistency string `query:"consistency" enum:"bounded,linearizable" default:"bounded" doc:"\"bounded\" answers from this node's replica: never older than the node's own last write to the user, and at most a few seconds behind other nodes. \"linearizable\" reads etcd."`
}

type streamInput struct {
	User userID   `path:"user"`
	ID   streamID `path:"id"`
}

type heartbeatInput struct {
	User  userID       `path:"user"`
	ID    streamID     `path:"id"`
	Token tokenFormats `query:"token" doc:"The formats in which the response has a playback token, separated by commas or by repetition, if the service issues tokens."`
}

type startInput struct {
	User  userID       `path:"user"`
	Token tokenFormats `query:"token" doc:"The formats in which the response has a playback token, separated by commas or by repetition, if the service issues tokens."`
	Body  *apitype.Start
}

type stopInput struct {
	User userID `path:"user"`
	Body *apitype.Stop
}

type beatsInput struct{ Body apitype.Heartbeats }

// A reply is a body of type T with status 200.
type reply[T any] struct{ Body T }

func (s *Server) list(ctx context.Context, in *listInput) (*reply[apitype.User], error) {
	if in.Consistency == string(lease.Linearizable) {
		if p := s.takeRate(ctx, overload.LinearizableLists, string(in.User)); p != nil {
			return nil, p
		}
	}
	u, err := s.limiter().List(ctx, string(in.User), lease.Consistency(in.Consistency))
	if err != nil {
		return nil, err
	}
	out := convert.User(u)
	out.Active = visibleTo(callerOf(ctx), out.Active)
	return &reply[apitype.User]{out}, nil
}

func (s *Server) start(ctx context.Context, c directCall[apitype.Start]) (*apitype.User, error) {
	ctx = withRecorder(ctx, c.rec)
	req, p := attributes.Request(c.rec.caller, c.body, s.networkOf(c.rec, c.user))
	if p != nil {
		return nil, p
	}
	if c.tokens != 0 {
		if p := s.cfg.Tokens.CheckStart(c.tokens, c.user, req.Content.ID); p != nil {
			return nil, p
		}
	}
	started, err := s.limiter().Start(ctx, c.user, req)
	s.auditStart(ctx, c.user, req, started, err)
	switch {
	case errors.Is(err, streamid.ErrMalformed):
		return nil, convert.Problem(err).WithField("body.replaces", "expected a stream id")
	case errors.Is(err, policy.ErrNoPlan):
		return nil, problem.Invalid.New("The plan in the body does not exist. Create it first, or name another plan.").
			WithField("body.plan", "names a plan that does not exist")
	case errors.Is(err, policy.ErrBadAttributes), errors.Is(err, policy.ErrMissingAttributes):
		return nil, attributes.Relocate(c.rec.caller, convert.Problem(err))
	case err != nil:
		return nil, err
	}
	u, st := convert.User(started.Usage), withoutServiceMembers(c.rec.caller, convert.Stream(started.Stream))
	u.Stream, u.Token = &st, s.playbackToken(ctx, c.tokens, c.user, started.Stream, true)
	return &u, nil
}

// networkOf returns the network of the client of a start; "" if it is not known.
func (s *Server) networkOf(rec *recorder, user string) string {
	key := s.backend.Load().NetworkKey
	if key == nil || rec.caller.Kind != access.Viewer || rec.invalidHop != "" || !s.ingress.KnowsClient(rec.request, rec.client) {
		return ""
	}
	return key.Of(user, rec.client)
}

func (s *Server) stop(ctx context.Context, c directCall[apitype.Stop]) (*apitype.User, error) {
	ctx = withRecorder(ctx, c.rec)
	if c.body != nil && c.body.StreamID != nil {
		return s.stopOne(ctx, c.user, *c.body.StreamID)
	}
	if c.rec.caller.Kind == access.Anonymous {
		return nil, s.deny(ctx, access.Unauthenticated) // only a stream id replaces the credential
	}
	u, err := s.limiter().StopOldestHeartbeat(ctx, c.user)
	s.auditStop(ctx, "stop", c.user, u.Stopped, err)
	if errors.Is(err, lease.ErrNoStreams) {
		err = convert.ErrNothingToStop
	}
	return stopReply(u, err)
}

func (s *Server) stopByID(ctx context.Context, c directCall[noBody]) (*apitype.User, error) {
	return s.stopOne(withRecorder(ctx, c.rec), c.user, c.id)
}

func (s *Server) stopOne(ctx context.Context, user, id string) (*apitype.User, error) {
	if id == "" { // A client that lost the id must not stop some other stream.
		return nil, problem.Invalid.New("The stream id is empty. Leave streamId out to stop the stream with the oldest "+
			"heartbeat.").WithField("body.streamId", "expected a stream id")
	}
	u, err := s.limiter().Stop(ctx, user, id)
	s.auditStop(ctx, "stop", user, id, err)
	return stopReply(u, err)
}

func stopReply(u lease.Usage, err error) (*apitype.User, error) {
	if err != nil {
		return nil, err
	}
	body := convert.User(u)
	if body.Streams == 0 {
		body.Message = "User has no active streams and has been removed from tracking"
	}
	return &body, nil
}

func (s *Server) remove(ctx context.Context, in *userInput) (*reply[apitype.Removed], error) {
	u, err := s.limiter().Remove(ctx, string(in.User))
	s.auditStop(ctx, "remove", string(in.User), "", err)
	if err != nil {
		return nil, err
	}
	return &reply[apitype.Removed]{apitype.Removed{
		UserID: u.User, Streams: u.Count, Message: "User removed from tracking",
	}}, nil
}

func (s *Server) heartbeat(ctx context.Context, c directCall[noBody]) (*apitype.Stream, error) {
	st, err := s.limiter().Heartbeat(ctx, c.user, c.id)
	if err != nil {
		return nil, s.limitFailedHeartbeats(ctx, c.rec, err)
	}
	s.heartbeats.Add(1)
	out := withoutServiceMembers(c.rec.caller, convert.Stream(st))
	out.Token = s.playbackToken(ctx, c.tokens, c.user, st, false)
	return &out, nil
}

func (s *Server) batchHeartbeat(ctx context.Context, c directCall[apitype.Heartbeats]) (*apitype.HeartbeatsResult, error) {
	if p := checkBatch(c.body.Heartbeats); p != nil {
		return nil, p
	}
	ctx, cancel := context.WithTimeout(withRecorder(ctx, c.rec), s.cfg.RequestTimeout)
	defer cancel()
	requests := make([]lease.HeartbeatRequest, len(c.body.Heartbeats))
	for i, b := range c.body.Heartbeats {
		if p := s.requireUser(ctx, access.StopStream, b.UserID); p != nil {
			return nil, p
		}
		requests[i] = lease.HeartbeatRequest{User: b.UserID, ID: b.StreamID}
	}
	out := &apitype.HeartbeatsResult{Ended: []apitype.EndedHeartbeat{}}
	for i, res := range s.limiter().Heartbeats(ctx, requests) {
		if reason, gone := endedReason(res.Err); gone {
			out.Ended = append(out.Ended, apitype.EndedHeartbeat{
				UserID: requests[i].User, StreamID: requests[i].ID, Reason: string(reason),
			})
			continue
		}
		out.Alive++
		if res.Err != nil || res.Degraded {
			out.Degraded++
		}
		s.logHeartbeatError(ctx, res.Err)
	}
	s.heartbeats.Add(int64(out.Alive))
	return out, nil
}

// checkBatch refuses a batch with more than a few ids that this service cannot have
// given out. A few are answered one by one, so that the other streams stay alive; the
// answer repeats what it is about, and must not be large for what is no id.
func checkBatch(heartbeats []apitype.Heartbeat) *problem.Problem {
	var p *problem.Problem
	for i, b := range heartbeats {
		member, want := "userId", "expected a user id"
		if userid.Valid(b.UserID) {
			if validIDForm(b.StreamID) {
				continue
			}
			member, want = "streamId", "expected a stream id"
		}
		if p == nil {
			p = problem.Invalid.New("Too many heartbeats have a malformed user id or stream id. Send the ids exactly as " +
				"start returned them.")
		}
		if len(p.Errors) == problem.MaxErrors {
			return p
		}
		p = p.WithField(fmt.Sprintf("body.heartbeats[%d].%s", i, member), want)
	}
	return nil
}

// endedReason reports whether a heartbeat's error means that its stream is gone.
// Any other error leaves the stream alive: what we cannot find out must not end
// a playback.
func endedReason(err error) (policy.Reason, bool) {
	if err == nil {
		return "", false
	}
	var end *lease.EndedError
	switch {
	case errors.As(err, &end):
		return end.Reason, true
	case errors.Is(err, lease.ErrEnded), errors.Is(err, streamid.ErrForeign),
		errors.Is(err, streamid.ErrMalformed), errors.Is(err, lease.ErrBadUser):
		return policy.ReasonEnded, true
	default:
		return "", false
	}
}

// logHeartbeatError logs what a batch hides: an error that is our fault.
func (s *Server) logHeartbeatError(ctx context.Context, err error) {
	if err != nil && convert.Problem(err).Status == problem.Internal.Status {
		s.log.ErrorContext(ctx, "heartbeat of a batch", "err", err)
	}
}

// validIDForm reports whether an id has the form that the routes of streams demand.
func validIDForm(id string) bool {
	if len(id) == 0 || len(id) > apitype.MaxID {
		return false
	}
	for _, c := range []byte(id) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '~', c == '-':
		default:
			return false
		}
	}
	return true
}
