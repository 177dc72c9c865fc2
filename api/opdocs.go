package api

import (
	"net/http"
	"time"

	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/lease"
)

const exampleID = "AQAAEjRWeJq83gABAgMEBQYHCAkKCwwNDg8Q"

func listDoc() opDoc {
	u := exampleUser()
	u.Active = []apitype.Stream{exampleStream()}
	return opDoc{
		id: "list", does: access.ReadStreams, tag: tagStreams, summary: "List a user's streams",
		about:  "The user's streams, oldest first. A user with no streams does not exist.",
		errors: []int{http.StatusNotFound}, reply: u,
	}
}

func removeDoc() opDoc {
	return opDoc{
		id: "remove", does: access.EndStreams, tag: tagStreams, summary: "End all of a user's streams",
		about:  "Ends every stream of the user at once. Their players learn it from their next heartbeat.",
		errors: []int{http.StatusNotFound},
		reply:  apitype.Removed{UserID: "maya", Message: "User removed from tracking"},
	}
}

func startDoc() opDoc {
	st := exampleStream()
	u := exampleUser()
	u.Stream = &st
	return opDoc{
		id: "start", does: access.StartStream, tag: tagStreams, summary: "Start a stream",
		about: "Takes a slot for a new stream, or refuses with 403 when the user's slots are all taken. The body " +
			"is optional. Send `session` to make a retried start, a refreshed page and a channel change safe: a start " +
			"whose session already has a live stream takes over its slot.",
		errors: []int{http.StatusForbidden, http.StatusNotFound},
		body: apitype.Start{
			Session: "tab-5f1c", OnLimit: string(lease.Deny),
			Device:  &apitype.Device{ID: "b8d0", Name: "Living room TV", Type: "tv"},
			Content: &apitype.Content{ID: "film-77", Title: "Metropolis"},
		},
		reply: u,
	}
}

func stopDoc() opDoc {
	id := exampleID
	return opDoc{
		id: "stop", does: access.StopStream, tag: tagStreams, summary: "Stop a stream",
		about: "Ends the stream that the body names. Without a body, or without `streamId`, it ends the stream " +
			"least recently heard from, for clients that keep no ids.",
		errors: []int{http.StatusNotFound, http.StatusGone},
		body:   apitype.Stop{StreamID: &id}, reply: exampleUser(),
	}
}

func stopByIDDoc() opDoc {
	return opDoc{
		id: "stop-by-id", does: access.StopStream, tag: tagStreams, summary: "Stop a stream by its address",
		about:  "Ends one stream. Its slot is free at once.",
		errors: []int{http.StatusNotFound, http.StatusGone}, reply: exampleUser(),
	}
}

func beaconDoc() opDoc {
	return opDoc{
		id: "stop-by-beacon", does: access.StopStream, tag: tagStreams, summary: "Stop a stream from a page that is closing",
		about: "The same as DELETE on the stream, for `navigator.sendBeacon`: a body of any content type may be " +
			"sent and is ignored.",
		errors: []int{http.StatusNotFound, http.StatusGone}, reply: exampleUser(),
	}
}

func heartbeatDoc() opDoc {
	return opDoc{
		id: "heartbeat", does: access.StopStream, tag: tagStreams, summary: "Keep a stream alive",
		about: "Gives the stream its full time to live again. Send one every `heartbeatSeconds`; it is safe to " +
			"repeat. With `\"degraded\": true` etcd could not be reached in time: play on and beat again soon.",
		errors: []int{http.StatusNotFound, http.StatusGone}, reply: exampleStream(),
	}
}

func heartbeatsDoc() opDoc {
	return opDoc{
		id: "heartbeats", does: access.StopStream, tag: tagStreams, summary: "Keep many streams alive",
		about: "Up to 1,000 heartbeats in one request, for gateways that speak for many players. Each is " +
			"answered by itself: those not in `ended` play on.",
		maxBody: maxBatchBody,
		body:    apitype.Beats{Heartbeats: []apitype.Beat{{UserID: "maya", StreamID: exampleID}}},
		reply: apitype.BeatsResult{Alive: 1, Ended: []apitype.EndedBeat{
			{UserID: "noah", StreamID: exampleID, Reason: string(lease.ReasonExpired)},
		}},
	}
}

func exampleTime(after time.Duration) *apitype.Time {
	return apitype.At(time.Date(2026, 5, 4, 20, 15, 0, 250e6, time.UTC).Add(after))
}

func exampleUser() apitype.User { return apitype.User{UserID: "maya", Streams: 1, Limit: 3} }

func exampleStream() apitype.Stream {
	return apitype.Stream{
		ID: exampleID, StartedAt: exampleTime(0), ExpiresAt: exampleTime(90 * time.Second),
		TTLSeconds: 90, HeartbeatSeconds: 30, Region: "local", Session: "tab-5f1c",
		Device: &apitype.Device{ID: "b8d0", Name: "Living room TV", Type: "tv"},
	}
}

// example is a problem of this kind as a client could meet it.
func (k kind) example() apitype.Problem {
	p := k.problem(k.help).Problem
	switch k.name {
	case limitReached.name:
		limit := 1
		p.Limit, p.Streams, p.Active = &limit, &limit, []apitype.Stream{exampleStream()}
	case streamEnded.name:
		p.Reason = string(lease.ReasonReplaced)
		p.By = &apitype.By{Device: exampleStream().Device, StartedAt: exampleTime(0)}
	case invalid.name:
		p.Errors = []apitype.FieldError{{Location: "body.session", Message: "expected length <= 200"}}
	}
	return p
}
