package api

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// letIn says how many starts s serves at once.
func letIn(s *Server, n int) {
	s.shed.mu.Lock()
	defer s.shed.mu.Unlock()
	s.shed.limit, s.shed.most = float64(n), n
}

// A line is a connection that is kept.
type line struct {
	net.Conn
	in *bufio.Reader
}

func dialLine(t *testing.T, addr string) line {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(time.Minute)))
	return line{c, bufio.NewReader(c)}
}

func (l line) say(t *testing.T, raw string) {
	t.Helper()
	_, err := io.WriteString(l, raw)
	require.NoError(t, err)
}

func (l line) hear(t *testing.T) answer {
	t.Helper()
	res, err := http.ReadResponse(l.in, &http.Request{Method: http.MethodPost})
	require.NoError(t, err)
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	return answer{status: res.StatusCode, header: res.Header, body: string(body)}
}

func (l line) ask(t *testing.T, raw string) answer {
	t.Helper()
	l.say(t, raw)
	return l.hear(t)
}

// logged is a log that may be written to while it is read.
type logged struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

// taken returns what was written since it was called last.
func (l *logged) taken() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.all.Reset()
	return l.all.String()
}

// askEarly has raw refused early. A client that is faster than net/http with what is left
// of the request before is refused the usual way, which is as good.
func (l line) askEarly(t *testing.T, s *Server, raw string) answer {
	t.Helper()
	for range 1000 {
		before := s.turnedAway.early.Load()
		if a := l.ask(t, raw); s.turnedAway.early.Load() > before {
			return a
		}
	}
	require.Fail(t, "never refused early")
	return answer{}
}

// A start that is refused before it is a request is answered as any other that is
// refused, on a connection that goes on; and nothing else is refused.
func TestEarly_AnswersAsUsual(t *testing.T) {
	var log logged
	f := &fake{count: 1}
	s := newServer(t, Config{Log: slog.New(slog.NewJSONHandler(&log, nil))}, f)
	addr, _ := run(t, s)
	start, list := post(userBase+"/start", `{"session":"a"}`), bare("GET", userBase)
	letIn(s, 0)
	l := dialLine(t, addr)
	usual := l.ask(t, start)
	assert.Zero(t, s.turnedAway.early.Load(), "whose connection it is, is not known before its first request")
	refused := l.askEarly(t, s, start)
	checkProblem(t, refused)
	assert.Contains(t, refused.body, "/problems/overloaded")
	for _, a := range []answer{refused, usual} {
		assert.Regexp(t, `^[1-5]$`, a.header.Get("Retry-After"))
		at, err := http.ParseTime(a.header.Get("Date"))
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now(), at, time.Minute)
		a.header.Del("Retry-After")
		a.header.Del("Date")
	}
	assert.Equal(t, usual, refused)
	early := s.turnedAway.early.Load()
	assert.Equal(t, 503, l.ask(t, list).status, "a list is refused as well, the usual way")
	assert.Equal(t, 200, l.ask(t, bare("POST", userBase+"/streams/abc/heartbeat", "Content-Length: 0")).status)
	assert.Equal(t, 200, l.ask(t, post(userBase+"/stop", `{}`)).status)
	assert.Len(t, f.taken(), 2)
	letIn(s, 10)
	assert.Equal(t, 200, l.ask(t, start).status)
	assert.Equal(t, early, s.turnedAway.early.Load())

	slow := s.turnedAway.slow.Load()
	counted := fmt.Sprintf("streamcount_http_requests_total{code=\"503\",method=\"POST\",route=\"%s/start\"} %d\n", base, slow-1)
	lines := ""
	require.Eventually(t, func() bool { // after they are answered
		lines += log.taken()
		text := call(s, "GET", metricsPath, "").Body.String()
		return strings.Contains(text, counted) && strings.Contains(lines, `"client":"127.0.0.1"}`) &&
			strings.Contains(text, fmt.Sprintf(`streamcount_http_requests_shed_total{reason="slow"} %d`, slow))
	}, time.Minute, time.Millisecond, "an early one has a line that says less: %s", lines)
}

// However starts arrive, each is answered, in turn.
func TestEarly_PiecesAndHeaps(t *testing.T) {
	s := newServer(t, Config{Log: slog.New(slog.DiscardHandler)}, &fake{count: 1})
	addr, _ := run(t, s)
	letIn(s, 0)
	start, stop := post(userBase+"/start", `{"session":"a"}`), post(userBase+"/stop", `{}`)
	for name, parts := range map[string][]string{
		"two at once": {start + start}, "with a stop": {start + stop, stop + start}, "a stop after": {start, stop},
		"two pieces": {start[:20], start[20:]}, "its body later": {start[:len(start)-15], start[len(start)-15:], start},
		"the next's beginning": {start + start[:30], start[30:]},
		"more than a buffer":   {strings.Repeat(start, 40)},
		"large":                {post(userBase+"/start", `{"session":"`+strings.Repeat("a", 5000)+`"}`), start},
	} {
		t.Run(name, func(t *testing.T) {
			l := dialLine(t, addr)
			assert.Equal(t, 200, l.ask(t, stop).status)
			go func() {
				for _, part := range parts {
					_, _ = io.WriteString(l, part) // what it does not say is not answered
				}
			}()
			all := strings.Join(parts, "")
			for range strings.Count(all, " HTTP/1.1\r\n") {
				want := 200
				if strings.HasPrefix(all, "POST "+userBase+"/start") {
					want = 503
				}
				assert.Equal(t, want, l.hear(t).status)
				_, all, _ = strings.Cut(all, " HTTP/1.1\r\n")
				all = all[max(0, strings.Index(all, "POST ")):]
			}
			assert.Equal(t, 200, l.ask(t, stop).status)
		})
	}
}

// Pages of other origins may read it, and whoever may not is told the same.
func TestEarly_Origins(t *testing.T) {
	const page = "https://app.example"
	s := newServer(t, Config{Log: slog.New(slog.DiscardHandler), Edge: Edge{Origins: []string{page}}}, &fake{count: 1})
	addr, _ := run(t, s)
	letIn(s, 0)
	l := dialLine(t, addr)
	for range 10 {
		a := l.ask(t, post(userBase+"/start", `{}`, "Origin: "+page))
		assert.Equal(t, page, a.header.Get("Access-Control-Allow-Origin"))
	}
	assert.Zero(t, s.turnedAway.early.Load())
	a := l.askEarly(t, s, post(userBase+"/start", `{}`))
	assert.Equal(t, 503, a.status)
	assert.Equal(t, "Origin", a.header.Get("Vary"))
}

func TestEarly_TLS(t *testing.T) {
	cert, pool := selfSigned(t)
	s := newServer(t, Config{Log: slog.New(slog.DiscardHandler), Edge: Edge{
		TLS: &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12},
	}}, &fake{count: 1})
	addr, _ := run(t, s)
	letIn(s, 0)
	for _, h2 := range []bool{true, false} {
		c := tlsClient(t, pool, h2)
		for i := 0; i < 10 || !h2 && i < 1000 && s.turnedAway.early.Load() == 0; i++ {
			res, err := c.Post("https://"+addr+userBase+"/start", "application/json", nil)
			require.NoError(t, err)
			_, err = io.Copy(io.Discard, res.Body)
			require.NoError(t, err)
			require.NoError(t, res.Body.Close())
			assert.Equal(t, 503, res.StatusCode)
			assert.Equal(t, problemType, res.Header.Get("Content-Type"))
		}
		assert.Equal(t, !h2, s.turnedAway.early.Load() > 0, "HTTP/2 %v", h2)
	}
}

// readDeadlines notes the last deadline for reading.
type readDeadlines struct {
	net.Conn
	last time.Time
}

func (r *readDeadlines) SetReadDeadline(at time.Time) error {
	r.last = at
	return r.Conn.SetReadDeadline(at)
}

// What net/http set for the request before does not end a connection on which starts
// are refused.
func TestEarly_SetsDeadlines(t *testing.T) {
	ours, theirs := net.Pipe()
	defer ours.Close()
	defer theirs.Close()
	s := newServer(t, Config{Log: slog.New(slog.DiscardHandler)}, &fake{})
	letIn(s, 0)
	require.NoError(t, theirs.SetDeadline(time.Now().Add(30*time.Second)))
	reads := &readDeadlines{Conn: ours}
	c := &tapConn{Conn: reads, early: s.newEarly()}
	c.scan.feed([]byte(bare("GET", userBase)))
	in, p := bufio.NewReader(theirs), make([]byte, 4096)
	for range 3 { // in less than the time for which deadlines are left as they are
		require.NoError(t, c.SetWriteDeadline(time.Now().Add(-time.Second)))
		go func() {
			_, _ = io.WriteString(theirs, post(userBase+"/start", "")) // what it does not say is not answered
			_, _ = io.WriteString(theirs, bare("GET", userBase))
		}()
		read := make(chan string)
		go func() {
			n, _ := c.Read(p) // as much as came
			read <- string(p[:n])
		}()
		res, err := http.ReadResponse(in, nil)
		require.NoError(t, err)
		assert.Equal(t, 503, res.StatusCode)
		_, err = io.Copy(io.Discard, res.Body)
		require.NoError(t, err)
		assert.Equal(t, bare("GET", userBase), <-read)
		assert.WithinDuration(t, time.Now().Add(idleTimeout), reads.last, idleTimeout/2)
		reads.last = time.Time{}
	}
	c.scan.feed([]byte("\r\n"))
	assert.False(t, c.scan.between(), "an empty line is a beginning")
}

// Starts that come from all sides are each admitted or refused, while that changes.
func TestEarly_ManyAtOnce(t *testing.T) {
	s := newServer(t, Config{Log: slog.New(slog.DiscardHandler)}, &fake{count: 1})
	addr, _ := run(t, s)
	seen := make([][600]int, 8)
	var all sync.WaitGroup
	for i := range 8 {
		l := dialLine(t, addr)
		all.Go(func() {
			for k := range 200 {
				letIn(s, k%2*10)
				if _, err := io.WriteString(l, post(userBase+"/start", `{"session":"a"}`)); err != nil {
					return
				}
				res, err := http.ReadResponse(l.in, nil)
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, res.Body) // or the next answer is none
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
	assert.Equal(t, int64(counts[503]), s.turnedAway.slow.Load())
}

func TestPlainStart(t *testing.T) {
	for _, raw := range []string{
		post(userBase+"/start", `{}`), bare("POST", userBase+"/start"), bare("POST", userBase+"/start", "Content-Length: 0"),
		post(userBase+"/start", `{}`, "connection: Keep-Alive", "Authorization: Bearer abc", "User-Agent: x (y; z)", "X-Empty:"),
	} {
		assert.True(t, plainStart([]byte(raw)), raw)
		for cut := range raw {
			assert.False(t, plainStart([]byte(raw[:cut])) && strings.Contains(raw, "Length"), raw[:cut])
		}
		assert.False(t, plainStart([]byte(raw+"G")), raw)
	}
	for _, raw := range []string{
		"", "\r\n" + post(userBase+"/start", `{}`), post(userBase+"/stop", `{}`), bare("GET", userBase+"/start"),
		post(userBase+"/start?x=1", `{}`), post(userBase+"/start/", `{}`), post("/api/v1/streams/users//start", `{}`),
		post("/api/v1/streams/users/./start", `{}`), post("/api/v1/streams/users/../start", `{}`),
		post("/api/v1/streams/users/a%2fb/start", `{}`), post("/api/v1/streams/users/a b/start", `{}`),
		post("/api/v1/streams/users/maya/x/start", `{}`), post("http://x"+userBase+"/start", `{}`),
		strings.Replace(post(userBase+"/start", `{}`), "HTTP/1.1", "HTTP/1.0", 1),
		strings.Replace(post(userBase+"/start", `{}`), "Host: x\r\n", "", 1),
		strings.ReplaceAll(post(userBase+"/start", `{}`), "\r\n", "\n"),
		post(userBase+"/start", `{}`, "Host: y"), post(userBase+"/start", `{}`, "Content-Length: 2"),
		post(userBase+"/start", `{}`, "Connection: close"), post(userBase+"/start", `{}`, "Connection: upgrade"),
		post(userBase+"/start", `{}`, "Expect: 100-continue"), post(userBase+"/start", `{}`, "Origin: https://a.example"),
		post(userBase+"/start", `{}`, "Traceparent: 00-1-2-01"), post(userBase+"/start", `{}`, "transfer-encoding: chunked"),
		post(userBase+"/start", `{}`, "Transfer-Encoding : chunked"), post(userBase+"/start", `{}`, " folded: x"),
		post(userBase+"/start", `{}`, "X: a\rTransfer-Encoding: chunked"), post(userBase+"/start", `{}`, "X: \x00"),
		post(userBase+"/start", `{}`, "no colon"), post(userBase+"/start", `{}`, ": x"), post(userBase+"/start", `{}`, "X_\u00e4: x"),
		bare("POST", userBase+"/start", "Content-Length: -1"), bare("POST", userBase+"/start", "Content-Length: +0"),
		bare("POST", userBase+"/start", "Content-Length: 0x0"), bare("POST", userBase+"/start", "Content-Length:"),
		bare("POST", userBase+"/start", "Upgrade: websocket"), bare("POST", userBase+"/start", "Trailer: X"),
	} {
		assert.False(t, plainStart([]byte(raw)), raw)
	}
}

// What a refusal takes early, and the usual way: a round trip over loopback, with the
// work of the client.
func BenchmarkRefusal(b *testing.B) {
	s, err := New(Config{Log: slog.New(slog.DiscardHandler)})
	require.NoError(b, err)
	s.Use(Backend{Limiter: &fake{count: 1}})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(b, err)
	ctx, stop := context.WithCancel(b.Context())
	var served sync.WaitGroup
	served.Go(func() { _ = s.Run(ctx, ln) }) // it ends because it is told to
	defer served.Wait()
	defer stop()
	letIn(s, 0)
	early := post(userBase+"/start", `{"session":"a","device":{"id":"b8d0","type":"tv"}}`)
	for _, c := range []struct{ name, raw string }{
		{"early", early}, {"usual", strings.ReplaceAll(early, "/maya/", "/m%61ya/")},
	} {
		b.Run(c.name, func(b *testing.B) {
			conn, err := net.Dial("tcp", ln.Addr().String())
			require.NoError(b, err)
			defer conn.Close()
			answer := make([]byte, 4096)
			for b.Loop() {
				_, err := io.WriteString(conn, c.raw)
				require.NoError(b, err)
				n, err := conn.Read(answer)
				require.NoError(b, err)
				require.Contains(b, string(answer[:n]), " 503 ")
			}
		})
	}
}
