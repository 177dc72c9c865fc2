package proxies

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/freeport"
)

// key is the API key that the proxies must send.
const key = "sck_key-of-the-proxies"

// A check is a request of a proxy to the edge.
type check struct {
	method, target string
	header         http.Header
	length         int64  // of the body; -1 if it is unknown
	connection     string // address of the proxy
}

// original returns the request of the viewer, as the proxy reported it.
func (c check) original() (method, target string) {
	if target, ok := strings.CutPrefix(c.target, "/edge/v1/vod-request/uri"); ok {
		return c.method, target
	}
	names := c.originalHeaders()
	return c.header.Get(names[0]), c.header.Get(names[1])
}

// originalHeaders returns the names of the headers that have the method and the target of the
// request of the viewer, if the profile of the check uses headers.
func (c check) originalHeaders() []string {
	switch c.profile() {
	case "vod":
		return []string{"X-Original-Method", "X-Original-Uri"}
	case "vod-forwarded":
		return []string{"X-Forwarded-Method", "X-Forwarded-Uri"}
	default:
		return nil
	}
}

func (c check) profile() string {
	profile, _, _ := strings.Cut(strings.TrimPrefix(c.target, "/edge/v1/"), "/")
	return profile
}

// cookie returns the name of the cookie in the profile of the check.
func (c check) cookie() string {
	return map[string]string{"vod": "sc", "vod-forwarded": "sc-forwarded", "vod-request": "sc-request"}[c.profile()]
}

// A node records the checks of a proxy. It answers each check as the token in its query demands,
// in the way of the edge. Unlike a node of the service, it can be made to fail in every way.
type node struct {
	address string

	mu     sync.Mutex
	checks []check
	fault  string // "503", "hang" or ""
	done   chan struct{}
	close  func() // ends the listener and all connections
}

func startNode(t *testing.T) *node {
	t.Helper()
	n := &node{done: make(chan struct{})}
	server := httptest.NewServer(n)
	n.address = server.Listener.Addr().String()
	n.close = sync.OnceFunc(func() {
		close(n.done)
		server.CloseClientConnections()
		server.Close()
	})
	t.Cleanup(n.close)
	return n
}

func (n *node) set(fault string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.fault = fault
}

// take returns the checks since the last call.
func (n *node) take() []check {
	n.mu.Lock()
	defer n.mu.Unlock()
	defer func() { n.checks = nil }()
	return n.checks
}

func (n *node) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n.mu.Lock()
	fault := n.fault
	c := check{method: r.Method, target: r.RequestURI, header: r.Header.Clone(), length: r.ContentLength, connection: r.RemoteAddr}
	if r.URL.Path != "/edge/healthz" {
		n.checks = append(n.checks, c)
	}
	n.mu.Unlock()
	switch fault {
	case "503":
		w.Header().Set("Retry-After", "1")
		n.answer(w, http.StatusServiceUnavailable, "unavailable")
		return
	case "hang":
		select {
		case <-n.done:
		case <-r.Context().Done():
		}
		return
	}
	if r.URL.Path == "/edge/healthz" {
		return
	}
	if r.Header.Get("X-Streamcount-Key") != key {
		n.answer(w, http.StatusForbidden, "edge-key")
		return
	}
	_, target := c.original()
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Accel-Expires", "0")
	reason, _, _ := strings.Cut(tokenOf(target, c.cookie(), r.Header), "-") // limit-1 is limit
	switch reason {
	case "":
		w.Header().Set("WWW-Authenticate", "Bearer")
		n.answer(w, http.StatusUnauthorized, "identity")
	case "limit", "stopped":
		w.Header().Set("Retry-After", "17")
		n.answer(w, http.StatusForbidden, reason)
	case "cookie":
		http.SetCookie(w, &http.Cookie{Name: c.cookie(), Value: "new", Path: "/", HttpOnly: true})
		fallthrough
	default:
		w.Header().Set("X-Streamcount-Decision", "allow")
		w.Header().Set("X-Accel-Expires", "1")
		w.Header().Set("Content-Length", "0")
	}
}

// answer writes a denial.
func (n *node) answer(w http.ResponseWriter, status int, reason string) {
	body := fmt.Sprintf(`{"title":"Denied","status":%d,"reason":%q}`, status, reason)
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Header().Set("X-Streamcount-Decision", "deny")
	w.Header().Set("X-Streamcount-Reason", reason)
	w.WriteHeader(status)
	_, _ = io.WriteString(w, body)
}

func tokenOf(target, cookie string, header http.Header) string {
	path, query, _ := strings.Cut(target, "?")
	if values, err := url.ParseQuery(query); err == nil && values.Get("token") != "" {
		return values.Get("token")
	}
	path, _ = url.PathUnescape(path)
	if rest, ok := strings.CutPrefix(path, "/t/"); ok {
		token, _, _ := strings.Cut(rest, "/")
		return token
	}
	if token, ok := strings.CutPrefix(header.Get("Authorization"), "Bearer "); ok {
		return token
	}
	if cookie, err := (&http.Request{Header: header}).Cookie(cookie); err == nil {
		return cookie.Value
	}
	return ""
}

// closedAddress returns an address at which nothing listens.
func closedAddress(t *testing.T) string {
	t.Helper()
	port, err := freeport.Find()
	require.NoError(t, err)
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// An origin serves the media, and counts the requests that reach it.
type origin struct {
	address string

	mu       sync.Mutex
	requests []*http.Request
}

// segment is the content of each file of the media.
const segment = "0123456789 segment of a film"

func startOrigin(t *testing.T) *origin {
	t.Helper()
	o := &origin{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.mu.Lock()
		o.requests = append(o.requests, r)
		o.mu.Unlock()
		if r.Method == http.MethodOptions {
			w.Header().Set("Access-Control-Allow-Origin", "*")
			w.WriteHeader(http.StatusNoContent)
			return
		}
		w.Header().Set("Cache-Control", "max-age=60")
		http.ServeContent(w, r, "0.ts", time.Unix(1_700_000_000, 0), strings.NewReader(segment))
	}))
	t.Cleanup(server.Close)
	o.address = server.Listener.Addr().String()
	return o
}

// take returns the requests since the last call.
func (o *origin) take() []*http.Request {
	o.mu.Lock()
	defer o.mu.Unlock()
	defer func() { o.requests = nil }()
	return o.requests
}
