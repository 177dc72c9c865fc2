package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
)

// A listener is one client that follows events over a connection of its own.
type listener struct {
	t    *testing.T
	resp *http.Response
	in   *bufio.Reader
}

func listen(t *testing.T, addr, query, after string) *listener {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/api/v1/events"+query, nil)
	require.NoError(t, err)
	if after != "" {
		req.Header.Set("Last-Event-ID", after)
	}
	transport := &http.Transport{}
	resp, err := transport.RoundTrip(req)
	require.NoError(t, err)
	t.Cleanup(func() { resp.Body.Close(); transport.CloseIdleConnections() })
	return &listener{t, resp, bufio.NewReader(resp.Body)}
}

// block reads up to the next empty line: one event, or a sign of life.
func (l *listener) block() (map[string]string, error) {
	out := map[string]string{}
	for {
		text, err := l.in.ReadString('\n')
		if err != nil {
			return out, err
		}
		text = strings.TrimSuffix(text, "\n")
		if text == "" {
			return out, nil
		}
		name, value, ok := strings.Cut(text, ": ")
		require.True(l.t, ok, text)
		out[name] = value
	}
}

// mark reads on until the server says where it stands.
func (l *listener) mark() string {
	l.t.Helper()
	for {
		b, err := l.block()
		require.NoError(l.t, err)
		if _, data := b["data"]; !data && b["id"] != "" {
			return b["id"]
		}
	}
}

// event reads the next event, and its id.
func (l *listener) event() (apitype.Event, string) {
	l.t.Helper()
	for {
		b, err := l.block()
		require.NoError(l.t, err)
		data, ok := b["data"]
		if !ok {
			continue
		}
		var e apitype.Event
		require.NoError(l.t, json.Unmarshal([]byte(data), &e), data)
		require.Equal(l.t, b["event"], e.Type)
		return e, b["id"]
	}
}

func TestEvents_OverHTTP(t *testing.T) {
	s := newService(t, 1)
	addr, _ := run(t, s.server)
	all, ben := listen(t, addr, "", ""), listen(t, addr, "?user=ben", "")
	for _, l := range []*listener{all, ben} {
		require.Equal(t, 200, l.resp.StatusCode)
		assert.Equal(t, "text/event-stream", l.resp.Header.Get("Content-Type"))
		assert.Equal(t, "no", l.resp.Header.Get("X-Accel-Buffering"))
		assert.Equal(t, "no-store", l.resp.Header.Get("Cache-Control"))
	}
	start, first := all.mark(), ben.mark()
	u := s.start(`{"session":"tab","device":{"name":"<TV>\n\u2028"},"content":{"title":"Metropolis"}}`)
	got, id := all.event()
	assert.WithinDuration(t, time.Now(), got.At.Time, time.Minute)
	assert.Positive(t, got.Revision)
	require.NotNil(t, got.Stream)
	assert.Equal(t, *u.Stream.StartedAt, *got.Stream.StartedAt)
	got.Stream.StartedAt, u.Stream.StartedAt, u.Stream.ExpiresAt = nil, nil, nil
	assert.Equal(t, apitype.Event{
		Type: "start", At: got.At, Revision: got.Revision, UserID: "maya", Streams: 1, Limit: 1, Stream: u.Stream,
	}, got)
	s.problem("POST", userBase+"/start", "", 403)
	got, _ = all.event()
	assert.Equal(t, []any{"refusal", "maya", 1, 1}, []any{got.Type, got.UserID, got.Streams, got.Limit})
	var other apitype.User
	s.do("POST", "/api/v1/streams/users/ben/start", "", 200, &other)
	got, _ = ben.event()
	assert.Equal(t, []any{"start", "ben"}, []any{got.Type, got.UserID})
	s.start(`{"session":"tab","device":{"name":"Phone"}}`)
	_, _ = all.event()
	got, _ = all.event()
	assert.Equal(t, []any{"stop", "replaced", "Phone"}, []any{got.Type, got.Reason, got.By.Device.Name})

	// From where each began, and from an event: exactly the rest.
	for _, again := range []struct{ query, after, first string }{
		{"?after=" + start, "", "start maya"}, {"?after=" + start, id, "refusal maya"}, {"?user=ben", first, "start ben"},
	} {
		got, _ := listen(t, addr, again.query, again.after).event()
		assert.Equal(t, again.first, got.Type+" "+got.UserID)
	}
}

func TestEvents_BadInputAndHead(t *testing.T) {
	s := withFeed(newServer(t, Config{}, &fake{}))
	for target, status := range map[string]int{
		"/api/v1/events?after=x": 422, "/api/v1/events?user=a%2Fb": 422, "/api/v1/events?limit=1": 422,
		"/api/v1/events?user=a&user=b": 422, "/api/v1/events?a=1;b=2": 400, "/api/v1/events?after=1&after=2": 422,
	} {
		assert.Equal(t, status, call(s, "GET", target, "").Code, target)
	}
	w := call(s, "GET", "/api/v1/events", "", "Last-Event-ID", "<script>")
	assert.Equal(t, 422, w.Code)
	assert.NotContains(t, w.Body.String(), "<script>")
	w = call(s, "HEAD", "/api/v1/events", "")
	assert.Equal(t, 200, w.Code)
	assert.Equal(t, "text/event-stream", w.Header().Get("Content-Type"))
	assert.Equal(t, 405, call(s, "POST", "/api/v1/events", "").Code)

	bare := newServer(t, Config{}, nil)
	w = call(bare, "GET", "/api/v1/events", "")
	assert.Equal(t, 503, w.Code)
	assert.NotEmpty(t, w.Header().Get("Retry-After"))
}

// Beyond the bound 503, and a place that came free is given to the next.
func TestEvents_AreBounded(t *testing.T) {
	s := withFeed(newServer(t, Config{MaxInFlight: 12}, &fake{}))
	addr, _ := run(t, s)
	var held []*listener
	for range 3 {
		l := listen(t, addr, "", "")
		l.mark()
		held = append(held, l)
	}
	status, body := get(t, addr, "/api/v1/events")
	assert.Equal(t, 503, status)
	assert.Contains(t, body, "3 clients")
	status, _ = get(t, addr, "/api/v1/stats")
	assert.Equal(t, 200, status, "other calls are none of it")
	held[1].resp.Body.Close()
	require.Eventually(t, func() bool { return len(s.events.slots) == 2 }, time.Minute, time.Millisecond)
	listen(t, addr, "", "").mark()
}

// A stream outlives the server's bounds on reading and writing, says a word now and
// then, and ends with the node, which does not wait for it.
func TestEvents_LiveLongAndDrain(t *testing.T) {
	s := withFeed(newServer(t, Config{Drain: 20 * time.Second}, &fake{}))
	s.events.beat = 20 * time.Millisecond
	addr, stop := run(t, s)
	l := listen(t, addr, "", "")
	srv := s.httpServer(t.Context())
	assert.Less(t, srv.ReadTimeout, 11*time.Second)
	began, last := time.Now(), ""
	for time.Since(began) < srv.ReadTimeout+time.Second {
		last = l.mark()
	}
	began = time.Now()
	require.NoError(t, stop())
	assert.Less(t, time.Since(began), 10*time.Second)
	for {
		if _, err := l.block(); err != nil {
			assert.Equal(t, io.EOF, err, "a clean end")
			break
		}
	}
	assert.NotEmpty(t, last)
	w := call(s, "GET", "/api/v1/events", "")
	assert.Equal(t, 503, w.Code, "not while it drains")
}

// A client that does not read is cut off; meanwhile the others hear everything, and
// one that only lags is told of the gap.
func TestEvents_ASlowReader(t *testing.T) {
	s := newService(t, 60)
	s.server.events.patient = 200 * time.Millisecond
	addr := runNarrow(t, s.server)
	stuck, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer stuck.Close()
	require.NoError(t, stuck.(*net.TCPConn).SetReadBuffer(1024))
	_, err = fmt.Fprintf(stuck, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	require.NoError(t, err)
	quick := listen(t, addr, "", "")
	quick.mark()
	require.Eventually(t, func() bool { return len(s.server.events.slots) == 2 }, time.Minute, time.Millisecond)
	title := strings.Repeat("x", 200)
	body := fmt.Sprintf(`{"content":{"title":%q,"id":%q},"device":{"name":%q,"id":%q,"type":%q}}`, title, title, title, title, title)
	for n := 1; len(s.server.events.slots) == 2; n++ {
		s.do("POST", fmt.Sprintf("/api/v1/streams/users/user-%d/start", n), body, 200, &apitype.User{})
		got, _ := quick.event()
		require.Equal(t, fmt.Sprint("user-", n), got.UserID)
		require.Less(t, n, 2000, "it was not cut off")
	}
}

// A narrow listener's connections hold little that nobody reads.
type narrow struct{ net.Listener }

func (n narrow) Accept() (net.Conn, error) {
	c, err := n.Listener.Accept()
	if err == nil {
		err = c.(*net.TCPConn).SetWriteBuffer(4096)
	}
	return c, err
}

func runNarrow(t *testing.T, s *Server) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, narrow{ln}) }()
	t.Cleanup(func() {
		cancel()
		require.NoError(t, <-done)
	})
	return ln.Addr().String()
}

// What happened while a client was away too long is a gap, over HTTP as well.
func TestEvents_AGap(t *testing.T) {
	s := newService(t, 3)
	addr, _ := run(t, s.server)
	l := listen(t, addr, "", "1")
	got, id := l.event()
	assert.Equal(t, "gap", got.Type)
	assert.NotEmpty(t, got.Detail)
	s.start("")
	got, _ = listen(t, addr, "", id).event()
	assert.Equal(t, "start", got.Type, "a gap is told once")
}

// Streams that have ended leave nothing behind.
func TestEvents_LeaveNothingBehind(t *testing.T) {
	s := withFeed(newServer(t, Config{}, &fake{}))
	addr, _ := run(t, s)
	listen(t, addr, "", "").mark() // the server is up, with all that it does beside
	before := runtime.NumGoroutine()
	var all []*listener
	for range 20 {
		l := listen(t, addr, "", "")
		l.mark()
		all = append(all, l)
	}
	assert.Greater(t, runtime.NumGoroutine(), before+20)
	for _, l := range all {
		l.resp.Body.Close()
	}
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+2 && len(s.events.slots) == 1 },
		time.Minute, 10*time.Millisecond)
}
