package client

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"streamcount/api/apitype"
)

const (
	// eventSilence is how long a stream of events may be silent. A node says
	// something every 15 s.
	eventSilence = 40 * time.Second
	maxEvent     = 1 << 20 // bytes of one event
	eventBackoff = 10 * time.Second
)

// A Watch says which events to follow, and from where.
type Watch struct {
	User  string // whose events; everybody's if empty
	After string // Cursor of the last event that was seen; from now on if empty
	// Notice is told, between events, that the connection was lost and why, or
	// with nil that it is there (again). It may be nil.
	Notice func(lost error)
}

// An Event is one event, and where it stands among the others.
type Event struct {
	apitype.Event
	Cursor string // for Watch.After; opaque
}

// Events follows what happens to streams, until ctx ends or the loop is left. When
// the connection is lost it is made again, to go on after the last event that was
// seen; where that cannot be done without a loss there comes an event of type
// [apitype.EventGap]. An error that will not pass by itself is the last of the
// sequence: a [*ProblemError] where the call was refused, or ctx's.
func (c *Client) Events(ctx context.Context, w Watch) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		f := eventFollower{client: c, watch: w, yield: yield}
		for fails := 0; ; fails++ {
			heard, err := f.follow(ctx)
			if heard {
				fails = 0
			}
			switch {
			case errors.Is(err, errLeft):
				return
			case ctx.Err() != nil:
				yield(Event{}, fmt.Errorf("follow events: %w", context.Cause(ctx)))
				return
			case !transient(err), errors.Is(err, ErrClosed):
				yield(Event{}, fmt.Errorf("follow events: %w", err))
				return
			}
			f.notice(err)
			_ = pause(ctx, max(backoff(fails, eventBackoff), min(retryAfter(err), eventBackoff))) // ctx is looked at above
		}
	}
}

// errLeft means that the loop over the events was left.
var errLeft = errors.New("the loop was left")

// eventFollower is one call of Events.
type eventFollower struct {
	client *Client
	watch  Watch
	yield  func(Event, error) bool
}

func (f *eventFollower) notice(lost error) {
	if f.watch.Notice != nil {
		f.watch.Notice(lost)
	}
}

// follow reads events over one connection until it ends. heard reports whether
// there was one.
func (f *eventFollower) follow(ctx context.Context) (heard bool, err error) {
	if f.client.isClosed() {
		return false, ErrClosed
	}
	if f.watch.User != "" && !userPattern.MatchString(f.watch.User) {
		return false, fmt.Errorf("%w: user id %.140q: want 1 to 128 letters, digits and . _ ~ @ : | + = -",
			ErrInvalid, f.watch.User)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	limit := f.client.cfg.Timeout
	silence := time.AfterFunc(limit, func() { cancel(timeoutError(limit)) })
	defer silence.Stop()
	resp, err := f.open(ctx)
	if err != nil {
		return false, causeOf(ctx, err)
	}
	defer func() { _ = resp.Body.Close() }() // reading it has told all there is to know
	f.notice(nil)
	silence.Stop()
	// A new timer: the old one may be firing now, and says something else.
	silence = time.AfterFunc(eventSilence, func() { cancel(timeoutError(eventSilence)) })
	defer silence.Stop()
	return true, causeOf(ctx, f.read(resp.Body, func() { silence.Reset(eventSilence) }))
}

// causeOf is err, or why ctx ended, which says more.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, errLeft) {
		return cause
	}
	return err
}

// open asks for the events.
func (f *eventFollower) open(ctx context.Context) (*http.Response, error) {
	path := "/api/v1/events"
	if f.watch.User != "" {
		path += "?user=" + url.QueryEscape(f.watch.User)
	}
	req, err := f.client.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream, application/problem+json")
	if f.watch.After != "" {
		req.Header.Set("Last-Event-ID", f.watch.After)
	}
	resp, err := f.client.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK && mediaType(resp) == "text/event-stream" {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }() // the same
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read answer: %w", err)
	case resp.StatusCode == http.StatusOK:
		return nil, fmt.Errorf("%w: content type %q: is this a streamcount server?", errUnreadable, mediaType(resp))
	}
	return nil, refusal(resp, body)
}

// read passes events on until the stream ends. It calls alive for every line.
func (f *eventFollower) read(body io.Reader, alive func()) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 4096), maxEvent)
	var id string
	var data []byte
	for lines.Scan() {
		alive()
		line := lines.Bytes()
		if len(line) == 0 {
			if err := f.pass(id, data); err != nil {
				return err
			}
			data = nil
			continue
		}
		name, value, _ := bytes.Cut(line, []byte(":")) // a comment has no name
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(name) {
		case "id":
			id = string(value)
		case "data":
			if len(data)+len(value) > maxEvent {
				return fmt.Errorf("%w: an event of more than %d bytes", errUnreadable, maxEvent)
			}
			data = append(append(data, value...), '\n')
		}
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	return io.ErrUnexpectedEOF
}

// pass hands one event over. An id without data only moves the cursor.
func (f *eventFollower) pass(id string, data []byte) error {
	if len(data) > 0 {
		e := Event{Cursor: id}
		if err := json.Unmarshal(data, &e.Event); err != nil {
			return fmt.Errorf("%w: %.80q: %w", errUnreadable, strings.TrimSpace(string(data)), err)
		}
		if !f.yield(e, nil) {
			return errLeft
		}
	}
	if id != "" {
		f.watch.After = id
	}
	return nil
}
