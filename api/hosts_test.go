package api

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func getAs(t *testing.T, c Config, target, host string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	return callHost(newServer(t, c, &fake{}), target, host, header...)
}

// callHost gets target from s with that Host.
func callHost(s *Server, target, host string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.Host = host
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

// Without credentials, a node that other machines reach rejects other host names, as of a
// page that resolves to the node. It accepts IP addresses and the names of the machine.
func TestHosts_IPHosts(t *testing.T) {
	open := Config{Ingress: IngressConfig{IPHosts: true, Hosts: []string{"node-7", "node-7.local"}}}
	for host, want := range map[string]int{
		"10.1.2.3:3000": 200, "[fd00::5]:3000": 200, "127.0.0.1": 200, "localhost:3000": 200, "a.localhost": 200, "NODE-7:3000": 200,
		"node-7.local": 200, "evil.example": 421, "10.1.2.3.evil.example": 421, "node-7.evil.example": 421,
		"streamcount.default.svc.cluster.local": 421, "streamcount": 421, "localhost.evil.example": 421,
	} {
		w := getAs(t, open, u, host)
		assert.Equal(t, want, w.Code, host)
		if want == 421 {
			assert.Contains(t, w.Body.String(), "--hosts")
		}
	}
}

// Health is served for every host: a kubelet and Prometheus use the address of a pod.
func TestHosts_HealthForEveryHost(t *testing.T) {
	named := Config{Ingress: IngressConfig{Hosts: []string{"streams.example"}}}
	withKeys := named
	withKeys.Access = callers
	local := Config{Ingress: IngressConfig{LocalHosts: true, NoProxies: true}}
	for _, host := range []string{"10.1.2.3:3000", "[fd00::5]:3000", "fd00::5", "streams.example.", "STREAMS.example:80", "any.example"} {
		for _, c := range []Config{named, withKeys, local} {
			for _, path := range []string{"/healthz", "/readyz"} {
				assert.NotEqual(t, 421, getAs(t, c, path, host, "X-Forwarded-For", "1.2.3.4").Code, "%s of %s", path, host)
			}
		}
		assert.Equal(t, 401, getAs(t, withKeys, metricsPath, host).Code, "a credential protects it")
		assert.Equal(t, 200, getAs(t, withKeys, metricsPath, host, asHeader, "reader").Code)
	}
	assert.Equal(t, 200, getAs(t, named, metricsPath, "10.1.2.3:3000").Code)
	assert.Equal(t, 200, getAs(t, named, metricsPath, "[fd00::5]:3000").Code)
	assert.Equal(t, 421, getAs(t, named, metricsPath, "evil.example").Code, "a page could read it")
	assert.Equal(t, 421, getAs(t, named, u, "10.1.2.3:3000").Code)
}

// A node without credentials on loopback rejects requests that came through a proxy.
func TestHosts_NoProxies(t *testing.T) {
	local := Config{Ingress: IngressConfig{LocalHosts: true, NoProxies: true}}
	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "x-forwarded-anything", "Forwarded", "Via",
		"X-Real-IP", "CF-Connecting-IP", "True-Client-IP", "Client-IP", "CF-Ray", "CDN-Loop", "X-Envoy-Expected-Rq-Timeout-Ms",
		"X-Original-URI", "X-Scheme", "X-ARR-LOG-ID", "X-Azure-ClientIP", "Fly-Client-IP", "X-ProxyUser-Ip", "X-Varnish",
		"Tailscale-User-Login"} {
		w := getAs(t, local, u, "localhost:3000", name, "x")
		assert.Equal(t, 421, w.Code, name)
		assert.Contains(t, w.Body.String(), "auth-none")
		assert.Equal(t, 200, getAs(t, Config{Ingress: IngressConfig{LocalHosts: true}}, u, "localhost:3000", name, "x").Code, name)
	}
	assert.Equal(t, 200, getAs(t, local, u, "localhost:3000", "X-Request-ID", "x", "traceparent", "x").Code)
}

func TestDocs_Off(t *testing.T) {
	for _, path := range []string{"/docs", "/docs/swagger-ui.css", "/openapi.json", "/openapi-3.0.json", "/"} {
		w := getAs(t, Config{NoDocs: true}, path, "")
		assert.Equal(t, 404, w.Code, path)
	}
	w := getAs(t, Config{}, "/docs", "")
	assert.Equal(t, 200, w.Code)
	assert.Equal(t, "same-origin", w.Header().Get("Cross-Origin-Resource-Policy"))
}

func TestHSTS(t *testing.T) {
	const name = "Strict-Transport-Security"
	for _, on := range []bool{true, false} {
		for _, scheme := range []string{"https://", "http://"} {
			w := getAs(t, Config{Ingress: IngressConfig{HSTS: on}}, scheme+"streams.example/healthz", "streams.example")
			assert.Equal(t, on && strings.HasPrefix(scheme, "https"), w.Header().Get(name) != "", scheme)
		}
	}
}

// The header is not set on pages over plain HTTP, where browsers warn about it.
func TestPages_Isolated(t *testing.T) {
	c := Config{Pages: map[string]http.Handler{"/page": http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}}
	for _, path := range []string{"/page", "/docs"} {
		for target, want := range map[string]string{
			"https://streams.example": "same-origin", "http://localhost:3000": "same-origin", "http://127.0.0.1": "same-origin",
			"http://[::1]:3000": "same-origin", "http://streams.example": "", "http://10.0.0.7": "",
		} {
			w := getAs(t, c, target+path, target[strings.Index(target, "//")+2:])
			assert.Equal(t, want, w.Header().Get("Cross-Origin-Opener-Policy"), target+path)
		}
		w := getAs(t, c, path, "streams.example", "X-Forwarded-Proto", "https")
		assert.Equal(t, "same-origin", w.Header().Get("Cross-Origin-Opener-Policy"))
	}
}
