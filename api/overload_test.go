package api

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/internal/openapi"
	"streamcount/api/internal/overload"
	"streamcount/api/internal/problem"
	"streamcount/internal/testing/testlog"
)

// A keepAliveConn is a connection for several requests.
type keepAliveConn struct {
	net.Conn
	in *bufio.Reader
}

func dialKeepAlive(t *testing.T, addr string) keepAliveConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	return keepAliveConn{c, bufio.NewReader(c)}
}

func (l keepAliveConn) write(t *testing.T, raw string) {
	t.Helper()
	_, err := io.WriteString(l, raw)
	require.NoError(t, err)
}

func (l keepAliveConn) read(t *testing.T) answer {
	t.Helper()
	res, err := http.ReadResponse(l.in, &http.Request{Method: http.MethodPost})
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return answer{status: res.StatusCode, header: res.Header, body: string(body)}
}

func (l keepAliveConn) roundTrip(t *testing.T, raw string) answer {
	t.Helper()
	l.write(t, raw)
	return l.read(t)
}

// Only starts and reads are rejected, and the connection stays open.
func TestOverload_Answers(t *testing.T) {
	var log testlog.Buffer
	f := &fake{count: 1}
	s := newServer(t, Config{Log: slog.New(slog.NewJSONHandler(&log, nil))}, f)
	load := setLoad(s)
	load.reject(true, true)
	addr, _ := run(t, s)
	start, list := post(userBase+"/start", `{"session":"a"}`), bare("GET", userBase)
	l := dialKeepAlive(t, addr)
	for range 3 {
		a := l.roundTrip(t, start)
		checkProblem(t, a)
		assert.Equal(t, 503, a.status)
		assert.Contains(t, a.body, "/problems/overloaded")
		assert.Regexp(t, `^[1-5]$`, a.header.Get("Retry-After"))
	}
	assert.Equal(t, 503, l.roundTrip(t, list).status)
	assert.Equal(t, 200, l.roundTrip(t, bare("POST", userBase+"/streams/abc/heartbeat", "Content-Length: 0")).status)
	assert.Equal(t, 200, l.roundTrip(t, post(userBase+"/stop", `{}`)).status)
	assert.Len(t, f.taken(), 2)
	load.reject(false, false)
	assert.Equal(t, 200, l.roundTrip(t, start).status)

	counted := fmt.Sprintf("streamcount_http_requests_total{code=\"503\",method=\"POST\",route=\"%s/start\"} 3\n", openapi.UserPath)
	require.Eventually(t, func() bool { // a request is counted after its answer
		text := call(s, "GET", metricsPath, "").Body.String()
		return strings.Contains(text, counted) && strings.Contains(text, `streamcount_http_requests_shed_total{reason="concurrent-starts"} 3`) &&
			strings.Contains(text, `streamcount_http_requests_shed_total{reason="concurrent-reads"} 1`)
	}, time.Minute, time.Millisecond)
	assert.Contains(t, log.Take(), `"status":503`)
}

// Every request of a connection is answered in order, whatever segments they arrive in.
func TestOverload_RequestsInPieces(t *testing.T) {
	s := newServer(t, Config{Log: slog.New(slog.DiscardHandler)}, &fake{count: 1})
	setLoad(s).reject(true, true)
	addr, _ := run(t, s)
	start, stop := post(userBase+"/start", `{"session":"a"}`), post(userBase+"/stop", `{}`)
	for name, parts := range map[string][]string{
		"two at once": {start + start}, "with a stop": {start + stop, stop + start}, "a stop after": {start, stop},
		"two pieces": {start[:20], start[20:]}, "its body later": {start[:len(start)-15], start[len(start)-15:], start},
		"the next's beginning": {start + start[:30], start[30:]},
		"more than a buffer":   {strings.Repeat(start, 40)},
		"large":                {post(userBase+"/start", `{"session":"`+strings.Repeat("a", 5000)+`"}`), start},
	} {
		t.Run(name, func(t *testing.T) {
			l := dialKeepAlive(t, addr)
			assert.Equal(t, 200, l.roundTrip(t, stop).status)
			go func() {
				for _, part := range parts {
					_, _ = io.WriteString(l, part) // an error shows as a missing answer
				}
			}()
			all := strings.Join(parts, "")
			for range strings.Count(all, " HTTP/1.1\r\n") {
				want := 200
				if strings.HasPrefix(all, "POST "+userBase+"/start") {
					want = 503
				}
				assert.Equal(t, want, l.read(t).status)
				_, all, _ = strings.Cut(all, " HTTP/1.1\r\n")
				all = all[max(0, strings.Index(all, "POST ")):]
			}
			assert.Equal(t, 200, l.roundTrip(t, stop).status)
		})
	}
}

// A rejected start has the CORS headers of every answer.
func TestOverload_Origins(t *testing.T) {
	const page = "https://app.example"
	s := newServer(t, Config{Log: slog.New(slog.DiscardHandler), Ingress: IngressConfig{Origins: []string{page}}}, &fake{count: 1})
	setLoad(s).reject(true, true)
	addr, _ := run(t, s)
	l := dialKeepAlive(t, addr)
	a := l.roundTrip(t, post(userBase+"/start", `{}`, "Origin: "+page))
	assert.Equal(t, 503, a.status)
	assert.Equal(t, page, a.header.Get("Access-Control-Allow-Origin"))
	a = l.roundTrip(t, post(userBase+"/start", `{}`))
	assert.Equal(t, 503, a.status)
	assert.Equal(t, "Origin", a.header.Get("Vary"))
}

func TestOverload_TLS(t *testing.T) {
	cert, pool := selfSigned(t)
	s := newServer(t, Config{Log: slog.New(slog.DiscardHandler), Ingress: IngressConfig{
		TLS: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
	}}, &fake{count: 1})
	setLoad(s).reject(true, true)
	addr, _ := run(t, s)
	for _, h2 := range []bool{true, false} {
		c := tlsClient(t, pool, h2)
		for range 5 {
			res, err := c.Post("https://"+addr+userBase+"/start", "application/json", nil)
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, res.Body)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			assert.Equal(t, 503, res.StatusCode)
			assert.Equal(t, problem.MediaType, res.Header.Get("Content-Type"))
		}
	}
}

// Each of many concurrent starts is admitted or rejected while the limit changes.
func TestOverload_ConcurrentStarts(t *testing.T) {
	s := newServer(t, Config{Log: slog.New(slog.DiscardHandler)}, &fake{count: 1})
	load := setLoad(s)
	addr, _ := run(t, s)
	seen := make([][600]int, 8)
	var all sync.WaitGroup
	for i := range 8 {
		l := dialKeepAlive(t, addr)
		all.Go(func() {
			for k := range 200 {
				load.reject(k%2 == 0, false)
				if _, err := io.WriteString(l, post(userBase+"/start", `{"session":"a"}`)); err != nil {
					return
				}
				res, err := http.ReadResponse(l.in, nil)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, res.Body) // so that the connection can be used again
				seen[i][res.StatusCode]++
			}
		})
	}
	all.Wait()
	counts := [600]int{}
	for _, s := range seen {
		for status, n := range s {
			counts[status] += n
		}
	}
	assert.Equal(t, 8*200, counts[200]+counts[503])
	assert.NotZero(t, counts[200])
	assert.NotZero(t, counts[503])
	assert.Equal(t, int64(counts[503]), s.load.Rejected()["concurrent-starts"])
}

// BenchmarkRejectedStart measures a round trip over loopback with the work of the client.
func BenchmarkRejectedStart(b *testing.B) {
	s, err := New(Config{Log: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	s.SetBackend(Backend{Limiter: &fake{count: 1}})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	ctx, stop := context.WithCancel(b.Context())
	setLoad(s).reject(true, true)
	var served sync.WaitGroup
	served.Go(func() { _ = s.Run(ctx, ln) }) // stop ends it
	defer served.Wait()
	defer stop()
	conn, err := net.Dial("tcp", ln.Addr().String())
	require.NoError(b, err)
	defer conn.Close()
	start, answer := post(userBase+"/start", `{"session":"a","device":{"id":"b8d0","type":"tv"}}`), make([]byte, 4096)
	for b.Loop() {
		_, err := io.WriteString(conn, start)
		require.NoError(b, err)
		n, err := conn.Read(answer)
		require.NoError(b, err)
		require.Contains(b, string(answer[:n]), " 503 ")
	}
}

// Only starts and reads are rejected under overload. Heartbeats, stops and removals are not.
func TestOverload_Classes(t *testing.T) {
	s := newServer(t, Config{}, &fake{})
	setLoad(s).reject(true, true)
	addr, _ := run(t, s)
	for _, call := range []struct{ method, path string }{
		{"POST", userBase + "/start"}, {"GET", userBase}, {"GET", "/api/v1/stats"}, {"GET", "/api/v1/streams/users"},
	} {
		a := send(t, addr, bare(call.method, call.path), patience)
		assert.Equal(t, 503, a.status, call.path)
		assert.Regexp(t, "^[1-5]$", a.header.Get("Retry-After"))
		assert.Contains(t, a.body, "/problems/overloaded")
	}
	for _, call := range []struct{ method, path string }{
		{"POST", fmt.Sprintf("%s/streams/%s/heartbeat", userBase, openapi.ExampleID)},
		{"POST", fmt.Sprintf("%s/streams/%s/stop", userBase, openapi.ExampleID)}, {"POST", userBase + "/stop"}, {"DELETE", userBase},
	} {
		assert.NotEqual(t, 503, send(t, addr, bare(call.method, call.path), patience).status, call.path)
	}
}

// Heartbeats and stops may use the reserved slots.
func TestOverload_ReservedSlots(t *testing.T) {
	g := newBlockingFake()
	defer g.release()
	s := newServer(t, Config{MaxInFlight: 16}, &g.fake)
	addr, _ := run(t, s)
	for range 14 {
		go send(t, addr, bare("GET", userBase), patience)
	}
	g.waitBlocked(t, 14)
	assert.Equal(t, 503, call(s, "POST", userBase+"/start", "").Code)
	assert.Equal(t, 200, call(s, "POST", userBase+"/streams/x/heartbeat", "").Code)
	for path, body := range map[string]string{
		"/stop": "", "/streams/x/stop": "", batchPath: `{"heartbeats":[{"userId":"maya","streamId":"x"}]}`,
	} {
		if path != batchPath {
			path = userBase + path
		}
		assert.Equal(t, 200, call(s, "POST", path, body).Code, path)
	}
	assert.Equal(t, 200, call(s, "DELETE", userBase+"/streams/x", "").Code)
}

// Run measures the scheduler delay.
func TestOverload_RunMeasuresDelay(t *testing.T) {
	s := newServer(t, Config{}, &fake{})
	load := &countingLoad{Control: s.load.(*overload.Control)}
	s.load = load
	_, stop := run(t, s)
	require.Eventually(t, func() bool { return load.running.Load() == 1 }, time.Minute, time.Millisecond)
	require.NoError(t, stop())
	assert.Zero(t, load.running.Load())
}

// A countingLoad counts the calls of Run that have not returned.
type countingLoad struct {
	*overload.Control
	running atomic.Int32
}

func (l *countingLoad) Run(ctx context.Context) error {
	defer l.running.Add(-1)
	l.running.Add(1)
	return l.Control.Run(ctx)
}
