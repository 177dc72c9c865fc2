package api

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/url"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gorilla/mux"

	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/api/internal/convert"
	"streamcount/api/internal/eventstream"
	"streamcount/api/internal/openapi"
	"streamcount/api/internal/overload"
	"streamcount/api/internal/problem"
	"streamcount/events"
)

// eventRoute registers the event stream. huma does not serve it, because its operations have a
// deadline and answer JSON.
func (s *Server) eventRoute(r *mux.Router, a huma.API) {
	op := openapi.Events(a)
	traits := openapi.TraitsOf(op)
	a.OpenAPI().AddOperation(op)
	s.handlePage(r, op.Path, func(w http.ResponseWriter, r *http.Request) {
		if p := s.serveEvents(traits, w.(*recorder), r); p != nil { // observe is outermost: see New
			p.Write(w)
		}
	})
}

// serveEvents sends events until the client disconnects or the node drains. It returns a
// problem if it does not begin.
func (s *Server) serveEvents(traits openapi.Traits, rec *recorder, r *http.Request) *problem.Problem {
	if p := s.authorize(traits, rec, r, ""); p != nil {
		return p
	}
	user, after, p := eventQuery(r)
	if p != nil {
		return p
	}
	feed := s.backend.Load().Feed
	if feed == nil {
		return problem.Unavailable.New("The node has not reached etcd yet. Retry after the number of seconds in Retry-After.").
			WithHeader("Retry-After", problem.RetryAfterJittered())
	}
	rec.user = user
	if rec.head {
		eventstream.SetHeaders(rec.Header())
		rec.WriteHeader(http.StatusOK)
		return nil
	}
	if s.events.Closed() {
		return problem.Unavailable.New("The node is shutting down. Another node sends events.").WithHeader("Retry-After", problem.RetryAfterJittered())
	}
	done, bound := s.load.AdmitEventStream(eventCaller(rec))
	if bound != overload.None {
		return rejection(bound, 0)
	}
	defer done()
	follower, err := feed.Follow(r.Context(), after, user)
	if err != nil {
		return convert.Problem(err).WithField("header.Last-Event-ID", "expected the id of an event")
	}
	form := events.WithHandles
	if maySeeIDs(rec.caller) {
		form = events.WithIDs
	}
	err = s.events.Send(r.Context(), rec, eventstream.Stream{
		Follower: follower,
		Encode:   func(e *events.Event) []byte { return e.Encoded(form, s.encodeEvent) },
		Allowed:  func() bool { return s.mayStillFollow(traits.Action, rec, r) },
	})
	if err != nil {
		rec.err, rec.clientGone = err, true
	}
	return nil
}

// eventCaller returns the key by which event streams are counted: an API key, or the client's
// network.
func eventCaller(rec *recorder) string {
	if rec.caller.HasKey() {
		return rec.caller.String()
	}
	return rec.network()
}

// eventQuery returns the user whose events the client asks for, and the cursor after which they
// begin. The header takes precedence, because browsers send it when they reconnect.
func eventQuery(r *http.Request) (user, after string, p *problem.Problem) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", "", problem.Malformed.New("The query is not well formed.")
	}
	for name, values := range query {
		switch {
		case name != "user" && name != "after":
			return "", "", problem.Invalid.New("The query parameters of this call are user and after.").WithField("query."+printableName(name), "unknown query parameter")
		case len(values) > 1:
			return "", "", problem.Invalid.New("A query parameter is repeated.").WithField("query."+name, "expected one value")
		}
	}
	user = query.Get("user")
	if query.Has("user") {
		if p := checkUser("query.user", user); p != nil {
			return "", "", p
		}
	}
	after = query.Get("after")
	if last := r.Header.Get("Last-Event-ID"); last != "" {
		after = last
	}
	return user, after, nil
}

// printableName returns the name of a parameter if a response may contain it.
func printableName(name string) string {
	if len(name) > 40 || !validIDForm(name) {
		return "?"
	}
	return name
}

// mayStillFollow reports whether the credential of a request still permits it: a key may be
// revoked and a token may expire. What cannot be checked now stays permitted.
func (s *Server) mayStillFollow(does access.Action, rec *recorder, r *http.Request) bool {
	if s.cfg.Access == nil {
		return true
	}
	caller, err := s.cfg.Access.Authenticate(r)
	if err != nil {
		return errors.Is(err, access.ErrUnavailable)
	}
	return caller.Kind == rec.caller.Kind && caller.Name == rec.caller.Name && caller.Authorize(does, "") == access.Allowed
}

// encodeEvent returns the data of an event.
func (s *Server) encodeEvent(e *events.Event, form events.Encoding) []byte {
	var data any
	out := apitype.Event{
		Type: string(e.Kind), At: apitype.At(e.At), Revision: e.Revision, UserID: e.User, Streams: e.Streams,
		Reason: string(e.Reason), Detail: e.Detail, By: convert.EndedBy(e.By()), Shard: e.Shard(), Limits: e.Limits(),
	}
	switch e.Kind {
	case events.Gap:
		data = gap{out.Type, out.At, out.Revision, out.Shard, out.Detail}
	case events.Refusal:
		out.Node = s.cfg.Node.ID
		fallthrough
	default:
		out.Limit = e.Limit()
		if st, ok := e.Stream(); ok {
			of := convert.Stream(st)
			if form == events.WithHandles {
				of = withHandle(of)
			}
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
