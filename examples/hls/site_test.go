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
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// visit serves a site whose streamcount is service, and logs a viewer in. It returns a
// function that gets a path of the site.
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

// A film stops only if streamcount answers that the stream is not alive. During an outage films continue.
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

func TestWatch_ServesOnlyFilms(t *testing.T) {
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
	assert.NotContains(t, body, "sss", "the answer does not contain the secret")
}

// A client that has not logged in gets no token and no film.
func TestWithoutLogin(t *testing.T) {
	site := httptest.NewServer(newSite("http://127.0.0.1:1", t.TempDir(), nil).handler())
	defer site.Close()
	for _, path := range []string{"/viewer", "/watch/AQ-1/film.m3u8"} {
		answer, err := http.Get(site.URL + path)
		require.NoError(t, err)
		answer.Body.Close()
		assert.Equal(t, http.StatusUnauthorized, answer.StatusCode, path)
	}
}

// The cookie is Secure except on loopback addresses.
func TestCookie(t *testing.T) {
	for address, secure := range map[string]bool{
		"http://127.0.0.1:8080": false, "http://localhost:8080": false, "http://[::1]:8080": false, "http://films.example": true,
		"http://localhost.example": true, "http://10.0.0.1": true, "https://127.0.0.1": true,
	} {
		w := httptest.NewRecorder()
		newSite("", "", nil).handler().ServeHTTP(w, httptest.NewRequest("POST", address+"/login?name=maya", nil))
		require.Len(t, w.Result().Cookies(), 1, address)
		cookie := w.Result().Cookies()[0]
		assert.Equal(t, secure, cookie.Secure, address)
		assert.True(t, cookie.HttpOnly)
		assert.Equal(t, http.SameSiteStrictMode, cookie.SameSite)
		assert.Equal(t, int(sessionLife.Seconds()), cookie.MaxAge)
	}
}

func TestSessions_End(t *testing.T) {
	var s sessions
	now := time.Now()
	first, ok := s.add("maya", now)
	require.True(t, ok)
	_, ok = s.user(first, now.Add(sessionLife-time.Second))
	assert.True(t, ok)
	_, ok = s.user(first, now.Add(sessionLife))
	assert.False(t, ok, "after its life")
	for range maxSessions - 1 {
		_, ok = s.add("tom", now)
		require.True(t, ok)
	}
	_, ok = s.add("tom", now)
	assert.False(t, ok, "the number of sessions is limited")
	_, ok = s.add("tom", now.Add(sessionLife))
	assert.True(t, ok, "sessions that ended do not count")
	assert.Len(t, s.users, 1)
}

// Invalid names and requests from other sites do not log a browser in, and a logout ends the session.
func TestLogin_Refuses(t *testing.T) {
	handler := newSite("", "", nil).handler()
	call := func(path, body string, header ...string) *httptest.ResponseRecorder {
		r := httptest.NewRequest("POST", path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set(header[0], header[1])
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w
	}
	for _, body := range []string{"", "name=", "name=..", "name=%FF", "name=" + strings.Repeat("x", 129), "name=" + strings.Repeat("x", maxBody)} {
		assert.Equal(t, http.StatusBadRequest, call("/login", body, "Accept", "*/*").Code, "%.20q", body)
	}
	assert.Equal(t, http.StatusForbidden, call("/login", "name=maya", "Sec-Fetch-Site", "cross-site").Code)
	cookie := call("/login", "name=maya", "Accept", "*/*").Result().Cookies()[0]
	viewer := func() int {
		r := httptest.NewRequest("GET", "/viewer", nil)
		r.AddCookie(cookie)
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		return w.Code
	}
	assert.Equal(t, http.StatusOK, viewer())
	assert.Equal(t, http.StatusSeeOther, call("/logout", "", "Cookie", "session="+cookie.Value).Code)
	assert.Equal(t, http.StatusUnauthorized, viewer())
}

func TestServer_TimesOut(t *testing.T) {
	s := newServer(nil)
	for _, d := range []time.Duration{s.ReadHeaderTimeout, s.ReadTimeout, s.WriteTimeout, s.IdleTimeout} {
		assert.Positive(t, d)
	}
}
