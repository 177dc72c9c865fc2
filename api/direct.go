package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/danielgtaylor/huma/v2"
	"github.com/gorilla/mux"

	"streamcount/api/apitype"
	"streamcount/api/internal/openapi"
	"streamcount/api/internal/plainjson"
	"streamcount/api/internal/playback"
	"streamcount/api/internal/problem"
	"streamcount/api/internal/router"
)

// Starts, heartbeats and stops are nearly all of the load. Their handlers do without
// huma's routing, negotiation and reflection, which cost more than the limiter does: huma
// only describes these calls in the OpenAPI document, and validates bodies that are not in
// the plain form.

// A directCall is a request for a handler that huma does not call.
type directCall[B any] struct {
	rec  *recorder
	user string
	id   string // of the stream; "" if the path has none
	body *B     // nil if the request has none

	tokens playback.Requested // the formats of the playback token in the response
}

// A form is how the bodies of a direct call are read and written.
type form[B, O any] struct {
	read   func([]byte) (*B, bool) // a body in the plain form; nil if the call has no body
	append func([]byte, *O) []byte
}

var (
	startForm     = form[apitype.Start, apitype.User]{plainjson.ReadStart, plainjson.AppendUser}
	heartbeatForm = form[noBody, apitype.Stream]{nil, plainjson.AppendStream}
	batchForm     = form[apitype.Heartbeats, apitype.HeartbeatsResult]{plainjson.ReadHeartbeats, plainjson.AppendHeartbeatsResult}
	stopForm      = form[apitype.Stop, apitype.User]{plainjson.ReadStop, plainjson.AppendUser}
	stopByIDForm  = form[noBody, apitype.User]{nil, plainjson.AppendUser}
)

// noBody is the body type of calls that have no body.
type noBody struct{}

// direct registers an operation with a handler that huma does not call. I and O are the
// types by which huma describes the request and the response.
func direct[I, B, O any](
	s *Server, r *mux.Router, a huma.API, method, path string, d openapi.Operation,
	f form[B, O], h func(context.Context, directCall[B]) (*O, error),
) {
	op := describeOperation[I, reply[O]](a, d.Huma(method, path))
	withID := strings.Contains(path, "{id}")
	withTokens := slices.ContainsFunc(op.Parameters, func(p *huma.Param) bool { return p.Name == "token" })
	serve := func(rec *recorder, r *http.Request, params router.Params, body requestBody) {
		c := directCall[B]{rec: rec, user: params.User, id: params.ID}
		var p *problem.Problem
		if c.tokens, p = s.checkParameters(r, params, withID, withTokens); p != nil {
			p.Write(rec)
			return
		}
		if body.decoded != nil {
			c.body = body.decoded.(*B)
		} else if len(body.json) > 0 {
			c.body = new(B)
			if p := s.decode(body.json, op, c.body); p != nil {
				p.Write(rec)
				return
			}
		}
		out, err := h(r.Context(), c)
		if err != nil {
			rec.problemFor(r.Context(), err).Write(rec)
			return
		}
		writeJSON(rec, out, f.append)
	}
	var readPlain func([]byte) (any, bool)
	if f.read != nil {
		readPlain = func(raw []byte) (any, bool) { return f.read(raw) }
	}
	s.directCalls.Add(method, path, s.guard(op, readPlain, serve))
	// The router only lists the methods of the path.
	r.Handle(path, http.NotFoundHandler()).Methods(method)
}

// describeOperation adds an operation to the OpenAPI document, without a route.
func describeOperation[I, O any](a huma.API, op huma.Operation) *huma.Operation {
	d := &describer{API: a}
	huma.Register(d, op, func(context.Context, *I) (*O, error) { return nil, nil })
	return d.op
}

// A describer is a huma.API that describes an operation and does not route to it.
type describer struct {
	huma.API
	op *huma.Operation
}

// Adapter returns d.
func (d *describer) Adapter() huma.Adapter { return d }

// Handle records the operation, which has the schemas of its bodies by now.
func (d *describer) Handle(op *huma.Operation, _ func(huma.Context)) { d.op = op }

// ServeHTTP is not called.
func (d *describer) ServeHTTP(http.ResponseWriter, *http.Request) {}

// checkParameters returns the requested playback tokens. It rejects all other query parameters,
// which the direct calls do not have, and ids that no stream has.
func (s *Server) checkParameters(
	r *http.Request, params router.Params, withID, withTokens bool,
) (tokens playback.Requested, p *problem.Problem) {
	if r.URL.RawQuery != "" {
		res, query := huma.ValidateResult{}, r.URL.Query()
		if values := query["token"]; withTokens && values != nil {
			if tokens, p = s.cfg.Tokens.Parse(values); p != nil {
				return 0, p
			}
			delete(query, "token")
		}
		for _, name := range slices.Sorted(maps.Keys(query)) {
			res.Errors = append(res.Errors, &huma.ErrorDetail{Location: "query." + name, Message: "unknown query parameter"})
		}
		if len(res.Errors) > 0 {
			return 0, problem.FromHuma(http.StatusUnprocessableEntity, "", res.Errors)
		}
	}
	if withID && !validIDForm(params.ID) {
		return 0, problem.Invalid.New("path.id: "+streamIDMessage).WithField("path.id", streamIDMessage)
	}
	return tokens, nil
}

// decode validates a body that is valid JSON against the schema of op, and stores it in
// out.
func (s *Server) decode(body []byte, op *huma.Operation, out any) *problem.Problem {
	var doc any
	if err := json.Unmarshal(body, &doc); err != nil {
		return problem.Malformed.New("The body is not JSON.").WithField("body", "expected JSON")
	}
	schema := op.RequestBody.Content["application/json"].Schema
	path, res := huma.NewPathBuffer([]byte{}, 0), huma.ValidateResult{}
	path.Push("body")
	huma.Validate(s.schemas, schema, path, huma.ModeWriteToServer, doc, &res)
	if len(res.Errors) > 0 {
		return problem.FromHuma(http.StatusUnprocessableEntity, "", res.Errors)
	}
	if err := json.Unmarshal(body, out); err != nil {
		panic(fmt.Errorf("a valid body cannot be decoded: %w", err)) // the schema is that of out
	}
	return nil
}

// writeJSON writes a response body as huma does.
func writeJSON[O any](w http.ResponseWriter, body *O, appendTo func([]byte, *O) []byte) {
	buffer, _ := responseBuffers.Get().(*[]byte)
	if buffer == nil {
		buffer = new(make([]byte, 0, 1<<10))
	}
	b := append(appendTo((*buffer)[:0], body), '\n')
	w.Header()["Content-Type"] = jsonType
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(b) // fails only if the client is gone
	if cap(b) <= maxReusedBuffer {
		*buffer = b
		responseBuffers.Put(buffer)
	}
}

// responseBuffers has buffers of response bodies, as *[]byte.
var responseBuffers sync.Pool

// maxReusedBuffer is the maximum size of a buffer that is reused. net/http copies a body of
// this size before Write returns. An HTTP/2 connection may still read from a larger one if
// the client has cancelled the request.
const maxReusedBuffer = 4 << 10

var jsonType = []string{"application/json"}

// huma takes its error type and its rule for the case of property names from
// package variables alone.
func init() {
	huma.NewError = func(status int, msg string, errs ...error) huma.StatusError {
		return problem.FromHuma(status, msg, errs)
	}
	huma.NewErrorWithContext = func(ctx huma.Context, status int, msg string, errs ...error) huma.StatusError {
		return recordProblem(ctx.Context(), problem.FromHuma(status, msg, errs))
	}
	huma.ValidateStrictCasing = true
	huma.DefaultArrayNullable = false
}
