package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"streamcount/api/apitype"
	"streamcount/lease"
)

// A hotCall answers for a user and the id of a stream, "" if the path has none.
type hotCall func(ctx context.Context, s *Server, w *recorder, user userID, id streamID) (any, error)

// hotCalls are the calls that are nearly all of the load. Where such a request
// carries nothing but its path and is in plain order, it is answered without
// huma's parsing, validation and negotiation, which cost more than the limiter
// does. Anything unusual about it is left to the operation itself, which answers
// the same: TestHot holds the two against each other.
var hotCalls = map[string]hotCall{
	"start": func(ctx context.Context, s *Server, w *recorder, user userID, _ streamID) (any, error) {
		out, err := s.start(context.WithValue(ctx, recorderKey{}, w), &startInput{User: user})
		return bodyOf(out), err
	},
	"heartbeat": func(ctx context.Context, s *Server, _ *recorder, user userID, id streamID) (any, error) {
		out, err := s.heartbeat(ctx, &streamInput{user, id})
		return bodyOf(out), err
	},
	"stop-by-id": hotStop, "stop-by-beacon": hotStop,
}

func hotStop(ctx context.Context, s *Server, w *recorder, user userID, id streamID) (any, error) {
	out, err := s.stopByID(context.WithValue(ctx, recorderKey{}, w), &streamInput{user, id})
	return bodyOf(out), err
}

func bodyOf[T any](r *reply[T]) any {
	if r == nil {
		return nil
	}
	return &r.Body
}

// plain reports whether a request carries nothing but its path, in plain order.
func plain(r *http.Request, vars map[string]string) bool {
	id, withID := vars["id"]
	return r.URL.RawQuery == "" && r.ContentLength == 0 && lease.ValidUser(vars["user"]) && (!withID || plainID(id))
}

// hot returns the short way for plain requests of an operation, or nil.
func (s *Server) hot(op *huma.Operation) func(w *recorder, r *http.Request, vars map[string]string) {
	call := hotCalls[op.OperationID]
	if call == nil {
		return nil
	}
	return func(w *recorder, r *http.Request, vars map[string]string) {
		out, err := call(r.Context(), s, w, userID(vars["user"]), streamID(vars["id"]))
		if err != nil {
			p := toProblem(err)
			if p.Status >= http.StatusInternalServerError {
				w.err, w.gone = err, r.Context().Err() != nil
			}
			p.write(w)
			return
		}
		writeJSON(w, out)
	}
}

// plainID reports whether an id has the shape that its route demands.
func plainID(id string) bool {
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

// writeJSON writes a body as huma does.
func writeJSON(w http.ResponseWriter, body any) {
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // our own types always marshal
	}
	b = append(b, '\n')
	w.Header()["Content-Type"] = jsonType
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b) // the client is gone: there is nobody to tell
}

var jsonType = []string{"application/json"}
