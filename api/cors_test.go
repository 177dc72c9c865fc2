package api

import (
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/internal/problem"
)

func TestCORS(t *testing.T) {
	s := newServer(t, Config{Ingress: IngressConfig{Origins: []string{"https://app.example", "http://localhost:8080"}}}, &fake{})
	for origin, allowed := range map[string]bool{
		"https://app.example": true, "http://localhost:8080": true,
		"": false, "null": false, "https://app.example.evil.com": false, "https://evil-app.example": false,
		"http://app.example": false, "https://app.example:444": false, "https://APP.example": false,
		"https://app.example/": false, "https://app.example,https://evil.example": false, "file://": false,
		"http://localhost": false, "*": false,
	} {
		want := ""
		if allowed {
			want = origin
		}
		preflight := call(s, "OPTIONS", u+"/start", "", "Origin", origin, "Access-Control-Request-Method", "POST",
			"Access-Control-Request-Headers", "authorization,content-type")
		assert.Equal(t, want, preflight.Header().Get("Access-Control-Allow-Origin"), origin)
		assert.Equal(t, map[bool]int{true: 204, false: 405}[allowed], preflight.Code, origin)
		if allowed {
			assert.Contains(t, preflight.Header().Get("Access-Control-Allow-Headers"), "Authorization")
			assert.Contains(t, preflight.Header().Get("Access-Control-Allow-Methods"), "PUT")
		}
		for _, w := range []*httptest.ResponseRecorder{
			call(s, "GET", u, "", "Origin", origin), call(s, "GET", "/nowhere", "", "Origin", origin),
		} {
			assert.Equal(t, want, w.Header().Get("Access-Control-Allow-Origin"), origin)
			assert.Contains(t, w.Header().Values("Vary"), "Origin")
			assert.Empty(t, w.Header().Get("Access-Control-Allow-Credentials"))
		}
	}
	w := call(newServer(t, Config{}, &fake{}), "GET", u, "", "Origin", "https://app.example")
	assert.Empty(t, w.Header().Get("Access-Control-Allow-Origin"), "no origin is allowed by default")
	for _, bad := range []string{"*", "https://*.example", "app.example", "https://app.example/", "https://a@app.example", "ftp://app.example", "https://App.example", ""} {
		_, err := New(Config{Ingress: IngressConfig{Origins: []string{bad}}})
		require.Error(t, err, bad)
	}
}

// Without credentials, a page of another origin cannot change anything.
func TestCrossSite(t *testing.T) {
	f := &fake{}
	open := newServer(t, Config{Ingress: IngressConfig{Origins: []string{"https://app.example"}}}, f)
	restricted := newServer(t, Config{Access: callers}, f)
	const evil = "https://evil.example"
	cross := []string{"Origin", evil, "Sec-Fetch-Site", "cross-site"}
	old := []string{"Origin", evil} // a browser without Sec-Fetch-Site
	tests := []struct {
		name, method, target, body string
		header                     []string
		status                     int
	}{
		{"start", "POST", u + "/start", "", cross, 403},
		{"startOfAnOldBrowser", "POST", u + "/start", "", old, 403},
		{"startFromASandbox", "POST", u + "/start", "", []string{"Origin", "null"}, 403},
		{"stopWithoutAnID", "POST", u + "/stop", "", cross, 403},
		{"remove", "DELETE", u, "", cross, 403},
		{"erase", "DELETE", "/api/v1/data/users/maya", "", cross, 403},
		{"limit", "PUT", "/api/v1/limits/users/maya", `{"limit":60}`, cross, 403},
		{"read", "GET", u, "", cross, 200}, // the page cannot read the answer
		{"beacon", "POST", u + "/streams/stream-1/stop", "", cross, 200},
		{"heartbeat", "POST", u + "/streams/stream-1/heartbeat", "", cross, 200},
		{"allowed", "POST", u + "/start", "", []string{"Origin", "https://app.example", "Sec-Fetch-Site", "cross-site"}, 200},
		{"ownPage", "POST", u + "/start", "", []string{"Origin", "http://example.com", "Sec-Fetch-Site", "same-origin"}, 200},
		{"noBrowser", "POST", u + "/start", "", nil, 200},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f.taken()
			w := call(open, tt.method, tt.target, tt.body, tt.header...)
			assert.Equal(t, tt.status, w.Code, w.Body)
			if tt.status == 403 {
				assert.Empty(t, f.taken())
				assert.NotContains(t, w.Body.String(), problem.LimitReached.Title)
			}
		})
	}
	assert.Equal(t, 200, call(restricted, "POST", u+"/start", "", append(cross, asHeader, "maya")...).Code,
		"a page with a token is authorized")
}

func TestHosts(t *testing.T) {
	local := IngressConfig{LocalHosts: true, Hosts: []string{"streams.example"}}
	named := IngressConfig{Hosts: []string{"streams.example"}}
	for host, want := range map[string][3]bool{ // any, local, named
		"localhost": {true, true, false}, "localhost:3000": {true, true, false}, "127.0.0.1:3000": {true, true, false},
		"[::1]:3000": {true, true, false}, "::1": {true, true, false}, "a.localhost": {true, true, false},
		"127.8.9.1": {true, true, false}, "LOCALHOST": {true, true, false}, "": {true, true, true},
		"streams.example": {true, true, true}, "Streams.Example:443": {true, true, true},
		"evil.example": {true, false, false}, "evil.example:3000": {true, false, false},
		"localhost.evil.example": {true, false, false}, "127.0.0.1.evil.example": {true, false, false},
		"10.0.0.1": {true, false, false}, "streams.example.evil.example": {true, false, false}, "x": {true, false, false},
	} {
		for i, e := range []IngressConfig{{}, local, named} {
			s := newServer(t, Config{Ingress: e}, &fake{})
			r := httptest.NewRequest("GET", u, nil)
			r.Host = host
			w := httptest.NewRecorder()
			s.Handler().ServeHTTP(w, r)
			assert.Equal(t, map[bool]int{true: 200, false: 421}[want[i]], w.Code, "%q by %d", host, i)
		}
	}
}
