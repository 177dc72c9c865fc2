package edge

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/access"
	"streamcount/internal/testing/testlog"
	"streamcount/metrics"
)

// raw sends a target as it is written, which http.Client does not.
func (n node) raw(t *testing.T, method, target string, headers ...string) reply {
	t.Helper()
	u, err := url.Parse(n.url)
	require.NoError(t, err)
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", u.Host)
	require.NoError(t, err)
	defer func() { assert.NoError(t, conn.Close()) }()
	require.NoError(t, conn.SetDeadline(time.Now().Add(soon)))
	text := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: edge\r\n%s\r\n", method, target, strings.Join(append(headers, ""), "\r\n"))
	_, err = conn.Write([]byte(text))
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return reply{Response: resp}
}

// Below uri/ a target may contain anything, and reaches no other route.
func TestRoutes(t *testing.T) {
	t.Parallel()
	n, l := startNode(t)
	const user = "X-User: maya"
	require.Equal(t, 200, n.raw(t, "GET", "/edge/v1/request/uri/vod/film/0.ts?sid=a", user).StatusCode)
	for target, want := range map[string]struct {
		status int
		reason string
	}{
		"/edge/healthz": {200, ""},
		"/edge/v1/request/uri/vod/film/1.ts?sid=a":            {200, ""},
		"/edge/v1/request/uri//vod//film/1.ts?sid=a":          {200, ""},
		"/edge/v1/request/uri/x/../vod/film/1.ts?sid=a":       {200, ""},
		"/edge/v1/request/uri/%76od/film/1.ts?sid=a":          {200, ""},
		"/edge/v1/request/uri/vod/film/1.ts?sid=b":            {403, "limit"},
		"/edge/v1/request/uri/../../../../edge/healthz":       {403, "uri"},
		"/edge/v1/request/uri/../leave?sid=a":                 {403, "uri"},
		"/edge/v1/request/uri/../../vod/check":                {403, "uri"},
		"/edge/v1/request/uri/%2e%2e/explain":                 {403, "uri"},
		"/edge/v1/request/uri/vod/a%2fb/1.ts?sid=a":           {403, "uri"},
		"/edge/v1/request/uri/":                               {403, "uri"},
		"/edge/v1/request/check":                              {403, "uri"},
		"/edge/v1/vod/uri/vod/film/1.ts":                      {403, "uri"},
		"/edge/v1/vod/check":                                  {403, "uri"}, // no original URI
		"/edge/v1/nothing/check":                              {404, ""},
		"/edge/v1/vod/nothing":                                {404, ""},
		"/edge/v1/vod/check/":                                 {404, ""},
		"/edge/v1/vod":                                        {404, ""},
		"/edge/v1/../v1/vod/check":                            {404, ""},
		"/edge/v1//check":                                     {404, ""},
		"/api/v1/stats":                                       {404, ""},
		"http://edge/edge/v1/request/uri/vod/film/1.ts?sid=a": {200, ""},
		"http://edge?/edge/v1/request/uri/vod/film/1.ts":      {404, ""},
		"/edge/v1/vod/leave":                                  {405, ""},
		"/edge/v1/vod/explain":                                {405, ""},
		"/edge/v1/vod/check?" + strings.Repeat("x", 17<<10):   {414, ""},
	} {
		got := n.raw(t, "GET", target, user)
		assert.Equal(t, want.status, got.StatusCode, "%.60s", target)
		assert.Equal(t, want.reason, got.reason(), "%.60s", target)
	}
	assert.Len(t, streams(t, l, "maya"), 1)

	film := "X-Original-URI: /vod/film/1.ts?sid=a"
	for name, tt := range map[string]struct {
		method, target string
		headers        []string
		status         int
		reason         string
	}{
		"the query of the check":     {"GET", "/edge/v1/vod/check?sid=b&x=%zz", []string{user, film}, 200, ""},
		"a body":                     {"POST", "/edge/v1/vod/check", []string{user, film, "Content-Length: 3"}, 200, ""},
		"any method":                 {"PROPFIND", "/edge/v1/vod/check", []string{user, film}, 200, ""},
		"two targets":                {"GET", "/edge/v1/vod/check", []string{user, film, film}, 403, "uri"},
		"the other pair":             {"GET", "/edge/v1/forwarded/check", []string{user, film}, 403, "uri"},
		"its own pair":               {"GET", "/edge/v1/forwarded/check", []string{user, "X-Forwarded-Uri: /vod/film/1.ts?sid=a", "X-Original-URI: /other"}, 200, ""},
		"a long target":              {"GET", "/edge/v1/vod/check", []string{user, "X-Original-URI: /vod/film/1.ts?sid=a&t=" + strings.Repeat("x", 15<<10)}, 200, ""},
		"a target that is too long":  {"GET", "/edge/v1/vod/check", []string{user, "X-Original-URI: /vod/film/1.ts?sid=a&t=" + strings.Repeat("x", 17<<10)}, 403, "uri"},
		"headers that are too large": {"GET", "/edge/v1/vod/check", []string{user, film, "Cookie: " + strings.Repeat("x", 33<<10)}, 431, ""},
		"far too large headers":      {"GET", "/edge/v1/vod/check", []string{user, film, "Cookie: " + strings.Repeat("x", 99<<10)}, 431, ""},
		"HTTP/1.1 without an end":    {"GET", "/edge/v1/vod/check", []string{user, film, "Connection: close"}, 200, ""},
	} {
		got := n.raw(t, tt.method, tt.target, tt.headers...)
		assert.Equal(t, tt.status, got.StatusCode, name)
		assert.Equal(t, tt.reason, got.reason(), name)
	}
	for target, want := range map[string]string{
		"/edge/v1/request/check":         "the request itself to /edge/v1/request/uri/, followed by its path and query.",
		"/edge/v1/vod/uri/vod/film/1.ts": "its checks to /edge/v1/vod/check, with X-Original-Uri and X-Original-Method.",
	} {
		assert.Contains(t, send(t, http.MethodGet, n.url+target, map[string]string{"X-User": "maya"}).body, want)
	}
	head := n.raw(t, "HEAD", "/edge/v1/vod/check", user, "X-Original-URI: /vod/film/1.ts?sid=b")
	assert.Equal(t, 403, head.StatusCode, "the method of the check is not that of the player")
	assert.Positive(t, head.ContentLength)
}

// keys are the API keys of a test.
type keys map[string]access.Kind

func (k keys) FindKey(key string) (access.Caller, bool) {
	kind, ok := k[key]
	return access.Caller{Kind: kind, Name: key}, ok
}

// A proxy needs an allowed address or a key of scope edge.
func TestCallers(t *testing.T) {
	t.Parallel()
	var log testlog.Buffer
	elsewhere := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	ring := keys{"sck_edge": access.Edge, "sck_all": access.Service}
	withKeys := newNode(t, Config{Allow: elsewhere, Keys: ring, Log: slog.New(slog.NewTextHandler(&log, nil))}, nil)
	without := newNode(t, Config{Allow: elsewhere}, nil)
	local := newNode(t, Config{Keys: ring}, nil)
	for name, tt := range map[string]struct {
		n       node
		headers []string
		allowed bool
	}{
		"an allowed address":       {local, nil, true},
		"with a useless key":       {local, []string{"X-Streamcount-Key: sck_x"}, true},
		"no key":                   {withKeys, nil, false},
		"a wrong key":              {withKeys, []string{"X-Streamcount-Key: sck_secret"}, false},
		"a key of another scope":   {withKeys, []string{"X-Streamcount-Key: sck_all"}, false},
		"a key of scope edge":      {withKeys, []string{"X-Streamcount-Key: sck_edge"}, true},
		"two keys":                 {withKeys, []string{"X-Streamcount-Key: sck_edge", "X-Streamcount-Key: sck_edge"}, false},
		"the key of the API":       {withKeys, []string{"Authorization: Bearer sck_edge"}, false},
		"an address of the client": {withKeys, []string{"X-Forwarded-For: 10.0.0.1"}, false},
		"no keys are configured":   {without, []string{"X-Streamcount-Key: sck_edge"}, false},
	} {
		for _, target := range []string{"/edge/v1/vod/check", "/edge/v1/request/uri/x", "/edge/v1/nothing/check"} {
			got := tt.n.raw(t, "GET", target, append(tt.headers, "X-Original-URI: /other")...)
			assert.Equal(t, tt.allowed, got.reason() != "edge-key", "%s: %s", name, target)
			if !tt.allowed {
				assert.Equal(t, 403, got.StatusCode, name)
			}
		}
		for _, target := range []string{"/edge/v1/vod/leave", "/edge/v1/vod/explain"} {
			got := tt.n.raw(t, "POST", target, tt.headers...)
			assert.Equal(t, tt.allowed, got.reason() != "edge-key", "%s: %s", name, target)
		}
		assert.Equal(t, 503, tt.n.raw(t, "GET", "/edge/healthz").StatusCode, "etcd has not been reached")
	}
	assert.Contains(t, log.String(), "scope edge")
	assert.NotContains(t, log.String(), "sck_secret")
}

// newCertificate returns a certificate for servers and clients, which is its own authority.
func newCertificate(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	leaf, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}

// A proxy with a verified certificate needs no key.
func TestCallers_Certificate(t *testing.T) {
	t.Parallel()
	cert, pool := newCertificate(t)
	n := newNode(t, Config{Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, TLS: &tls.Config{
		Certificates: []tls.Certificate{cert}, ClientAuth: tls.VerifyClientCertIfGiven, ClientCAs: pool, MinVersion: tls.VersionTLS12,
	}}, nil)
	for name, tt := range map[string]struct {
		certs  []tls.Certificate
		http2  bool
		status int
	}{
		"none": {nil, false, 403}, "verified": {[]tls.Certificate{cert}, false, 200},
		"none, HTTP/2": {nil, true, 403}, "verified, HTTP/2": {[]tls.Certificate{cert}, true, 200},
	} {
		client := &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: tt.certs, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: tt.http2,
		}}
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https"+strings.TrimPrefix(n.url, "http")+"/edge/v1/vod/check", strings.NewReader("x"))
		require.NoError(t, err)
		r.Header.Set("X-Original-URI", "/other")
		resp, err := client.Do(r)
		require.NoError(t, err, name)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, tt.status, resp.StatusCode, name)
		assert.Equal(t, tt.http2, resp.ProtoMajor == 2, name)
		client.CloseIdleConnections()
	}
}

// A changed file is used. A file with an error changes nothing.
func TestFile(t *testing.T) {
	t.Parallel()
	_, err := New(Config{File: "none.yaml"})
	require.ErrorContains(t, err, "none.yaml")
	n := newNode(t, Config{}, nil)
	go func() { _ = n.WatchFile(t.Context()) }()
	other := func() int { return n.raw(t, "GET", "/edge/v1/vod/check", "X-Original-URI: /other").StatusCode }
	require.Equal(t, 200, other())
	require.NoError(t, os.WriteFile(n.path, []byte("profiles: {vod: {mistake: 1}}"), 0o600))
	require.Equal(t, 200, other())
	require.NoError(t, os.WriteFile(n.path, []byte(strings.Replace(file, "only:", "other: deny\n    only:", 1)), 0o600))
	require.Eventually(t, func() bool { return other() == 403 }, soon, 10*time.Millisecond)
}

// A proxy that asks for a profile that the file does not have is logged and counted.
func TestUnknownProfile(t *testing.T) {
	t.Parallel()
	var log testlog.Buffer
	counters := metrics.NewEdge()
	n := newNode(t, Config{Metrics: counters, Log: slog.New(slog.NewTextHandler(&log, nil))}, nil)
	assert.Equal(t, 404, n.raw(t, "GET", "/edge/v1/"+strings.Repeat("x", 99)+"/check").StatusCode)
	assert.Contains(t, log.String(), "profile="+strings.Repeat("x", 64)+" ")
	assert.EqualValues(t, 1, testutil.ToFloat64(counters.Check("deny", "profile")))
}
