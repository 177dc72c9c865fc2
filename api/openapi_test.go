package api

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/gorilla/mux"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/api/internal/problem"
)

func loadDocument(t *testing.T, path string) *openapi3.T {
	t.Helper()
	w := call(newServer(t, Config{}, &fake{}), "GET", path, "")
	require.Equal(t, http.StatusOK, w.Code)
	require.Equal(t, "application/json", w.Header().Get("Content-Type"))
	doc, err := openapi3.NewLoader().LoadFromData(w.Body.Bytes())
	require.NoError(t, err)
	require.NoError(t, doc.Validate(t.Context()))
	return doc
}

func TestOpenAPI_Documents(t *testing.T) {
	for path, version := range map[string]string{"/openapi.json": "3.1.0", "/openapi-3.0.json": "3.0.3"} {
		doc := loadDocument(t, path)
		assert.Equal(t, version, doc.OpenAPI)
		assert.Equal(t, "streamcount", doc.Info.Title)
		assert.Equal(t, "1.2.3", doc.Info.Version)
		for _, item := range doc.Paths.Map() {
			for method, op := range item.Operations() {
				assert.NotEmpty(t, op.Summary, "%s", method)
				assert.NotEmpty(t, op.Description, op.OperationID)
				assert.Len(t, op.Tags, 1, op.OperationID)
				checkResponses(t, op)
			}
		}
	}
}

// checkResponses wants an example of every answer, and Problem for every error.
func checkResponses(t *testing.T, op *openapi3.Operation) {
	t.Helper()
	for status, response := range op.Responses.Map() {
		if status == "200" {
			media := "application/json"
			if op.OperationID == "events" {
				media = "text/event-stream"
			}
			assert.NotNil(t, response.Value.Content.Get(media).Example, op.OperationID)
			continue
		}
		media := response.Value.Content.Get(problem.MediaType)
		if !assert.NotNil(t, media, "%s %s", op.OperationID, status) {
			continue
		}
		assert.Equal(t, "#/components/schemas/Problem", media.Schema.Ref)
		if status != "default" {
			assert.NotEmpty(t, media.Examples, "%s %s", op.OperationID, status)
		}
		retry := response.Value.Headers["Retry-After"]
		assert.Equal(t, status == "403" || status == "503", retry != nil, "%s %s", op.OperationID, status)
	}
}

func TestOpenAPI_UserRule(t *testing.T) {
	doc := loadDocument(t, "/openapi.json")
	for path, item := range doc.Paths.Map() {
		if !strings.Contains(path, "{user}") {
			continue
		}
		for _, op := range item.Operations() {
			param := op.Parameters.GetByInAndName("path", "user")
			require.NotNil(t, param, path)
			assert.Equal(t, apitype.UserPattern, param.Schema.Value.Pattern, path)
		}
	}
}

// Every route under /api is in the document, and nothing else is.
func TestOpenAPI_IsTheRoutes(t *testing.T) {
	var documented, routed []string
	for path, item := range loadDocument(t, "/openapi.json").Paths.Map() {
		for method := range item.Operations() {
			documented = append(documented, method+" "+path)
		}
	}
	s := newServer(t, Config{}, &fake{})
	require.NoError(t, s.router.Walk(func(r *mux.Route, _ *mux.Router, _ []*mux.Route) error {
		path, err := r.GetPathTemplate()
		require.NoError(t, err)
		methods, err := r.GetMethods()
		require.NoError(t, err)
		for _, method := range methods {
			if strings.HasPrefix(path, "/api/") {
				routed = append(routed, method+" "+path)
			}
		}
		return nil
	}))
	slices.Sort(documented)
	slices.Sort(routed)
	assert.Equal(t, routed, documented)
	assert.Len(t, routed, 28)
}

// A contract holds answers to both forms of the document.
type contract []routers.Router

func loadContract(t *testing.T) contract {
	t.Helper()
	loaded.Do(func() { loaded.contract = readContract(t) })
	return loaded.contract
}

// loaded is read once: to check the documents takes seconds.
var loaded struct {
	sync.Once
	contract
}

func readContract(t *testing.T) contract {
	t.Helper()
	var c contract
	for _, path := range []string{"/openapi.json", "/openapi-3.0.json"} {
		router, err := gorillamux.NewRouter(loadDocument(t, path))
		require.NoError(t, err)
		c = append(c, router)
	}
	return c
}

func (c contract) check(t *testing.T, e *exchange, w *httptest.ResponseRecorder) {
	t.Helper()
	for _, router := range c {
		r := httptest.NewRequest(e.method, e.target, strings.NewReader(e.body))
		route, params, err := router.FindRoute(r)
		if err != nil {
			continue // not an operation
		}
		in := &openapi3filter.ResponseValidationInput{
			RequestValidationInput: &openapi3filter.RequestValidationInput{Request: r, PathParams: params, Route: route},
			Status:                 w.Code, Header: w.Header(),
			Body:    io.NopCloser(bytes.NewReader(w.Body.Bytes())),
			Options: &openapi3filter.Options{IncludeResponseStatus: true},
		}
		assert.NoError(t, openapi3filter.ValidateResponse(t.Context(), in), "%s: %s", e.about, w.Body)
	}
}
