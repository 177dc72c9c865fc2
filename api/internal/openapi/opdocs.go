package openapi

import (
	"time"

	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/api/internal/latency"
	"streamcount/api/internal/overload"
	"streamcount/api/internal/problem"
	"streamcount/lease/policy"
)

// ExampleID is the stream id in examples.
const ExampleID = "AQAAEjRWeJq83gABAgMEBQYHCAkKCwwNDg8Q"

// List describes the operation of that name.
func List() Operation {
	u := exampleUser()
	u.Active = []apitype.Stream{exampleStream()}
	return Operation{
		id: "list", tag: tagStreams, summary: "List a user's streams",
		traits:      Traits{Action: access.ReadStreams, Class: overload.Read},
		description: "The user's streams, oldest first. A user with no streams does not exist.",
		problems:    []problem.Type{problem.NotYourUser, problem.UserNotFound}, response: u,
	}
}

// Remove describes the operation of that name.
func Remove() Operation {
	return Operation{
		id: "remove", tag: tagStreams, summary: "End all of a user's streams",
		traits:      Traits{Action: access.EndStreams},
		description: "Ends all streams of the user at once. The players receive 410 for their next heartbeat.",
		problems:    []problem.Type{problem.NotYourUser, problem.UserNotFound},
		response:    apitype.Removed{UserID: "maya", Message: "User removed from tracking"},
	}
}

// Start describes the operation of that name.
func Start() Operation {
	st := exampleStream()
	u := exampleUser()
	u.Stream = &st
	return Operation{
		id: "start", tag: tagStreams, summary: "Start a stream",
		traits: Traits{Action: access.StartStream, Class: overload.Start, Timed: latency.Start},
		description: "Takes a slot for a new stream, or responds with 403 when all of the user's slots are taken. The body " +
			"is optional. Send `session` to make retries, page reloads and channel changes safe: a start " +
			"whose session already has a live stream takes over its slot.",
		problems: []problem.Type{problem.LimitReached, problem.Forbidden, problem.CrossOrigin, problem.NotYourUser, problem.StreamNotFound},
		request: apitype.Start{
			Session: "tab-5f1c", OnLimit: string(policy.Deny),
			Device:  &apitype.Device{ID: "b8d0", Name: "Living room TV", Type: "tv"},
			Content: &apitype.Content{ID: "film-77", Title: "Metropolis"},
		},
		response: u,
	}
}

// Stop describes the operation of that name.
func Stop() Operation {
	id := ExampleID
	return Operation{
		id: "stop", tag: tagStreams, summary: "Stop a stream",
		traits: Traits{Action: access.StopStream, Class: overload.Reserved, Timed: latency.Stop},
		description: "Ends the stream that the body names. Without a body, or without `streamId`, it ends the stream " +
			"with the oldest heartbeat, for clients that do not store ids.",
		problems: []problem.Type{problem.NotYourUser, problem.StreamNotFound, problem.NothingToStop, problem.StreamEnded},
		request:  apitype.Stop{StreamID: &id}, response: exampleUser(),
	}
}

// StopByID describes the operation of that name.
func StopByID() Operation {
	return Operation{
		id: "stop-by-id", tag: tagStreams, summary: "Stop a stream by its address",
		traits:      Traits{Action: access.StopStream, Class: overload.Reserved, Timed: latency.Stop, ByStreamID: true},
		description: "Ends one stream. Its slot becomes free at once.",
		problems:    []problem.Type{problem.NotYourUser, problem.StreamNotFound, problem.StreamEnded}, response: exampleUser(),
	}
}

// StopByBeacon describes the operation of that name.
func StopByBeacon() Operation {
	return Operation{
		id: "stop-by-beacon", tag: tagStreams, summary: "Stop a stream from a page that is closing",
		traits: Traits{Action: access.StopStream, Class: overload.Reserved, Timed: latency.Stop, ByStreamID: true},
		description: "The same as DELETE on the stream, for `navigator.sendBeacon`: a body of any content type may be " +
			"sent and is ignored.",
		problems: []problem.Type{problem.NotYourUser, problem.StreamNotFound, problem.StreamEnded}, response: exampleUser(),
	}
}

// Heartbeat describes the operation of that name.
func Heartbeat() Operation {
	return Operation{
		id: "heartbeat", tag: tagStreams, summary: "Keep a stream alive",
		traits: Traits{Action: access.StopStream, Class: overload.Reserved, Timed: latency.Heartbeat, ByStreamID: true, Heartbeat: true},
		description: "Resets the TTL of the stream. Send a heartbeat every `heartbeatSeconds`; it is safe to " +
			"repeat. With `\"degraded\": true` etcd could not be reached in time: continue playback, and send another soon.",
		problems: []problem.Type{problem.NotYourUser, problem.StreamNotFound, problem.StreamEnded}, response: exampleStream(),
	}
}

// Heartbeats describes the operation of that name.
func Heartbeats() Operation {
	return Operation{
		id: "heartbeats", tag: tagStreams, summary: "Keep many streams alive",
		traits: Traits{Action: access.StopStream, Class: overload.Reserved, ByStreamID: true, Heartbeat: true},
		description: "Up to 1,000 heartbeats in one request, for gateways that serve many players. Each has its own " +
			"result: the streams that are not in `ended` continue.",
		problems: []problem.Type{problem.NotYourUser}, maxBody: MaxBatchBody,
		request: apitype.Heartbeats{Heartbeats: []apitype.Heartbeat{{UserID: "maya", StreamID: ExampleID}}},
		response: apitype.HeartbeatsResult{Alive: 1, Ended: []apitype.EndedHeartbeat{
			{UserID: "noah", StreamID: ExampleID, Reason: string(policy.ReasonExpired)},
		}},
	}
}

func exampleTime(after time.Duration) *apitype.Time {
	return apitype.At(time.Date(2026, 5, 4, 20, 15, 0, 250e6, time.UTC).Add(after))
}

func exampleUser() apitype.User { return apitype.User{UserID: "maya", Streams: 1, Limit: 3} }

func exampleStream() apitype.Stream {
	return apitype.Stream{
		ID: ExampleID, StartedAt: exampleTime(0), ExpiresAt: exampleTime(90 * time.Second),
		TTLSeconds: 90, HeartbeatSeconds: 30, Region: "local", Session: "tab-5f1c",
		Device: &apitype.Device{ID: "b8d0", Name: "Living room TV", Type: "tv"},
	}
}

// exampleProblem returns an example of a problem of a type.
func exampleProblem(k problem.Type) apitype.Problem {
	p := k.New(k.Help).Problem
	switch k.Name {
	case problem.LimitReached.Name:
		limit := 1
		p.Limit, p.Streams, p.Active = &limit, &limit, []apitype.Stream{exampleStream()}
	case problem.StreamEnded.Name:
		p.Reason = string(policy.ReasonReplaced)
		p.By = &apitype.By{Device: exampleStream().Device, StartedAt: exampleTime(0)}
	case problem.OlderNodes.Name:
		p.Nodes = []apitype.Node{{ID: "node-1", Region: "eu", Version: "0.1.0"}}
	case problem.Invalid.Name:
		p.Errors = []apitype.FieldError{{Location: "body.session", Message: "expected length <= 200"}}
	}
	return p
}
