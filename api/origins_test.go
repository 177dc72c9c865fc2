package api

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestOrigins_PackagedApps(t *testing.T) {
	apps := []string{"capacitor://localhost", "ionic://localhost", "app://.", "app://bundle", "file://", "tauri://localhost", "tizen://abc",
		"chrome-extension://abcdefghijklmnopabcdefghijklmnop", "moz-extension://8a1e5a4f-0000-4000-8000-000000000000",
		"http://localhost", "http://tauri.localhost", "https://*.preview.example", "https://*.dev.example:8443", "http://[::1]:8080"}
	f := &fake{}
	s := newServer(t, Config{Ingress: IngressConfig{Origins: apps}}, f)
	for origin, allowed := range map[string]bool{
		"capacitor://localhost": true, "ionic://localhost": true, "app://.": true, "app://bundle": true, "file://": true,
		"chrome-extension://abcdefghijklmnopabcdefghijklmnop": true, "moz-extension://8a1e5a4f-0000-4000-8000-000000000000": true,
		"https://pr-7.preview.example": true, "https://a.b.preview.example": true, "https://a.dev.example:8443": true,
		"http://[::1]:8080": true,
		"null":              false, "capacitor://localhost.evil": false, "app://": false, "file:///": false, "ionic://evil": false,
		"https://preview.example": false, "https://.preview.example": false, "http://pr-7.preview.example": false,
		"https://evil.example/.preview.example": false, "https://evil.example#.preview.example": false,
		"https://evil@pr.preview.example": false, "https://pr-7.preview.example:444": false, "https://a.dev.example": false,
		"https://prpreview.example": false, "https://pr-7.preview.example.evil.example": false,
	} {
		want := ""
		if allowed {
			want = origin
		}
		w := call(s, "OPTIONS", u+"/start", "", "Origin", origin, "Access-Control-Request-Method", "POST")
		assert.Equal(t, want, w.Header().Get("Access-Control-Allow-Origin"), origin)
		w = call(s, "POST", u+"/start", "", "Origin", origin, "Sec-Fetch-Site", "cross-site")
		assert.Equal(t, map[bool]int{true: 200, false: 403}[allowed], w.Code, origin)
	}
	for bad, want := range map[string]string{
		"null": "cors-allow-null", "https://*.com": "other parties", "https://*.co.uk": "other parties", "https://*.github.io": "other parties",
		"https://a.*.example": "want an origin", "https://app.example:443": "port 443", "http://app.example:80": "port 80",
		"https://": "want an origin", "app:": "want an origin", "app://": "want an origin", "app://x/y": "want an origin",
		"app://x?y": "want an origin", "javascript://x": "want an origin", "APP://x": "want an origin", "app://u@x": "want an origin",
		"blob://x": "want an origin", "app://*": "want an origin", "https://a b.example": "want an origin", "https://a.example:": "want an origin",
		"https://bücher.example": "xn--", "https://app.example:0443": "want an origin", "https://app.example:99999": "want an origin",
		"https://app.example:0": "want an origin", "http://[0:0::1]:8080": "want an origin", "https://.app.example": "want an origin",
		"https://a..example": "want an origin", "https://A.example": "want an origin", "https://u@a.example": "want an origin",
		"https://a.example/": "want an origin", "https://a.example?x": "want an origin", "https://*.1.2.3.4": "other parties",
		"https://a%2eexample": "want an origin", "https://*.*.example": "want an origin",
	} {
		require.ErrorContains(t, CheckOrigin(bad), want, bad)
	}
	for _, good := range []string{"http://*.localhost:8080", "https://a_b.example", "http://10.0.0.7:65535", "https://*.app.co.uk"} {
		require.NoError(t, CheckOrigin(good), good)
	}
}

func TestOrigins_Null(t *testing.T) {
	s := newServer(t, Config{Ingress: IngressConfig{NullOrigin: true}}, &fake{})
	w := call(s, "POST", u+"/start", "", "Origin", "null", "Sec-Fetch-Site", "cross-site")
	assert.Equal(t, 200, w.Code)
	assert.Equal(t, "null", w.Header().Get("Access-Control-Allow-Origin"))
	w = call(s, "POST", u+"/start", "", "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")
	assert.Equal(t, 403, w.Code)
	assert.Empty(t, w.Header().Get("Access-Control-Allow-Origin"))
}

// notAllowed sends a preflight and returns the headers that are not allowed.
func notAllowed(s *Server, names string) (missing []string) {
	w := call(s, "OPTIONS", u+"/start", "", "Origin", "https://app.example", "Access-Control-Request-Method", "POST",
		"Access-Control-Request-Headers", names)
	allowed := "," + strings.ReplaceAll(strings.ToLower(w.Header().Get("Access-Control-Allow-Headers")), " ", "") + ","
	for name := range strings.SplitSeq(names, ",") {
		if !strings.Contains(allowed, ","+strings.TrimSpace(strings.ToLower(name))+",") {
			missing = append(missing, name)
		}
	}
	return missing
}

// A page may send the headers that monitoring and tracing tools add.
func TestCORS_TracingHeaders(t *testing.T) {
	edge := IngressConfig{Origins: []string{"https://app.example"}}
	s := newServer(t, Config{Ingress: edge}, &fake{})
	assert.Empty(t, notAllowed(s, "authorization,content-type,last-event-id,traceparent,tracestate,baggage,sentry-trace,"+
		"x-datadog-trace-id,x-datadog-parent-id,x-datadog-origin,x-datadog-sampling-priority,x-datadog-anything,b3,x-b3-traceid,"+
		"x-b3-spanid,x-b3-parentspanid,x-b3-sampled,x-b3-flags,uber-trace-id,uberctx-user,x-amzn-trace-id,newrelic,x-newrelic-id,"+
		"elastic-apm-traceparent,x-cloud-trace-context,x-requested-with,request-id,request-context,x-instana-t,x-dtpc,x-dynatrace,"+
		"sw8,sw8-correlation,adrum,x-honeycomb-trace,x-posthog-session-id,x-faro-session-id,ot-tracer-traceid,x-request-id,cache-control"))
	assert.NotEmpty(t, notAllowed(s, "x-app-version"))
	for _, name := range []string{"x-forwarded-for", "x-user", "x-http-method-override", "forwarded", "x-original-url"} {
		assert.NotEmpty(t, notAllowed(s, name), name)
	}
	edge.CORSHeaders = []string{"X-App-Version", "x-tenant"}
	assert.Empty(t, notAllowed(newServer(t, Config{Ingress: edge}, &fake{}), "x-app-version, X-Tenant,traceparent"))
	edge.CORSHeaders = []string{"*"}
	s = newServer(t, Config{Ingress: edge}, &fake{})
	assert.Empty(t, notAllowed(s, "x-anything,x-else"))
	w := call(s, "OPTIONS", u+"/start", "", "Origin", "https://app.example", "Access-Control-Request-Method", "POST",
		"Access-Control-Request-Headers", "good, bad name, x\r\ny,"+strings.Repeat("x-many,", 1000))
	assert.NotContains(t, w.Header().Get("Access-Control-Allow-Headers"), "bad")
	assert.Less(t, len(w.Header().Get("Access-Control-Allow-Headers")), 4<<10)
	for _, bad := range []string{"x y", "x:y", "", "x-*", "ü"} {
		edge.CORSHeaders = []string{bad}
		_, err := New(Config{Ingress: edge})
		require.Error(t, err, bad)
	}
}

// A page can read every error response.
func TestCORS_Errors(t *testing.T) {
	const app = "https://app.example"
	edge := IngressConfig{Origins: []string{app}, Hosts: []string{"example.com"}}
	s := newServer(t, Config{Ingress: edge, Access: callers, RatePerUser: 1}, &fake{})
	setLoad(s)
	long := "/" + strings.Repeat("x", 3000)
	seen := map[int]bool{}
	check := func(s *Server, method, target, body string, header ...string) {
		w := call(s, method, target, body, append(header, "Origin", app)...)
		seen[w.Code] = true
		assert.Equal(t, app, w.Header().Get("Access-Control-Allow-Origin"), "%s %.40s: %d", method, target, w.Code)
		assert.Contains(t, w.Header().Get("Access-Control-Expose-Headers"), "Retry-After")
	}
	check(s, "POST", u+"/start", "") // 401
	check(s, "POST", u+"/start", "", asHeader, "reader")
	check(s, "GET", long, "")
	check(s, "GET", "/nowhere", "")
	check(s, "GET", "/a//b", "")
	check(s, "PUT", u, "", asHeader, "maya")
	check(s, "POST", u+"/start", "{", asHeader, "maya", "Content-Type", "application/json")
	check(s, "POST", u+"/start", `{"x":1}`, asHeader, "maya", "Content-Type", "text/plain")
	check(s, "POST", u+"/start", `{"onLimit":1}`, asHeader, "maya", "Content-Type", "application/json")
	check(s, "POST", u+"/start", strings.Repeat(" ", 20<<10), asHeader, "maya", "Content-Type", "application/json")
	for range 30 {
		check(s, "POST", u+"/start", "", asHeader, "maya")
	}
	elsewhere := edge
	elsewhere.Hosts = []string{"streams.example"}
	check(newServer(t, Config{Ingress: elsewhere}, &fake{}), "GET", u, "")
	idle, err := New(Config{Ingress: edge})
	require.NoError(t, err)
	check(idle, "POST", u+"/start", "")
	for _, status := range []int{400, 401, 403, 404, 405, 413, 414, 415, 421, 422, 429, 503} {
		assert.True(t, seen[status], status)
	}
	w := call(s, "OPTIONS", u, "", "Origin", app, "Access-Control-Request-Method", "DELETE", "Access-Control-Request-Private-Network", "true")
	assert.Equal(t, 204, w.Code)
	assert.Equal(t, "true", w.Header().Get("Access-Control-Allow-Private-Network"))
	assert.Contains(t, w.Header().Get("Access-Control-Allow-Methods"), "DELETE")
	assert.NotEmpty(t, w.Header().Get("Access-Control-Max-Age"))
	w = call(s, "OPTIONS", u, "", "Origin", app, "Access-Control-Request-Method", "DELETE")
	assert.Empty(t, w.Header().Get("Access-Control-Allow-Private-Network"))
}
