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
	"streamcount/internal/retry"
)

const (
	// eventTimeout is the maximum time between two lines of an event stream. A node sends one
	// every 15 s.
	eventTimeout = 40 * time.Second
	maxEvent     = 1 << 20 // bytes of one event
	eventBackoff = 10 * time.Second
)

// EventOptions selects the events to follow.
type EventOptions struct {
	User  string // the user whose events are wanted; all users if empty
	After string // Cursor of the last received event; only new events if empty
	// OnConnection, if not nil, is called between events: with an error when the connection was
	// lost, and with nil when it was made.
	OnConnection func(lost error)
}

// An Event is an event with its position.
type Event struct {
	apitype.Event
	Cursor string // for EventOptions.After; opaque
}

// Events follows events until ctx ends or the loop exits. It reconnects when the connection
// is lost, and continues after the last received event. If events were missed, it yields an
// event of type [apitype.EventGap]. A permanent error ends the sequence: a [*ProblemError] if
// the service rejects the call, or the error of ctx.
func (c *Client) Events(ctx context.Context, w EventOptions) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		f := eventFollower{client: c, opts: w, yield: yield}
		for fails := 0; ; fails++ {
			connected, err := f.follow(ctx)
			if connected {
				fails = 0
			}
			switch {
			case errors.Is(err, errLoopExited):
				return
			case ctx.Err() != nil:
				yield(Event{}, fmt.Errorf("follow events: %w", context.Cause(ctx)))
				return
			case !transient(err), errors.Is(err, ErrClosed):
				yield(Event{}, fmt.Errorf("follow events: %w", err))
				return
			}
			f.notifyConnection(err)
			_ = retry.Sleep(ctx, max(backoff(fails, eventBackoff), min(retryAfter(err), eventBackoff))) // the loop checks ctx
		}
	}
}

// errLoopExited means that the loop over the events has exited.
var errLoopExited = errors.New("the loop has exited")

// An eventFollower is the state of one call of Events.
type eventFollower struct {
	client *Client
	opts   EventOptions
	yield  func(Event, error) bool
}

func (f *eventFollower) notifyConnection(lost error) {
	if f.opts.OnConnection != nil {
		f.opts.OnConnection(lost)
	}
}

// follow reads events over one connection until it ends. connected reports whether there was
// a connection.
func (f *eventFollower) follow(ctx context.Context) (connected bool, err error) {
	if f.client.isClosed() {
		return false, ErrClosed
	}
	if f.opts.User != "" {
		if err := checkUser(f.opts.User); err != nil {
			return false, err
		}
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
	defer func() { _ = resp.Body.Close() }() // the body was only read
	f.notifyConnection(nil)
	silence.Stop()
	// A new timer, because the old one may be firing now, with another error.
	silence = time.AfterFunc(eventTimeout, func() { cancel(timeoutError(eventTimeout)) })
	defer silence.Stop()
	return true, causeOf(ctx, f.read(resp.Body, func() { silence.Reset(eventTimeout) }))
}

// causeOf returns the cause of ctx's end, which is more specific, or err.
func causeOf(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, errLoopExited) {
		return cause
	}
	return err
}

// open requests the events.
func (f *eventFollower) open(ctx context.Context) (*http.Response, error) {
	path := "/api/v1/events"
	if f.opts.User != "" {
		path += "?user=" + url.QueryEscape(f.opts.User)
	}
	req, err := f.client.request(ctx, http.MethodGet, path, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream, application/problem+json")
	if f.opts.After != "" {
		req.Header.Set("Last-Event-ID", f.opts.After)
	}
	resp, err := f.client.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode == http.StatusOK && mediaType(resp) == "text/event-stream" {
		return resp, nil
	}
	defer func() { _ = resp.Body.Close() }() // the body was only read
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	switch {
	case err != nil:
		return nil, fmt.Errorf("read answer: %w", err)
	case resp.StatusCode == http.StatusOK:
		return nil, fmt.Errorf("%w: content type %q: is this a streamcount server?", errUnreadable, mediaType(resp))
	}
	return nil, refusal(resp, body)
}

// read delivers events until the stream ends. It calls alive for every line.
func (f *eventFollower) read(body io.Reader, alive func()) error {
	lines := bufio.NewScanner(body)
	lines.Buffer(make([]byte, 0, 4096), maxEvent)
	var id string
	var data []byte
	for lines.Scan() {
		alive()
		line := lines.Bytes()
		if len(line) == 0 {
			if err := f.deliver(id, data); err != nil {
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

// deliver yields one event. An id without data only moves the cursor.
func (f *eventFollower) deliver(id string, data []byte) error {
	if len(data) > 0 {
		e := Event{Cursor: id}
		if err := json.Unmarshal(data, &e.Event); err != nil {
			return fmt.Errorf("%w: %.80q: %w", errUnreadable, strings.TrimSpace(string(data)), err)
		}
		if !f.yield(e, nil) {
			return errLoopExited
		}
	}
	if id != "" {
		f.opts.After = id
	}
	return nil
}
