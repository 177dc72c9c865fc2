// Package openapi describes the operations of the HTTP API: their summaries, examples,
// errors and properties. Their schemas come from the types of the handlers.
package openapi

import (
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"streamcount/access"
	"streamcount/api/internal/ingress"
	"streamcount/api/internal/latency"
	"streamcount/api/internal/overload"
	"streamcount/api/internal/problem"
)

const (
	tagStreams = "Streams"
	tagNode    = "Node"

	bearer = "bearer" // the name of the security scheme
)

// Config returns the configuration of huma for a version of the program. It turns off
// what huma serves by default: a documentation page, which loads from another host, and
// links to schemas, which would be part of every response.
func Config(version string) huma.Config {
	c := huma.DefaultConfig("streamcount", cmp.Or(version, "dev"))
	c.OpenAPIPath, c.DocsPath, c.SchemasPath, c.CreateHooks = "", "", "", nil
	c.RejectUnknownQueryParameters = true
	format := huma.Format{Marshal: marshal, Unmarshal: json.Unmarshal}
	c.Formats = map[string]huma.Format{"application/json": format, "json": format}
	c.Info.Description = "Limits how many video streams each user watches at once.\n\n" +
		"Start a stream before playback, send a heartbeat every `heartbeatSeconds`, and stop the stream at the end. " +
		"A stream without heartbeats expires after `ttlSeconds`, and its slot becomes free.\n\n" +
		"**Only 403 means \"too many streams\".** On 5xx, 429 or no response, a player continues playback and retries. " +
		"Every error is a problem (RFC 9457). Ignore unknown fields in responses; the service rejects unknown fields in " +
		"requests.\n\n" +
		"If the service requires credentials, send an API key or a viewer's token as `Authorization: Bearer ...`. Press " +
		"*Authorize* to try calls on this page. A single heartbeat or stop requires only the stream's id, unless the " +
		"operator configured it otherwise. On 403, check the title: only *Maximum number of streams reached* is the limit."
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{bearer: {
		Type: "http", Scheme: "bearer", Description: "An API key, or the token of a viewer from the identity provider.",
	}}
	c.Tags = []*huma.Tag{
		{Name: tagStreams, Description: "The playback of a user: start, heartbeat, stop. Players need no other calls."},
		{Name: tagRules, Description: "How many streams each user may have. A change applies to every later start."},
		{Name: tagData, Description: "What is stored about a user, for requests under data protection law. For operators."},
		{Name: tagNode, Description: "Statistics and events of this node and of all nodes, for operators."},
	}
	return c
}

// marshal escapes characters of HTML markup, because names come from clients.
func marshal(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

// An Operation describes an operation and how the Server treats its requests. The
// schemas come from the types of its handler.
type Operation struct {
	id          string
	tag         string
	traits      Traits
	summary     string
	description string
	problems    []problem.Type // besides those of every operation
	maxBody     int64          // default MaxBody
	request     any            // an example
	response    any            // an example
}

// Traits are how the Server treats the requests of an operation.
type Traits struct {
	Action     access.Action  // the permission that the caller needs; without it every call is forbidden
	Class      overload.Class // the concurrency limit that applies
	Timed      latency.Call   // the call whose durations the statistics have; zero for none
	ByStreamID bool           // whether a caller must know the ids of the streams
	Heartbeat  bool           // whether the request keeps streams alive and does nothing else
}

// The keys of the metadata of an operation.
const (
	traitsKey   = "traits"   // its Traits
	problemsKey = "problems" // the types of its problems
)

// TraitsOf returns the traits of an operation that [Operation.Huma] returned.
func TraitsOf(op *huma.Operation) Traits {
	t, _ := op.Metadata[traitsKey].(Traits)
	return t
}

// UserPath is the path of the calls about the streams of a user.
const UserPath = "/api/v1/streams/users/{user}"

// The maximum sizes of bodies.
const (
	MaxBody      = ingress.MaxSmallBody
	MaxBatchBody = 512 << 10
)

// commonProblems are the problems of every operation.
var commonProblems = []problem.Type{
	problem.Malformed, problem.Unauthorized, problem.BodyTooLarge, problem.Invalid, problem.Internal,
	problem.Unavailable, problem.Overloaded,
}

// Huma returns the description of the operation at method and path for huma.
func (d Operation) Huma(method, path string) huma.Operation {
	problems := slices.Concat(commonProblems, d.problems)
	op := huma.Operation{
		OperationID: d.id, Method: method, Path: path, Tags: []string{d.tag},
		Summary: d.summary, Description: d.description,
		MaxBodyBytes:    cmp.Or(d.maxBody, MaxBody) + 1,          // huma rejects a body of exactly this size
		BodyReadTimeout: -1,                                      // the body has arrived
		Security:        []map[string][]string{{bearer: {}}, {}}, // or none, if the service requires no credential
		Responses: map[string]*huma.Response{
			"200": {Content: map[string]*huma.MediaType{"application/json": {Example: d.response}}},
		},
	}
	if d.request != nil {
		problems = append(problems, problem.UnsupportedMediaType)
		op.RequestBody = &huma.RequestBody{
			Content: map[string]*huma.MediaType{"application/json": {Example: d.request}},
		}
	}
	for _, k := range problems {
		op.Errors = append(op.Errors, k.Status)
	}
	op.Metadata = map[string]any{traitsKey: d.traits, problemsKey: problems}
	return op
}

// AddProblems adds the table of problems to the document. huma itself generates only the
// status of an error.
func AddProblems(doc *huma.OpenAPI) {
	for _, item := range doc.Paths {
		for _, op := range []*huma.Operation{item.Get, item.Post, item.Put, item.Delete} {
			if op == nil {
				continue
			}
			for _, param := range op.Parameters {
				// No keyword of JSON Schema; huma's messages have it by now.
				param.Schema.PatternDescription = ""
			}
			for status, response := range op.Responses {
				if code, err := strconv.Atoi(status); err == nil && code >= http.StatusBadRequest {
					describeProblem(op, code, response)
				}
			}
			// The statuses of requests that never reach an operation.
			op.Responses["default"] = &huma.Response{
				Description: "Any other problem.",
				Content:     map[string]*huma.MediaType{problem.MediaType: {Schema: problemSchema()}},
			}
		}
	}
}

func problemSchema() *huma.Schema { return &huma.Schema{Ref: "#/components/schemas/Problem"} }

func describeProblem(op *huma.Operation, status int, response *huma.Response) {
	problems, _ := op.Metadata[problemsKey].([]problem.Type)
	examples, titles := map[string]*huma.Example{}, []string{}
	for _, k := range problem.Types() {
		if k.Status != status || !slices.Contains(problems, k) {
			continue
		}
		titles = append(titles, k.Title)
		examples[k.Name] = &huma.Example{Summary: k.Title, Value: exampleProblem(k)}
	}
	response.Description = strings.Join(titles, ", or: ") + "."
	response.Content[problem.MediaType].Examples = examples
	if status == problem.LimitReached.Status || status == problem.Unavailable.Status {
		response.Headers = map[string]*huma.Param{"Retry-After": {
			Description: "Whole seconds after which to try again.",
			Schema:      &huma.Schema{Type: huma.TypeString, Pattern: `^[0-9]+$`},
		}}
	}
}
