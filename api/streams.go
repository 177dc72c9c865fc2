package api

import (
	"context"
	"errors"

	"github.com/danielgtaylor/huma/v2"

	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/lease"
)

// A userID is a path parameter with the rule for user ids.
type userID string

// Schema is the rule as huma checks and documents it.
func (userID) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeString, Pattern: apitype.UserPattern, PatternDescription: userRule,
		Description: "The user, percent-encoded: " + userRule + ". Case matters.", Examples: []any{"maya"},
	}
}

// A streamID is a path parameter with the outer shape of stream ids.
type streamID string

// Schema is the shape as huma checks and documents it.
func (streamID) Schema(huma.Registry) *huma.Schema {
	return &huma.Schema{
		Type: huma.TypeString, Pattern: `^[A-Za-z0-9._~-]{1,64}$`,
		PatternDescription: "a stream id, unchanged from the start that returned it",
		Description:        "The stream's id, as start returned it.", Examples: []any{exampleID},
	}
}

type userInput struct {
	User userID `path:"user"`
}

type listInput struct {
	User        userID `path:"user"`
	Consistency string `query:"consistency" enum:"bounded,linearizable" default:"bounded" doc:"\"bounded\" is what this node knows: never older than its own last write to the user, and at most a few seconds behind other nodes. \"linearizable\" asks etcd."`
}

type streamInput struct {
	User userID   `path:"user"`
	ID   streamID `path:"id"`
}

type startInput struct {
	User userID `path:"user"`
	Body *apitype.Start
}

type stopInput struct {
	User userID `path:"user"`
	Body *apitype.Stop
}

type beatsInput struct{ Body apitype.Beats }

// A reply is a body of type T with status 200.
type reply[T any] struct{ Body T }

func (s *Server) list(ctx context.Context, in *listInput) (*reply[apitype.User], error) {
	u, err := s.limiter().List(ctx, string(in.User), lease.Consistency(in.Consistency))
	if err != nil {
		return nil, err
	}
	return &reply[apitype.User]{user(u)}, nil
}

func (s *Server) start(ctx context.Context, in *startInput) (*reply[apitype.User], error) {
	req, p := startRequest(ctx, in.Body)
	if p != nil {
		return nil, p
	}
	started, err := s.limiter().Start(ctx, string(in.User), req)
	s.auditStart(ctx, string(in.User), started, err)
	if err != nil {
		return nil, err
	}
	u, st := user(started.Usage), stream(started.Stream)
	u.Stream = &st
	return &reply[apitype.User]{u}, nil
}

// startRequest is a start with what its caller's token says of the user. What a
// viewer says himself is not believed.
func startRequest(ctx context.Context, body *apitype.Start) (lease.Request, *problem) {
	req, caller := request(body), callerOf(ctx)
	if caller.Kind != access.Viewer {
		return req, nil
	}
	if req.Plan != "" {
		return req, invalid.problem("A viewer's plan is in the token, or set by an operator: leave it out of the body.").
			at("body.plan", "not for viewers")
	}
	req.Grant, req.Limit = caller.Plan, caller.Limit
	return req, nil
}

func (s *Server) stop(ctx context.Context, in *stopInput) (*reply[apitype.User], error) {
	if in.Body != nil && in.Body.StreamID != nil {
		return s.stopOne(ctx, string(in.User), *in.Body.StreamID)
	}
	if callerOf(ctx).Kind == access.Anonymous {
		return nil, decided(access.Unauthenticated) // only the id would have let it in
	}
	u, err := s.limiter().StopQuietest(ctx, string(in.User))
	if errors.Is(err, lease.ErrNoStreams) {
		err = errNothingToStop
	}
	return stopped(u, err)
}

func (s *Server) stopByID(ctx context.Context, in *streamInput) (*reply[apitype.User], error) {
	return s.stopOne(ctx, string(in.User), string(in.ID))
}

func (s *Server) stopOne(ctx context.Context, user, id string) (*reply[apitype.User], error) {
	if id == "" {
		// A client that lost the id must not end a stream of its guess.
		return nil, invalid.problem("The stream id is empty. Leave streamId out to stop the stream least recently "+
			"heard from.").at("body.streamId", "expected a stream id")
	}
	u, err := s.limiter().Stop(ctx, user, id)
	if err == nil {
		s.auditStop(ctx, user, id)
	}
	return stopped(u, err)
}

func stopped(u lease.Usage, err error) (*reply[apitype.User], error) {
	if err != nil {
		return nil, err
	}
	body := user(u)
	if body.Streams == 0 {
		body.Message = "User has no active streams and has been removed from tracking"
	}
	return &reply[apitype.User]{body}, nil
}

func (s *Server) remove(ctx context.Context, in *userInput) (*reply[apitype.Removed], error) {
	u, err := s.limiter().Remove(ctx, string(in.User))
	if err != nil {
		return nil, err
	}
	s.audit(ctx, "remove", u.User)
	return &reply[apitype.Removed]{apitype.Removed{
		UserID: u.User, Streams: u.Count, Message: "User removed from tracking",
	}}, nil
}

func (s *Server) heartbeat(ctx context.Context, in *streamInput) (*reply[apitype.Stream], error) {
	st, err := s.limiter().Heartbeat(ctx, string(in.User), string(in.ID))
	if err != nil {
		return nil, err
	}
	s.beats.Add(1)
	return &reply[apitype.Stream]{stream(st)}, nil
}

func (s *Server) heartbeats(ctx context.Context, in *beatsInput) (*reply[apitype.BeatsResult], error) {
	beats := make([]lease.Beat, len(in.Body.Heartbeats))
	for i, b := range in.Body.Heartbeats {
		if p := onlyFor(ctx, access.StopStream, b.UserID); p != nil {
			return nil, p
		}
		beats[i] = lease.Beat{User: b.UserID, ID: b.StreamID}
	}
	out := apitype.BeatsResult{Ended: []apitype.EndedBeat{}}
	for i, res := range s.limiter().Heartbeats(ctx, beats) {
		if reason, gone := beatEnded(res.Err); gone {
			out.Ended = append(out.Ended, apitype.EndedBeat{
				UserID: beats[i].User, StreamID: beats[i].ID, Reason: string(reason),
			})
			continue
		}
		out.Alive++
		if res.Err != nil || res.Stream.Degraded {
			out.Degraded++
		}
		s.noteBeat(ctx, res.Err)
	}
	s.beats.Add(int64(out.Alive))
	return &reply[apitype.BeatsResult]{out}, nil
}

// beatEnded reports whether a heartbeat's error means that its stream is gone.
// Any other error leaves the stream alive: what we cannot find out must not end
// a playback.
func beatEnded(err error) (lease.Reason, bool) {
	var end *lease.EndedError
	switch {
	case errors.As(err, &end):
		return end.Reason, true
	case errors.Is(err, lease.ErrEnded), errors.Is(err, lease.ErrForeignID),
		errors.Is(err, lease.ErrBadID), errors.Is(err, lease.ErrBadUser):
		return lease.ReasonEnded, true
	default:
		return "", false
	}
}

// noteBeat logs what a batch hides: an error that is our fault.
func (s *Server) noteBeat(ctx context.Context, err error) {
	if err != nil && toProblem(err).Status == internal.status {
		s.log.ErrorContext(ctx, "heartbeat of a batch", "err", err)
	}
}
