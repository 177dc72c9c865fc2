package edge

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/testlog"
	"streamcount/lease"
	"streamcount/metrics"
)

// A remoteListener gives a client at 127.0.0.N the address 192.0.2.N, which the bound of one
// address applies to.
type remoteListener struct{ net.Listener }

type remoteConn struct{ net.Conn }

func (l remoteListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return remoteConn{c}, err
}

func (c remoteConn) RemoteAddr() net.Addr {
	at := *c.Conn.RemoteAddr().(*net.TCPAddr)
	at.IP = net.IPv4(192, 0, 2, at.IP.To4()[3])
	return &at
}

// dial connects to the node from 127.0.0.N.
func (n node) dial(t *testing.T, from byte) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, from)}, Timeout: soon}
	c, err := d.DialContext(t.Context(), "tcp", strings.TrimPrefix(n.url, "http://"))
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(soon)))
	return c
}

const (
	healthRequest = "GET /edge/healthz HTTP/1.1\r\nHost: edge\r\n\r\n"
	checkRequest  = "GET /edge/v1/vod/check HTTP/1.1\r\nHost: edge\r\nX-Original-URI: /other\r\n\r\n"
)

// ask sends a request on c, and returns the status of the answer.
func ask(t *testing.T, c net.Conn, request string) int {
	t.Helper()
	_, err := io.WriteString(c, request)
	require.NoError(t, err)
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	_, err = io.Copy(io.Discard, resp.Body)
	require.NoError(t, err)
	return resp.StatusCode
}

// requireClosed waits until the node has closed c.
func requireClosed(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(soon)))
	_, err := io.Copy(io.Discard, c)
	require.NotErrorIs(t, err, os.ErrDeadlineExceeded, "it is open")
}

// At the maximum the oldest idle connection is closed. A stranger closes its own, and never those
// of an allowed proxy.
func TestConnections(t *testing.T) {
	t.Parallel()
	var log testlog.Buffer
	counters := metrics.NewEdge()
	n := newServer(t, Config{
		MaxConnections: 10, Allow: []netip.Prefix{netip.MustParsePrefix("192.0.2.100/32")}, Metrics: counters,
		Log: slog.New(slog.NewTextHandler(&log, nil)),
	}, nil)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	n.run(t, remoteListener{ln})

	var proxy []net.Conn
	for range 5 {
		proxy = append(proxy, n.dial(t, 100))
		require.Equal(t, 200, ask(t, proxy[len(proxy)-1], checkRequest))
	}
	for _, sends := range []string{"", healthRequest, "GET /edge/healthz HTTP/1.1\r\nHost: x\r\nX: "} {
		first := n.dial(t, 2)
		_, err := io.WriteString(first, sends)
		require.NoError(t, err)
		for range 20 {
			_, err := io.WriteString(n.dial(t, 2), sends)
			require.NoError(t, err)
		}
		requireClosed(t, first)
		assert.Equal(t, 403, ask(t, n.dial(t, 2), checkRequest), "it needs a key")
		assert.LessOrEqual(t, counters.Connections(), 10)
	}
	for range 20 {
		require.Equal(t, 503, ask(t, n.dial(t, 3), healthRequest), "another address has connections")
	}
	for _, c := range proxy {
		assert.Equal(t, 200, ask(t, c, checkRequest))
	}
	assert.Positive(t, counters.ConnectionsClosed()["max-connections-per-address"])
	assert.Zero(t, counters.ConnectionsClosed()["all-busy"])
	assert.Contains(t, log.String(), `msg="connection closed" listener=edge reason=max-connections`)

	for range 20 { // more than the half that a stranger may have
		proxy = append(proxy, n.dial(t, 100))
		require.Equal(t, 200, ask(t, proxy[len(proxy)-1], checkRequest))
	}
	requireClosed(t, proxy[5])
	assert.Equal(t, 200, ask(t, proxy[len(proxy)-10], checkRequest))
	assert.Equal(t, 10, counters.Connections())
}

// Requests of every form are answered at once, and what does not end is not waited for.
func TestRequests(t *testing.T) {
	t.Parallel()
	n, _ := startNode(t)
	const (
		check = "/edge/v1/vod/check HTTP/1.1\r\nHost: edge\r\nX-User: maya\r\nX-Original-URI: /vod/film/1.ts?sid=a\r\n"
		old   = "GET /edge/v1/vod/check HTTP/1.0\r\nX-Original-URI: /other\r\n"
	)
	for name, tt := range map[string]struct {
		request string
		status  []int
		closed  bool
		body    string // a part of the last answer
	}{
		"HTTP/1.0":                    {old + "\r\n", []int{200}, true, ""},
		"HTTP/1.0, kept":              {strings.Repeat(old+"Connection: keep-alive\r\n\r\n", 2), []int{200, 200}, false, ""},
		"HTTP/1.0, chunked":           {old + "Transfer-Encoding: chunked\r\n\r\n", []int{400}, true, "where the body ends"},
		"no host":                     {"GET /edge/v1/vod/check HTTP/1.1\r\nX-Original-URI: /other\r\n\r\n", []int{400}, true, "missing required Host header"},
		"pipelined":                   {strings.Repeat("GET "+check+"\r\n", 3), []int{200, 200, 200}, false, ""},
		"pipelined after a body":      {"GET " + check + "Content-Length: 1\r\n\r\nxGET " + check + "\r\n", []int{200}, true, ""},
		"an expectation":              {"POST " + check + "Content-Length: 5\r\nExpect: 100-continue\r\n\r\n", []int{200}, true, ""},
		"an expectation, explain":     {"POST /edge/v1/vod/explain HTTP/1.1\r\nHost: edge\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n{}", []int{100, 200}, true, `"reason":"uri"`},
		"an unknown expectation":      {"POST " + check + "Expect: nothing\r\n\r\n", []int{417}, true, ""},
		"a body without an end":       {"POST " + check + "Content-Length: 9999999\r\n\r\nx", []int{200}, true, ""},
		"chunks":                      {"POST " + check + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", []int{200}, true, ""},
		"chunks without an end":       {"POST " + check + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", []int{200}, true, ""},
		"malformed chunks":            {"POST " + check + "Transfer-Encoding: chunked\r\n\r\nx\r\n", []int{200}, true, ""},
		"two lengths":                 {"POST " + check + "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", []int{400}, true, "where the body ends"},
		"folded lines":                {"GET " + check + "X-A: b\r\n c\r\n\r\n", []int{400}, true, "where the body ends"},
		"HEAD with a body":            {"HEAD " + check + "Content-Length: 9\r\n\r\nx", []int{200}, true, ""},
		"HTTP/2 without TLS":          {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", []int{400}, true, "HTTP/2 requires TLS"},
		"an upgrade to HTTP/2":        {"GET " + check + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n", []int{200}, false, ""},
		"a whole URL":                 {"GET http://edge" + check + "\r\n", []int{200}, false, ""},
		"CONNECT":                     {"CONNECT edge:443 HTTP/1.1\r\nHost: edge:443\r\n\r\n", []int{404}, false, "Nothing is served"},
		"OPTIONS *":                   {"OPTIONS * HTTP/1.1\r\nHost: edge\r\n\r\n", []int{404}, false, "Nothing is served"},
		"two original targets":        {"GET " + check + "X-Original-URI: /other\r\n\r\n", []int{403}, false, "exactly one X-Original-Uri"},
		"two methods":                 {"GET " + check + "X-Original-Method: GET\r\nX-Original-Method: OPTIONS\r\n\r\n", []int{403}, false, "exactly one"},
		"17 KiB of target":            {"GET /edge/v1/vod/check?" + strings.Repeat("x", 17<<10) + " HTTP/1.1\r\nHost: edge\r\n\r\n", []int{414}, false, "16 KiB"},
		"33 KiB of headers":           {"GET " + check + "Cookie: " + strings.Repeat("x", 33<<10) + "\r\n\r\n", []int{431}, false, "32 KiB"},
		"33 KiB of small headers":     {"GET " + check + strings.Repeat("X-A: b\r\n", 33<<7) + "\r\n", []int{431}, false, "32 KiB"},
		"15 KiB and 31 KiB":           {"GET " + check[:strings.Index(check, "?")] + "?sid=a&x=" + strings.Repeat("x", 15<<10) + "\r\nCookie: " + strings.Repeat("x", 31<<10) + "\r\n\r\n", []int{200}, false, ""},
		"a line that is not a header": {"GET " + check + "x\r\n\r\n", []int{400}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := n.dial(t, 1)
			_, err := io.WriteString(c, tt.request)
			require.NoError(t, err)
			in, method := bufio.NewReader(c), strings.Fields(tt.request)[0]
			var body []byte
			for i, want := range tt.status {
				resp, err := http.ReadResponse(in, &http.Request{Method: method})
				require.NoError(t, err, "answer %d", i)
				assert.Equal(t, want, resp.StatusCode, "answer %d", i)
				body, err = io.ReadAll(resp.Body)
				require.NoError(t, err)
				if i == len(tt.status)-1 {
					assert.Equal(t, tt.closed, resp.Close)
				}
			}
			assert.Contains(t, string(body), tt.body)
			if tt.closed {
				requireClosed(t, c)
			} else {
				assert.Equal(t, 200, ask(t, c, checkRequest), "the connection can be used again")
			}
		})
	}
}

// A peer that sends nothing more is disconnected, and delays no one else.
func TestSlowPeers(t *testing.T) {
	t.Parallel()
	cert, _ := newCertificate(t)
	plain, _ := startNode(t)
	secure := newNode(t, Config{TLS: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}}, nil)
	handshake := secure.dial(t, 1)
	_, err := handshake.Write([]byte{22, 3, 1})
	require.NoError(t, err)
	head := plain.dial(t, 1)
	_, err = io.WriteString(head, "GET /edge/v1/vod/check HTTP/1.1\r\nHost: edge\r\nX-A: ")
	require.NoError(t, err)
	body := plain.dial(t, 1)
	_, err = io.WriteString(body, "POST /edge/v1/vod/explain HTTP/1.1\r\nHost: edge\r\nContent-Length: 9\r\n\r\n{")
	require.NoError(t, err)

	assert.Equal(t, 200, ask(t, plain.dial(t, 1), checkRequest))
	client := tls.Client(secure.dial(t, 1), &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}) //nolint:gosec // only the handshake matters
	assert.Equal(t, 200, ask(t, client, checkRequest))

	requireClosed(t, handshake)
	requireClosed(t, head)
	resp, err := http.ReadResponse(bufio.NewReader(body), nil)
	require.NoError(t, err)
	assert.Equal(t, http.StatusRequestTimeout, resp.StatusCode)
	assert.NoError(t, resp.Body.Close())
	requireClosed(t, body)
}

// running is a limiter in which the stream of every session runs.
type running struct{ Limiter }

func (running) Attend(_ context.Context, user, session string, _ bool) (lease.Attendance, error) {
	time.Sleep(100 * time.Millisecond)
	return lease.Attendance{Stream: lease.Stream{User: user, Session: session, Content: lease.Content{ID: "film"}}, Current: true, Streams: 1, Limit: 1}, nil
}

// pipes accepts the connections that dial makes in memory, so that time can be simulated.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (p pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p pipes) Close() error   { close(p.closed); return nil }
func (p pipes) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }

// A pipeConn has an allowed address.
type pipeConn struct{ net.Conn }

func (pipeConn) RemoteAddr() net.Addr { return pipes{}.Addr() }

func (p pipes) dial() (net.Conn, error) {
	client, server := net.Pipe()
	select {
	case p.conns <- pipeConn{server}:
		return client, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// During a shutdown the health is 503 for the delay, so that proxies leave. No check fails, and
// each ends its connection.
func TestShutdown(t *testing.T) {
	t.Parallel()
	n := newServer(t, Config{ShutdownDelay: 3 * time.Second}, running{})
	synctest.Test(t, func(t *testing.T) {
		ln := pipes{make(chan net.Conn), make(chan struct{})}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx, ln) }()
		const proxies = 8
		checks, left := make([]int, proxies), make(chan error, proxies)
		for i := range proxies {
			go func() { left <- checkUntilUnhealthy(ln, &checks[i]) }()
		}
		time.Sleep(10 * time.Second)
		begin := time.Now()
		cancel()
		for range proxies {
			require.NoError(t, <-left)
		}
		assert.Less(t, time.Since(begin), 3*time.Second, "the proxies have left before the listener closes")
		require.NoError(t, <-done)
		assert.InDelta(t, 3, time.Since(begin).Seconds(), 1)
		_, err := ln.dial()
		require.ErrorIs(t, err, net.ErrClosed)
		for _, n := range checks {
			assert.Greater(t, n, 50)
		}
	})
}

// checkUntilUnhealthy sends checks as a proxy does that checks the health every second. It returns
// an error if a check fails.
func checkUntilUnhealthy(ln pipes, checks *int) error {
	health := time.Now()
	conn, err := ln.dial()
	if err != nil {
		return err
	}
	send := func(request string) (*http.Response, error) {
		if _, err := io.WriteString(conn, request); err != nil {
			return nil, err
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil && resp.Close {
			_ = conn.Close()
			conn, err = ln.dial()
		}
		return resp, err
	}
	for ; ; *checks++ {
		resp, err := send("GET /edge/v1/vod/check HTTP/1.1\r\nHost: edge\r\nX-User: maya\r\nX-Original-URI: /vod/film/1.ts?sid=a\r\n\r\n")
		if err != nil || resp.StatusCode != 200 {
			return fmt.Errorf("check %d: %w, %+v", *checks, err, resp)
		}
		if time.Since(health) < time.Second {
			continue
		}
		health = time.Now()
		resp, err = send(healthRequest)
		switch {
		case err != nil:
			return err
		case resp.StatusCode == http.StatusServiceUnavailable:
			_ = conn.Close()
			return nil
		}
	}
}
