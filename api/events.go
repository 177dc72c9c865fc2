package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gorilla/mux"
	"golang.org/x/time/rate"

	"streamcount/api/apitype"
	"streamcount/lease"
)

// eventBounds keep those who follow events from costing the node much.
type eventBounds struct {
	slots   chan struct{} // holds one for each stream of events
	live    context.Context
	end     context.CancelFunc // when the node drains
	pace    *rate.Limiter      // of events told, by all streams together
	beat    time.Duration      // between signs of life
	rest    time.Duration      // between writes, so that a flood comes in few of them
	patient time.Duration      // how long a write may take
	longest time.Duration      // of one stream, so that access is looked at again
}

const (
	maxEventStreams = 256
	maxEventPace    = 20_000 // a second; what is told more slowly than it happens becomes a gap
	eventBatch      = 256
)

func newEventBounds(maxInFlight int) eventBounds {
	live, end := context.WithCancel(context.Background())
	return eventBounds{
		slots: make(chan struct{}, max(1, min(maxEventStreams, maxInFlight/4))),
		live:  live, end: end,
		pace: rate.NewLimiter(maxEventPace, maxEventPace),
		beat: 15 * time.Second, rest: 20 * time.Millisecond, patient: 10 * time.Second, longest: 30 * time.Minute,
	}
}

// eventRoute registers the stream of events. It is none of huma's operations: they
// have a deadline, and answer JSON.
func (s *Server) eventRoute(r *mux.Router, a huma.API) {
	op := eventsOperation(a)
	a.OpenAPI().AddOperation(op)
	s.plain(r, op.Path, func(w http.ResponseWriter, r *http.Request) {
		if p := s.serveEvents(op, w.(*recorder), r); p != nil { // observe is outermost: see New
			p.write(w)
		}
	})
}

// serveEvents tells events until the client goes, or the node does, or returns why
// it does not begin to.
func (s *Server) serveEvents(op *huma.Operation, rec *recorder, r *http.Request) *problem {
	if p := s.authorize(op, rec, r, ""); p != nil {
		return p
	}
	user, after, p := eventQuery(r)
	if p != nil {
		return p
	}
	feed := s.backend.Load().Feed
	if feed == nil {
		return unavailable.problem("The node has not reached etcd yet. Try again after the seconds in Retry-After.").
			with("Retry-After", soon())
	}
	if _, p := readBody(r, op); p != nil {
		return p
	}
	rec.user = user
	if rec.head {
		eventHeaders(rec.Header())
		rec.WriteHeader(http.StatusOK)
		return nil
	}
	if s.events.live.Err() != nil {
		return unavailable.problem("The node is about to stop. Another one tells the events.").with("Retry-After", soon())
	}
	select {
	case s.events.slots <- struct{}{}:
		defer func() { <-s.events.slots }()
	default:
		return overloaded.problem(fmt.Sprintf("The node tells events to %d clients, which is as many as it may. Try again "+
			"after the seconds in Retry-After, or ask another node.", cap(s.events.slots))).with("Retry-After", soon())
	}
	follower, err := feed.Follow(r.Context(), after, user)
	if err != nil {
		return toProblem(err).at("header.Last-Event-ID", "expected the id of an event")
	}
	t := &eventTeller{Server: s, rec: rec, control: http.NewResponseController(rec), follower: follower}
	if err := t.run(r.Context()); err != nil {
		rec.err, rec.gone = err, true
	}
	return nil
}

// eventQuery reads whose events are asked for, and after which one. The header is
// what browsers send when they connect again, so it goes before the query.
func eventQuery(r *http.Request) (user, after string, p *problem) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", "", malformed.problem("The query is not well formed.")
	}
	for name, values := range query {
		switch {
		case name != "user" && name != "after":
			return "", "", invalid.problem("The call takes user and after.").at("query."+printableName(name), "unknown query parameter")
		case len(values) > 1:
			return "", "", invalid.problem("A parameter is there twice.").at("query."+name, "expected one value")
		}
	}
	user = query.Get("user")
	if query.Has("user") && !lease.ValidUser(user) {
		return "", "", invalid.problem("The user is none: it is "+userRule+".").at("query.user", "expected a user")
	}
	after = query.Get("after")
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		after = last
	}
	return user, after, nil
}

// printableName is a parameter's name, if it is one that may be repeated.
func printableName(name string) string {
	if len(name) > 40 || !lease.ValidUser(name) {
		return "?"
	}
	return name
}

func eventHeaders(h http.Header) {
	h.Set("Content-Type", "text/event-stream")
	h.Set("X-Accel-Buffering", "no") // proxies would keep events until they have a page full
}

// An eventTeller writes one stream of events.
type eventTeller struct {
	*Server
	rec      *recorder
	control  *http.ResponseController
	follower *lease.Follower
	buf      []byte
	wrote    time.Time
}

// run tells events until ctx or the stream's time ends, or the node drains. It
// returns an error if the client did not take them.
func (t *eventTeller) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.events.longest)
	defer cancel()
	defer context.AfterFunc(t.events.live, cancel)()
	// The server's bounds are for requests that end soon; past this one a read would
	// end the stream.
	if err := t.control.SetReadDeadline(time.Time{}); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	eventHeaders(t.rec.Header())
	t.rec.WriteHeader(http.StatusOK)
	t.buf = fmt.Appendf(t.buf, "retry: %d\n\n", 1000+rand.IntN(2000)) // not all at once
	for woken := false; ; {
		told := t.fill()
		if told == 0 && time.Since(t.wrote) >= t.events.beat {
			t.mark()
		}
		if t.events.pace.WaitN(ctx, told) != nil {
			return nil
		}
		if err := t.flush(); err != nil {
			return err
		}
		if (told > 0 || woken) && !sleep(ctx, t.events.rest) {
			return nil
		}
		if told > 0 {
			continue
		}
		beat, stop := context.WithDeadline(ctx, t.wrote.Add(t.events.beat))
		woken = t.follower.Wait(beat) == nil
		stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// fill takes some events from the follower, and returns how many.
func (t *eventTeller) fill() int {
	for n := range eventBatch {
		e := t.follower.Next()
		if e == nil {
			return n
		}
		t.buf = fmt.Appendf(t.buf, "id: %s\nevent: %s\ndata: ", t.follower.Cursor(), e.Kind)
		t.buf = append(t.buf, e.Encoded(t.encodeEvent)...)
		t.buf = append(t.buf, "\n\n"...)
	}
	return eventBatch
}

// mark keeps the connection open, and tells where the client stands: a filter may
// have kept everything from it that happened.
func (t *eventTeller) mark() {
	t.follower.Settle()
	t.buf = fmt.Appendf(t.buf, ": nothing new\nid: %s\n\n", t.follower.Cursor())
}

// flush sends what was written.
func (t *eventTeller) flush() error {
	if len(t.buf) == 0 {
		return nil
	}
	err := t.control.SetWriteDeadline(time.Now().Add(t.events.patient))
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if _, err := t.rec.Write(t.buf); err != nil {
		return err
	}
	t.buf, t.wrote = t.buf[:0], time.Now()
	return t.control.Flush()
}

// encodeEvent is an event's data.
func (s *Server) encodeEvent(e *lease.Event) []byte {
	var data any
	out := apitype.Event{
		Type: string(e.Kind), At: apitype.At(e.At), Revision: e.Revision, UserID: e.User, Streams: e.Streams,
		Reason: string(e.Reason), Detail: e.Detail, By: by(e.By()), Shard: e.Shard(),
	}
	switch e.Kind {
	case lease.EventGap:
		data = gap{out.Type, out.At, out.Revision, out.Shard, out.Detail}
	case lease.EventRefusal:
		out.Node = s.cfg.Node.ID
		fallthrough
	default:
		out.Limit = e.Limit()
		if st, ok := e.Stream(); ok {
			of := stream(st)
			out.Stream = &of
		}
		data = out
	}
	b, err := json.Marshal(data)
	if err != nil {
		panic(err) // our own types always marshal
	}
	return b
}

// gap is an [apitype.Event] of that type, which is about no user.
type gap struct {
	Type     string        `json:"type"`
	At       *apitype.Time `json:"at,omitempty"`
	Revision int64         `json:"revision,omitempty"`
	Shard    string        `json:"shard,omitempty"`
	Detail   string        `json:"detail"`
}

// sleep waits, and reports false if ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
