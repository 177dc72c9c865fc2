package api

import (
	"bufio"
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"streamcount/api/internal/problem"
)

// No request that net/http accepts makes a handler fail, and every error below /api is a
// problem.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		post(userBase+"/start", `{"session":"a"}`), post(userBase+"/stop",
			`{"streamId":"a"}`), bare("GET", userBase),
		post("/api/v1/streams/heartbeats", `{"heartbeats":[{"userId":"a","streamId":"b"}]}`), bare("GET", "/docs"),
		bare("DELETE", userBase+"/streams/a"), bare("GET", "/api/v1/stats"), bare("OPTIONS", "*"), bare("GET",
			"/problems/x"),
		bare("CONNECT", "a:1"), "PRI * HTTP/2.0\r\n\r\n", bare("GET", "/docs/swagger-ui.css",
			"Accept-Encoding: gzip"),
		startHead + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", bare("HEAD", "/"), bare("POST",
			"/%2e%2e//a"),
	} {
		f.Add([]byte(seed))
	}
	s := newServer(f, Config{}, &fake{count: 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			return // net/http rejects this
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		require.Less(t, w.Code, 500, "%s", w.Body)
		require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
		if w.Code >= 400 && strings.HasPrefix(r.URL.Path, "/api/") {
			require.Equal(t, problem.MediaType, w.Header().Get("Content-Type"))
		}
	})
}
