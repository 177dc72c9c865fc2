package api

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"streamcount/lease"
)

// The short way of a hot call answers exactly as the operation itself, which a
// body brings about: these calls ignore theirs.
func TestHot(t *testing.T) {
	base := "/api/v1/streams/users/maya/streams/"
	calls := map[string][3]string{ // method, target, and a body that means the same as none
		"start":     {"POST", "/api/v1/streams/users/maya/start", "{}"},
		"heartbeat": {"POST", base + exampleID + "/heartbeat", "x"},
		"stop":      {"DELETE", base + exampleID, "x"},
		"beacon":    {"POST", base + exampleID + "/stop", "x"},
		"badID":     {"POST", base + "a%20b/heartbeat", "x"},
		"longID":    {"POST", base + strings.Repeat("x", 65) + "/heartbeat", "x"},
		"badUser":   {"POST", "/api/v1/streams/users/a%20b/streams/" + exampleID + "/heartbeat", "x"},
		"query":     {"POST", base + exampleID + "/heartbeat?x=1", "x"},
	}
	answers := map[string]error{
		"ok": nil, "ended": &lease.EndedError{Reason: lease.ReasonEvicted, By: &lease.By{Device: lease.Device{Name: "<TV>"}}},
		"foreign": lease.ErrForeignID, "malformed": lease.ErrBadID, "away": lease.ErrUnavailable, "full": &lease.LimitError{Limit: 3, RetryAfter: time.Minute},
		"bug": errors.New("a bug"),
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
				short, asked := ask(""), f.taken()
				long := ask(target[2])
				assert.Equal(t, asked, f.taken(), "what the limiter was asked")
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
