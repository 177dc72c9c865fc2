package api

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/internal/problem"
)

func TestPages(t *testing.T) {
	page := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'")
		_, _ = w.Write([]byte("page " + r.URL.Path))
	})
	s := newServer(t, Config{Pages: map[string]http.Handler{"/": page, "/demo": page, "/demo/film.js": page}}, nil)
	for _, path := range []string{"/", "/demo", "/demo/film.js"} {
		w := call(s, "GET", path, "")
		assert.Equal(t, 200, w.Code)
		assert.Equal(t, "page "+path, w.Body.String())
		assert.Equal(t, "default-src 'self'", w.Header().Get("Content-Security-Policy"))
		assert.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
		assert.Equal(t, 200, call(s, "HEAD", path, "").Code)
		assert.Equal(t, 405, call(s, "POST", path, "").Code)
	}
	for _, path := range []string{"/demo/", "/demo/other.js", "/filmXjs", "/demo/filmXjs"} {
		assert.Equal(t, 404, call(s, "GET", path, "").Code, path)
	}
}

// The path of a page must not be one of the API.
func TestPages_Refused(t *testing.T) {
	for _, path := range []string{
		"", "demo", "/demo/", "//", "/{user}", "/a/../b", "/docs", "/healthz", "/favicon.ico", "/docs/x.js",
		"/api/v1/stats", "/api/v1/streams/users/maya", "/problems/x",
	} {
		_, err := New(Config{Pages: map[string]http.Handler{path: http.NotFoundHandler()}})
		require.ErrorContains(t, err, "not a plain path, or one that is in use", path)
	}
}

// Each type of problem has a page, and a unique name and title.
func TestProblems_Pages(t *testing.T) {
	s := newServer(t, Config{}, nil)
	seen := map[string]bool{}
	for _, k := range problem.Types() {
		assert.False(t, seen[k.Name] || seen[k.Title], k.Name)
		seen[k.Name], seen[k.Title] = true, true
		w := call(s, "GET", k.New("").Type, "")
		require.Equal(t, 200, w.Code, k.Name)
		assert.Contains(t, w.Body.String(), k.Title)
		assert.Contains(t, w.Body.String(), fmt.Sprint(k.Status))
	}
}
