package client

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"time"

	"streamcount/api/apitype"
)

var userPattern = regexp.MustCompile(apitype.UserPattern)

// userPath is the base of user's calls. Ids that the service would refuse are
// refused here: some of them would be another path.
func userPath(user string) (string, error) {
	if !userPattern.MatchString(user) {
		return "", fmt.Errorf("%w: user id %.140q: want 1 to 128 letters, digits and . _ ~ @ : | + = -",
			ErrInvalid, user)
	}
	return "/api/v1/streams/users/" + url.PathEscape(user), nil
}

func streamPath(user, id string) (string, error) {
	base, err := userPath(user)
	if err != nil {
		return "", err
	}
	if id == "" || len(id) > 200 {
		return "", fmt.Errorf("%w: stream id %.20q: want the id that a start answered", ErrInvalid, id)
	}
	return base + "/streams/" + url.PathEscape(id), nil
}

// StartStream takes one of user's slots and returns, and does not keep it: it
// lapses unless somebody sends heartbeats. See [Client.Start] for a stream that
// keeps itself, for the errors and for what is retried.
func (c *Client) StartStream(ctx context.Context, user string, req apitype.Start) (apitype.User, error) {
	reply, _, err := c.start(ctx, user, req)
	return reply, err
}

// start also returns when the request that was answered left: etcd may count
// the lease from any moment after.
func (c *Client) start(ctx context.Context, user string, req apitype.Start) (apitype.User, time.Time, error) {
	var reply apitype.User
	var sent time.Time
	base, err := userPath(user)
	if err != nil {
		return reply, sent, err
	}
	if req.Session == "" {
		// A start that is sent again takes over the slot of the first, whose
		// answer may have been lost.
		req.Session = rand.Text()
	}
	err = c.persist(ctx, func() error {
		reply, sent = apitype.User{}, time.Now()
		if err := c.send(ctx, http.MethodPost, base+"/start", req, &reply); err != nil {
			return err
		}
		if reply.Stream == nil {
			return fmt.Errorf("%w: a start without a stream", errUnreadable)
		}
		return checkStream(*reply.Stream)
	})
	if err != nil {
		return apitype.User{}, sent, fmt.Errorf("start stream of %s: %w", user, err)
	}
	return reply, sent, nil
}

// checkStream refuses what cannot be a stream, such as the JSON of a proxy.
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

// Heartbeat renews user's stream once. A stream that is gone is an
// [*EndedError]. Where the answer is Degraded, the stream plays on.
func (c *Client) Heartbeat(ctx context.Context, user, id string) (apitype.Stream, error) {
	path, err := streamPath(user, id)
	if err != nil {
		return apitype.Stream{}, err
	}
	what := fmt.Sprintf("heartbeat of %s's stream", user)
	s, err := get[apitype.Stream](ctx, c, http.MethodPost, path+"/heartbeat", nil, what)
	if err != nil {
		return s, err
	}
	if err := checkStream(s); err != nil {
		return apitype.Stream{}, fmt.Errorf("%s: %w", what, err)
	}
	if s.ID != id {
		return apitype.Stream{}, fmt.Errorf("%s: %w: about another stream", what, errUnreadable)
	}
	return s, nil
}

// HeartbeatAll renews many streams, [apitype.MaxBatch] in a request. The
// returned errors are in the order of beats: nil for a stream that plays on, an
// [*EndedError] for one that is gone. When a request fails, all of it can be
// sent again: heartbeats are safe to repeat.
func (c *Client) HeartbeatAll(ctx context.Context, beats []apitype.Beat) ([]error, error) {
	ended := make([]error, 0, len(beats))
	for len(beats) > 0 {
		batch := beats[:min(len(beats), apitype.MaxBatch)]
		beats = beats[len(batch):]
		reply, err := get[apitype.BeatsResult](ctx, c, http.MethodPost, "/api/v1/streams/heartbeats",
			apitype.Beats{Heartbeats: batch}, fmt.Sprintf("heartbeat of %d streams", len(batch)))
		if err != nil {
			return nil, err
		}
		reasons := make(map[apitype.Beat]string, len(reply.Ended))
		for _, e := range reply.Ended {
			reasons[apitype.Beat{UserID: e.UserID, StreamID: e.StreamID}] = e.Reason
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

// StopStream ends user's stream. One that has ended already is an
// [*EndedError]; where the answer to a first attempt was lost, that is how the
// second looks. Transient failures are retried as in [Client.Start].
func (c *Client) StopStream(ctx context.Context, user, id string) (apitype.User, error) {
	path, err := streamPath(user, id)
	if err != nil {
		return apitype.User{}, err
	}
	var reply apitype.User
	err = c.persist(ctx, func() error {
		reply = apitype.User{}
		return c.send(ctx, http.MethodDelete, path, nil, &reply)
	})
	if err != nil {
		return apitype.User{}, fmt.Errorf("stop stream of %s: %w", user, err)
	}
	return reply, nil
}

// StopQuietest ends the one of user's streams that was heard from longest ago.
// It is sent once: repeated, it would end another.
func (c *Client) StopQuietest(ctx context.Context, user string) (apitype.User, error) {
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
