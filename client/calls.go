package client

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"time"

	"streamcount/api/apitype"
)

// userPath returns the base path of user's calls.
func userPath(user string) (string, error) {
	if err := checkUser(user); err != nil {
		return "", err
	}
	return "/api/v1/streams/users/" + segment(user), nil
}

func streamPath(user, id string) (string, error) {
	base, err := userPath(user)
	if err != nil {
		return "", err
	}
	if id == "" || len(id) > 200 {
		return "", fmt.Errorf("%w: stream id %.20q: want the id that a start answered", ErrInvalid, id)
	}
	return base + "/streams/" + segment(id), nil
}

// StartStream starts a stream without sending heartbeats for it; without heartbeats it
// expires. See [Client.Start] for a stream that is kept alive, for the errors and for retries.
func (c *Client) StartStream(ctx context.Context, user string, req apitype.Start) (apitype.User, error) {
	reply, _, err := c.start(ctx, user, req)
	return reply, err
}

// start also returns the time at which the answered request was sent: the lease begins at or
// after that time.
func (c *Client) start(ctx context.Context, user string, req apitype.Start) (apitype.User, time.Time, error) {
	var reply apitype.User
	var sent time.Time
	base, err := userPath(user)
	if err != nil {
		return reply, sent, err
	}
	req, err = cleanStart(req)
	if err != nil {
		return reply, sent, fmt.Errorf("start stream of %s: %w", user, err)
	}
	if req.Session == "" {
		// A repeated start takes over the slot of the first, whose answer may have been lost.
		req.Session = rand.Text()
	}
	err = c.retry(ctx, func() error {
		reply, sent = apitype.User{}, time.Now()
		if err := c.send(ctx, http.MethodPost, base+"/start"+c.tokenQuery(), req, &reply); err != nil {
			return err
		}
		if reply.Stream == nil {
			return fmt.Errorf("%w: a start without a stream", errUnreadable)
		}
		return checkStream(*reply.Stream)
	})
	if err != nil {
		c.reportRejection("start", user, err)
		return apitype.User{}, sent, fmt.Errorf("start stream of %s: %w", user, err)
	}
	reply.Stream.Token = reply.Token
	c.reportToken(user, reply.Token)
	return reply, sent, nil
}

// checkStream returns an error for an answer that is not a stream, such as a proxy's JSON.
func checkStream(s apitype.Stream) error {
	if s.ID == "" || s.TTLSeconds <= 0 {
		return fmt.Errorf("%w: a stream without id or TTL", errUnreadable)
	}
	return nil
}

// List returns user's streams, oldest first. A user without any is a
// [*ProblemError] with status 404.
func (c *Client) List(ctx context.Context, user string) (apitype.User, error) {
	base, err := userPath(user)
	if err != nil {
		return apitype.User{}, err
	}
	return get[apitype.User](ctx, c, http.MethodGet, base, nil, "list streams of "+user)
}

// Heartbeat renews user's stream once. A stream that has ended is an [*EndedError]. If the
// answer is Degraded, playback continues.
func (c *Client) Heartbeat(ctx context.Context, user, id string) (apitype.Stream, error) {
	path, err := streamPath(user, id)
	if err != nil {
		return apitype.Stream{}, err
	}
	what := fmt.Sprintf("heartbeat of %s's stream", user)
	s, err := get[apitype.Stream](ctx, c, http.MethodPost, path+"/heartbeat"+c.tokenQuery(), nil, what)
	if err != nil {
		return s, err
	}
	if err := checkStream(s); err != nil {
		return apitype.Stream{}, fmt.Errorf("%s: %w", what, err)
	}
	if s.ID != id {
		return apitype.Stream{}, fmt.Errorf("%s: %w: about another stream", what, errUnreadable)
	}
	c.reportToken(user, s.Token)
	return s, nil
}

// HeartbeatAll renews many streams, up to [apitype.MaxBatch] per HTTP request. The returned
// errors are in the order of requests: nil for a live stream, an [*EndedError] for one that
// has ended.
// If an HTTP request fails, repeat the call: heartbeats are idempotent.
func (c *Client) HeartbeatAll(ctx context.Context, requests []apitype.Heartbeat) ([]error, error) {
	for _, b := range requests {
		if err := checkUser(b.UserID); err != nil { // JSON would change the id
			return nil, err
		}
	}
	ended := make([]error, 0, len(requests))
	for len(requests) > 0 {
		batch := requests[:min(len(requests), apitype.MaxBatch)]
		requests = requests[len(batch):]
		reply, err := get[apitype.HeartbeatsResult](ctx, c, http.MethodPost, "/api/v1/streams/heartbeats",
			apitype.Heartbeats{Heartbeats: batch}, fmt.Sprintf("heartbeat of %d streams", len(batch)))
		if err != nil {
			return nil, err
		}
		reasons := make(map[apitype.Heartbeat]string, len(reply.Ended))
		for _, e := range reply.Ended {
			reasons[apitype.Heartbeat{UserID: e.UserID, StreamID: e.StreamID}] = e.Reason
		}
		for _, b := range batch {
			var err error
			if reason, ok := reasons[b]; ok {
				err = &EndedError{Reason: reason}
			}
			ended = append(ended, err)
		}
	}
	return ended, nil
}

// StopStream ends user's stream. A stream that has already ended is an [*EndedError], also if
// the answer to the first attempt was lost and the second was answered. Transient failures
// are retried as in [Client.Start].
func (c *Client) StopStream(ctx context.Context, user, id string) (apitype.User, error) {
	path, err := streamPath(user, id)
	if err != nil {
		return apitype.User{}, err
	}
	var reply apitype.User
	err = c.retry(ctx, func() error {
		reply = apitype.User{}
		return c.send(ctx, http.MethodDelete, path, nil, &reply)
	})
	if err != nil {
		return apitype.User{}, fmt.Errorf("stop stream of %s: %w", user, err)
	}
	return reply, nil
}

// StopOldestHeartbeat ends user's stream with the oldest heartbeat. The request is sent only
// once, because a repeated request would end another stream.
func (c *Client) StopOldestHeartbeat(ctx context.Context, user string) (apitype.User, error) {
	base, err := userPath(user)
	if err != nil {
		return apitype.User{}, err
	}
	return get[apitype.User](ctx, c, http.MethodPost, base+"/stop", nil, "stop a stream of "+user)
}

// Remove ends all of user's streams.
func (c *Client) Remove(ctx context.Context, user string) (apitype.Removed, error) {
	base, err := userPath(user)
	if err != nil {
		return apitype.Removed{}, err
	}
	return get[apitype.Removed](ctx, c, http.MethodDelete, base, nil, "remove "+user)
}

// get makes one request; what names it in errors.
func get[T any](ctx context.Context, c *Client, method, path string, in any, what string) (T, error) {
	var out T
	if err := c.send(ctx, method, path, in, &out); err != nil {
		var zero T
		return zero, fmt.Errorf("%s: %w", what, err)
	}
	return out, nil
}
