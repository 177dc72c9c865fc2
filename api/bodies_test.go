package api

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/internal/ingress"
	"streamcount/internal/testing/longtest"
)

func headOf(method, path string, length int) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", method, path, length)
}

func answerOn(t *testing.T, c net.Conn) *http.Response {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	return res
}

// withoutTimeouts is a configuration with which no body arrives too late.
func withoutTimeouts() Config { return Config{Ingress: IngressConfig{BodyTimeout: time.Hour}} }

// runWithoutTimeouts serves s until the test ends. No read times out, so that a response
// that waits for a body never arrives.
func runWithoutTimeouts(t *testing.T, s *Server) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := s.httpServer(t.Context())
	srv.ReadTimeout, srv.ReadHeaderTimeout = 0, 0
	served := make(chan error, 1)
	go func() { served <- srv.Serve(s.ingress.Listen(ln)) }()
	t.Cleanup(func() {
		require.NoError(t, srv.Close())
		require.ErrorIs(t, <-served, http.ErrServerClosed)
	})
	return ln.Addr().String()
}

// Requests whose bodies do not arrive are not in flight.
func TestBodies_NotInFlight(t *testing.T) {
	const waiting = 100
	cfg := withoutTimeouts()
	cfg.MaxInFlight = 2
	s := newServer(t, cfg, &fake{count: 1})
	addr, _ := run(t, s)
	var conns []net.Conn
	for range waiting {
		c := dialFrom(t, addr, 2)
		_, err := io.WriteString(c, headOf("POST", userBase+"/start", 10)+"{")
		require.NoError(t, err)
		conns = append(conns, c)
	}
	require.Eventually(t, func() bool { return s.ingress.ArrivingBodies() == waiting }, patience, time.Millisecond)
	assert.Contains(t, scrape(t, s), fmt.Sprintf("\nstreamcount_http_bodies_arriving %d\n", waiting))
	assert.Equal(t, 200, send(t, addr, post(userBase+"/start", `{"session":"a"}`), patience).status)
	assert.Equal(t, 200, send(t, addr, bare("POST", userBase+"/streams/x/heartbeat"), patience).status)
	assert.Equal(t, 200, send(t, addr, bare("GET", userBase), patience).status)
	assert.Zero(t, s.load.InFlight())
	for _, c := range conns {
		require.NoError(t, c.Close())
	}
	require.Eventually(t, func() bool { return s.ingress.ArrivingBodies() == 0 }, patience, time.Millisecond)
}

// A call without a body does not wait for the body that its client announced.
func TestBodies_Ignored(t *testing.T) {
	addr := runWithoutTimeouts(t, newServer(t, withoutTimeouts(), &fake{count: 1}))
	for _, call := range []string{
		"DELETE " + userBase + "/streams/x", "POST " + userBase + "/streams/x/stop", "POST " + userBase + "/streams/x/heartbeat",
		"GET " + userBase, "DELETE " + userBase, "GET /healthz", "GET /openapi.json",
	} {
		method, path, _ := strings.Cut(call, " ")
		for _, length := range []int{1, 50, 20_000, 1 << 40} {
			c := dialFrom(t, addr, 2)
			_, err := io.WriteString(c, headOf(method, path, length))
			require.NoError(t, err)
			res := answerOn(t, c)
			assert.Equal(t, 200, res.StatusCode, "%s with %d bytes announced", call, length)
			assert.True(t, res.Close, "the next bytes are not the next request")
		}
		c := dialFrom(t, addr, 2)
		for range 3 { // the body has arrived: the connection stays open
			_, err := io.WriteString(c, headOf(method, path, 5)+"[nil]")
			require.NoError(t, err)
			res := answerOn(t, c)
			assert.Equal(t, 200, res.StatusCode)
			assert.False(t, res.Close)
			_, _ = io.Copy(io.Discard, res.Body)
		}
	}
}

// A rejection that does not depend on the body does not wait for it.
func TestBodies_RejectedEarly(t *testing.T) {
	addr := runWithoutTimeouts(t, newServer(t, withoutTimeouts(), &fake{}))
	for _, call := range []string{"POST /nothing/here", "PUT " + userBase + "/start", "POST " + userBase + "/start?x=%"} {
		method, path, _ := strings.Cut(call, " ")
		c := dialFrom(t, addr, 2)
		_, err := io.WriteString(c, headOf(method, path, 10))
		require.NoError(t, err)
		assert.GreaterOrEqual(t, answerOn(t, c).StatusCode, 400, call)
	}
}

// A body below the minimum rate is rejected. One at the rate of a slow uplink is received.
func TestBodies_Timeout(t *testing.T) {
	longtest.Require(t)
	t.Parallel()
	addr, _ := run(t, newServer(t, Config{}, &fake{count: 1}))
	trickle := func(t *testing.T, bytesEach int, pause time.Duration) (status int, took time.Duration) {
		t.Helper()
		body := `{"heartbeats":[{"userId":"maya","streamId":"x"}]` + strings.Repeat(" ", 400_000) + "}"
		c := dialFrom(t, addr, 2)
		require.NoError(t, c.SetDeadline(time.Now().Add(30*time.Second)))
		began := time.Now()
		_, err := io.WriteString(c, headOf("POST", batchPath, len(body)))
		require.NoError(t, err)
		go func() {
			for rest := body; rest != ""; rest = rest[min(bytesEach, len(rest)):] {
				if _, err := io.WriteString(c, rest[:min(bytesEach, len(rest))]); err != nil {
					return
				}
				time.Sleep(pause)
			}
		}()
		return answerOn(t, c).StatusCode, time.Since(began)
	}
	t.Run("slow uplink", func(t *testing.T) {
		t.Parallel()
		status, took := trickle(t, 8_000, 100*time.Millisecond) // 80 KB a second, 5 s
		assert.Equal(t, 200, status)
		assert.Greater(t, took, ingress.DefaultBodyTimeout+time.Second)
	})
	t.Run("trickle", func(t *testing.T) {
		t.Parallel()
		status, took := trickle(t, 100, 50*time.Millisecond)
		assert.Equal(t, 408, status)
		assert.Greater(t, took, ingress.DefaultBodyTimeout-time.Second)
	})
}

// Bodies that do not arrive on an HTTP/2 connection do not delay other requests.
func TestBodies_HTTP2(t *testing.T) {
	const waiting = 80
	cert, pool := selfSigned(t)
	cfg := withoutTimeouts()
	cfg.MaxInFlight, cfg.Ingress.TLS = 2, tlsWith(cert)
	s := newServer(t, cfg, &fake{count: 1})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	addr, _ := runOn(t, s, remoteListener{ln})
	c := tlsClient(t, pool, true)
	var outs []*io.PipeWriter
	errs := make(chan error, waiting)
	for range waiting {
		in, out := io.Pipe()
		outs = append(outs, out)
		go func() {
			res, err := c.Post("https://"+addr+userBase+"/start", "application/json", in)
			if err == nil {
				res.Body.Close()
			}
			errs <- err
		}()
	}
	require.Eventually(t, func() bool { return s.ingress.ArrivingBodies() == waiting }, patience, time.Millisecond)
	other := tlsClient(t, pool, true)
	for _, call := range []string{"/start", "/streams/x/heartbeat", "/streams/x/stop"} {
		res, err := other.Post("https://"+addr+userBase+call, "application/json", strings.NewReader("{}"))
		require.NoError(t, err)
		res.Body.Close()
		assert.Equal(t, 200, res.StatusCode, call)
	}
	for _, out := range outs {
		out.CloseWithError(errBroken)
	}
	for range waiting {
		assert.ErrorIs(t, <-errs, errBroken)
	}
	require.Eventually(t, func() bool { return s.ingress.ArrivingBodies() == 0 }, patience, time.Millisecond)
}

var errBroken = errors.New("the body ends early")
