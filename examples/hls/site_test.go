package main

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// visit serves a site whose streamcount answers every call with a status, and
// returns how a viewer gets an address of it.
func visit(t *testing.T, service http.HandlerFunc) func(path string) (int, string) {
	t.Helper()
	streamcount := httptest.NewServer(service)
	t.Cleanup(streamcount.Close)
	films := filepath.Join(t.TempDir(), "films")
	require.NoError(t, os.Mkdir(films, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(films, "film.m3u8"), []byte("#EXTM3U\n"), 0o644))
	require.NoError(t, os.WriteFile(filepath.Join(films, "..", "secret"), []byte("secret"), 0o644))
	site := httptest.NewServer(newSite(streamcount.URL, films, []byte(strings.Repeat("s", 32)+"\n")).handler())
	t.Cleanup(site.Close)

	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	viewer := &http.Client{Jar: jar}
	answer, err := viewer.PostForm(site.URL+"/login", url.Values{"name": {"maya"}})
	require.NoError(t, err)
	answer.Body.Close()
	return func(path string) (int, string) {
		answer, err := viewer.Get(site.URL + path)
		require.NoError(t, err)
		defer answer.Body.Close()
		body, err := io.ReadAll(answer.Body)
		require.NoError(t, err)
		return answer.StatusCode, string(body)
	}
}

// Only streamcount's own no closes the door; while it cannot tell, films go on.
func TestWatch(t *testing.T) {
	for status, want := range map[int]int{
		200: 200, 404: 403, 410: 403, 422: 403, 401: 403, 405: 403, 429: 200, 500: 200, 503: 200,
	} {
		asked := make(chan string, 1)
		get := visit(t, func(w http.ResponseWriter, r *http.Request) {
			asked <- r.Method + " " + r.URL.Path
			w.WriteHeader(status)
		})
		got, body := get("/watch/AQ-1/film.m3u8")
		assert.Equal(t, want, got, "when streamcount answers %d", status)
		assert.Equal(t, want == 200, body == "#EXTM3U\n", body)
		assert.Equal(t, "POST /api/v1/streams/users/maya/streams/AQ-1/heartbeat", <-asked)
	}
}

func TestWatch_NothingButFilms(t *testing.T) {
	get := visit(t, func(http.ResponseWriter, *http.Request) {})
	for _, path := range []string{"/watch/AQ-1/../secret", "/watch/AQ-1/..%2Fsecret", "/watch/AQ-1/%2e%2e/secret"} {
		status, body := get(path)
		assert.NotEqual(t, 200, status, path)
		assert.NotEqual(t, "secret", body, path)
	}
}

func TestViewer_Token(t *testing.T) {
	get := visit(t, func(http.ResponseWriter, *http.Request) {})
	status, body := get("/viewer")
	require.Equal(t, 200, status)
	_, token, _ := strings.Cut(body, `"token":"`)
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	claims, err := base64.RawURLEncoding.DecodeString(parts[1])
	require.NoError(t, err)
	assert.Contains(t, string(claims), `"sub":"maya"`)
	assert.NotContains(t, body, "sss", "the secret stays here")
}

// Who has not logged in gets no token and no film.
func TestStrangers(t *testing.T) {
	site := httptest.NewServer(newSite("http://127.0.0.1:1", t.TempDir(), nil).handler())
	defer site.Close()
	for _, path := range []string{"/viewer", "/watch/AQ-1/film.m3u8"} {
		answer, err := http.Get(site.URL + path)
		require.NoError(t, err)
		answer.Body.Close()
		assert.Equal(t, http.StatusUnauthorized, answer.StatusCode, path)
	}
}
