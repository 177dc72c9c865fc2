package edge

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	clientv3 "go.etcd.io/etcd/client/v3"

	"streamcount/internal/testing/etcdtest"
	"streamcount/lease"
)

func TestMain(m *testing.M) { os.Exit(etcdtest.Main(m)) }

const (
	soon    = time.Minute
	testTTL = 60 * time.Second
	// file has a profile for each way in which a proxy reports the request. It reads the user
	// from a header.
	file = `profiles:
  vod:
    paths: ["/vod/{content}/{file...}"]
    only: [m3u8, ts]
    user: ["header:X-User", "cookie:sc"]
    session: ["query:sid"]
    cookie: {name: sc}
  split: {paths: ["/vod/{content}/{file...}"], user: ["header:X-User"], session: ["query:sid"], change: split}
  forwarded: {from: forwarded, paths: ["/vod/{content}/{file...}"], user: ["header:X-User"], session: ["query:sid"]}
  request: {from: request, paths: ["/vod/{content}/{file...}"], other: deny, user: ["header:X-User"], session: ["query:sid"]}
  closed: {paths: ["/vod/{content}/{file...}"], user: ["header:X-User"], session: ["query:sid"], onOutage: deny}
  known: {paths: ["/vod/{content}/{file...}"], user: ["header:X-User"], session: ["query:sid"], onOutage: known}
  evict: {paths: ["/vod/{content}/{file...}"], user: ["header:X-User"], session: ["query:sid"], onLimit: replace-oldest}
  observe:
    paths: ["/vod/{content}/{file...}"]
    user: ["header:X-User"]
    session: ["query:sid"]
    onLimit: replace-oldest
    onOutage: deny
    observe: true
  bearer: {paths: ["/vod/{content}/{file...}"], user: [bearer], session: ["query:sid"]}
  path: {paths: ["/t/{token}/{content}/{file...}"], user: ["path:token"]}
  token: {paths: ["/vod/{content}/{file...}"], user: [bearer], session: ["claim:sid"]}
`
)

// newLimiter returns a running limiter.
func newLimiter(tb testing.TB, c *clientv3.Client, cfg lease.Config) *lease.Limiter {
	tb.Helper()
	cfg.Secret = []byte(strings.Repeat("s", 32))
	if cfg.TTL == 0 {
		cfg.TTL = testTTL
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = time.Minute
	}
	l, err := lease.New(lease.FromClient(c), cfg)
	require.NoError(tb, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	tb.Cleanup(func() {
		cancel()
		assert.NoError(tb, <-done)
	})
	require.Eventually(tb, l.Current, soon, time.Millisecond)
	return l
}

// A node is a running Server.
type node struct {
	*Server
	url  string
	path string // of the file of profiles
}

func newNode(t *testing.T, cfg Config, l Limiter) node {
	t.Helper()
	n := newServer(t, cfg, l)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	n.run(t, ln)
	return n
}

// run runs the server on ln until the test ends.
func (n *node) run(t *testing.T, ln net.Listener) {
	t.Helper()
	n.url = "http://" + ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		assert.NoError(t, <-done)
	})
}

// newServer returns a node that does not run.
func newServer(t *testing.T, cfg Config, l Limiter) node {
	t.Helper()
	path := filepath.Join(t.TempDir(), "edge.yaml")
	require.NoError(t, os.WriteFile(path, []byte(file), 0o600))
	cfg.File = path
	if cfg.Allow == nil {
		cfg.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	cfg.Drain = soon
	s, err := New(cfg)
	require.NoError(t, err)
	if l != nil {
		s.SetBackend(Backend{Limiter: l, Key: []byte(strings.Repeat("k", 32))})
	}
	return node{Server: s, path: path}
}

// startNode returns a node with a separate limiter in etcd, with a limit of one stream.
func startNode(t *testing.T) (node, *lease.Limiter) {
	t.Helper()
	l := newLimiter(t, etcdtest.Client(t), lease.Config{Prefix: etcdtest.Prefix(t), Limit: 1})
	return newNode(t, Config{}, l), l
}

// A reply is an answer with its body.
type reply struct {
	*http.Response
	body string
}

func (r reply) reason() string { return r.Header.Get("X-Streamcount-Reason") }

// send sends a request as it is written.
func send(t *testing.T, method, url string, headers map[string]string) reply {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	require.NoError(t, err)
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	defer func() { assert.NoError(t, resp.Body.Close()) }()
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return reply{resp, string(body)}
}

// check sends a check of a GET by maya.
func (n node) check(t *testing.T, profile, target string) reply {
	t.Helper()
	return n.checkAs(t, profile, http.MethodGet, target, "maya")
}

func (n node) checkAs(t *testing.T, profile, method, target, user string) reply {
	t.Helper()
	headers := map[string]string{"X-Original-URI": target, "X-Original-Method": method}
	if user != "" {
		headers["X-User"] = user
	}
	return send(t, http.MethodGet, n.url+"/edge/v1/"+profile+"/check", headers)
}

// streams returns the streams of a user.
func streams(tb testing.TB, l *lease.Limiter, user string) []lease.Stream {
	tb.Helper()
	u, err := l.List(tb.Context(), user, lease.Linearizable)
	if !errors.Is(err, lease.ErrNoStreams) {
		require.NoError(tb, err)
	}
	return u.Active
}
