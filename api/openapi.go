package api

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
)

const (
	tagStreams = "Streams"
	tagNode    = "Node"

	bearer = "bearer" // names the way to say who calls
)

// humaConfig turns off what huma would serve by itself: its documentation page
// loads from another host, and its schema links add to every answer.
func (s *Server) humaConfig() huma.Config {
	c := huma.DefaultConfig("streamcount", cmp.Or(s.cfg.Node.Version, "dev"))
	c.OpenAPIPath, c.DocsPath, c.SchemasPath, c.CreateHooks = "", "", "", nil
	c.RejectUnknownQueryParameters = true
	format := huma.Format{Marshal: marshal, Unmarshal: json.Unmarshal}
	c.Formats = map[string]huma.Format{"application/json": format, "json": format}
	c.Info.Description = "Limits how many video streams each user watches at once.\n\n" +
		"Start a stream before playing, send a heartbeat every `heartbeatSeconds`, and stop it at the end. " +
		"A stream that goes silent gives its slot back after `ttlSeconds`.\n\n" +
		"**Only 403 means \"too many streams\".** On 5xx, 429 or no answer a player goes on playing and tries " +
		"again. Every refusal is a problem (RFC 9457). Ignore fields that you do not know in answers; fields " +
		"that this service does not know in requests are refused.\n\n" +
		"A service that asks who calls takes an API key or a viewer's token as `Authorization: Bearer ...`: press " +
		"*Authorize* to try calls here. One heartbeat or stop needs the stream's id and nothing else, unless the " +
		"operator wants it otherwise. On 403 look at the title: only *Maximum number of streams reached* is the limit."
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{bearer: {
		Type: "http", Scheme: "bearer", Description: "An API key, or a token of the identity provider for one viewer.",
	}}
	c.Tags = []*huma.Tag{
		{Name: tagStreams, Description: "One playback of a user: start, heartbeat, stop. Players need nothing else."},
		{Name: tagRules, Description: "Who may have how many streams. A change is in force for every start after it."},
		{Name: tagNode, Description: "What happens, on the node that answers and on all. For operators."},
	}
	return c
}

// marshal escapes what HTML could mistake for markup, since names come from
// clients.
func marshal(w io.Writer, v any) error { return json.NewEncoder(w).Encode(v) }

// An opDoc is what the document says about an operation, beyond its types.
type opDoc struct {
	id      string
	tag     string
	does    access.Action // who may call; without it nobody may
	summary string
	about   string
	errors  []int // with those that every operation has
	maxBody int64 // default maxBody
	body    any   // example of a request
	reply   any   // example of an answer
}

func (d opDoc) operation(method, path string) huma.Operation {
	op := huma.Operation{
		OperationID: d.id, Method: method, Path: path, Tags: []string{d.tag},
		Summary: d.summary, Description: d.about,
		Errors: append([]int{
			http.StatusBadRequest, http.StatusUnauthorized, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity,
			http.StatusServiceUnavailable,
		}, d.errors...),
		MaxBodyBytes:    cmp.Or(d.maxBody, maxBody) + 1, // huma counts a full body as too large
		BodyReadTimeout: -1,                             // the guard has read it
		Metadata:        map[string]any{doesKey: d.does},
		Security:        []map[string][]string{{bearer: {}}, {}}, // or nothing, where nobody is asked
		Responses: map[string]*huma.Response{
			"200": {Content: map[string]*huma.MediaType{"application/json": {Example: d.reply}}},
		},
	}
	if d.body != nil {
		op.Errors = append(op.Errors, http.StatusUnsupportedMediaType)
		op.RequestBody = &huma.RequestBody{
			Content: map[string]*huma.MediaType{"application/json": {Example: d.body}},
		}
	}
	return op
}

// describe completes the document from the table of problems: what huma
// generates for an error is its status alone.
func describe(doc *huma.OpenAPI) {
	for path, item := range doc.Paths {
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
					describeProblem(path, op, code, response)
				}
			}
			// The statuses of requests that never reach an operation.
			op.Responses["default"] = &huma.Response{
				Description: "Any other problem.",
				Content:     map[string]*huma.MediaType{problemType: {Schema: problemSchema()}},
			}
		}
	}
}

const problemType = "application/problem+json"

func problemSchema() *huma.Schema { return &huma.Schema{Ref: "#/components/schemas/Problem"} }

func describeProblem(path string, op *huma.Operation, status int, response *huma.Response) {
	examples, titles := map[string]*huma.Example{}, []string{}
	for _, k := range allKinds() {
		if k.status != status || !k.concerns(path, op) {
			continue
		}
		titles = append(titles, k.title)
		examples[k.name] = &huma.Example{Summary: k.title, Value: k.example()}
	}
	response.Description = strings.Join(titles, ", or: ") + "."
	response.Content[problemType].Examples = examples
	if status == limitReached.status || status == unavailable.status {
		response.Headers = map[string]*huma.Param{"Retry-After": {
			Description: "Whole seconds after which to try again.",
			Schema:      &huma.Schema{Type: huma.TypeString, Pattern: `^[0-9]+$`},
		}}
	}
}

// concerns narrows the kinds of a status down to those that an operation has.
func (k kind) concerns(path string, op *huma.Operation) bool {
	oneStream := strings.Contains(path, "{id}") || slices.Contains([]string{"start", "stop"}, op.OperationID)
	switch k.name {
	case notFound.name:
		return false
	case userNotFound.name:
		return path == base
	case foreign.name:
		return strings.Contains(path, "{user}")
	case nothingToStop.name:
		return op.OperationID == "stop"
	case streamNotFound.name:
		return oneStream
	default:
		return true
	}
}
