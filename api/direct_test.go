package api

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"streamcount/api/internal/openapi"
	"streamcount/lease"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// The answer to a direct call is that of its table, with a body that means the same as none
// and without one.
func TestDirect_AnswersWithAndWithoutABody(t *testing.T) {
	base := "/api/v1/streams/users/maya/streams/"
	calls := map[string][3]string{ // method, target, and a body that means the same as none
		"start":     {"POST", "/api/v1/streams/users/maya/start", "{}"},
		"heartbeat": {"POST", base + openapi.ExampleID + "/heartbeat", "x"},
		"stop":      {"DELETE", base + openapi.ExampleID, "x"},
		"beacon":    {"POST", base + openapi.ExampleID + "/stop", "x"},
		"badID":     {"POST", base + "a%20b/heartbeat", "x"},
		"longID":    {"POST", base + strings.Repeat("x", 65) + "/heartbeat", "x"},
		"badUser":   {"POST", "/api/v1/streams/users/a%09b/streams/" + openapi.ExampleID + "/heartbeat", "x"},
		"query":     {"POST", base + openapi.ExampleID + "/heartbeat?x=1", "x"},
	}
	answers := map[string]error{
		"ok": nil, "ended": &lease.EndedError{Reason: policy.ReasonEvicted, By: &lease.Replacement{Device: lease.Device{Name: "<TV>"}}},
		"foreign": streamid.ErrForeign, "malformed": streamid.ErrMalformed, "away": lease.ErrUnavailable, "full": &lease.LimitError{Limit: 3, RetryAfter: time.Minute},
		"bug": errors.New("a bug"),
	}
	statuses := map[string]int{
		"ok": 200, "ended": 410, "foreign": 404, "malformed": 422, "away": 503, "full": 403, "bug": 500,
	}
	for call, target := range calls {
		for answer, err := range answers {
			t.Run(call+"/"+answer, func(t *testing.T) {
				f := &fake{err: err, count: 1}
				h := newServer(t, Config{}, f).Handler()
				ask := func(body string) *httptest.ResponseRecorder {
					r := httptest.NewRequest(target[0], target[1], strings.NewReader(body))
					r.Header.Set("Content-Type", "application/json")
					w := httptest.NewRecorder()
					h.ServeHTTP(w, r)
					return w
				}
				short, calls := ask(""), f.taken()
				long := ask(target[2])
				if slices.Contains([]string{"badID", "longID", "badUser", "query"}, call) {
					assert.Equal(t, http.StatusUnprocessableEntity, short.Code)
					assert.Empty(t, calls, "calls of the limiter")
				} else {
					assert.Equal(t, statuses[answer], short.Code)
					assert.Len(t, calls, 1, "calls of the limiter")
				}
				assert.Equal(t, calls, f.taken(), "calls of the limiter")
				assert.Equal(t, long.Code, short.Code)
				assert.Equal(t, long.Body.String(), short.Body.String())
				for _, w := range []http.Header{long.Header(), short.Header()} {
					if w.Get("Retry-After") != "" {
						w.Set("Retry-After", "soon") // it is random
					}
				}
				assert.Equal(t, long.Header(), short.Header())
			})
		}
	}
}
