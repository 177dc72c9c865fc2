package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/access"
	"streamcount/api/apitype"
	"streamcount/api/internal/overload"
	"streamcount/internal/testing/longtest"
)

// A listener is one client that follows events over a separate connection.
type listener struct {
	t    *testing.T
	resp *http.Response
	in   *bufio.Reader
}

func listen(t *testing.T, addr, query, after string) *listener {
	t.Helper()
	return listenWith(t, addr, query, "Last-Event-ID", after)
}

// listenAs follows all events as a caller of callers.
func listenAs(t *testing.T, addr, as string, header ...string) *listener {
	t.Helper()
	return listenWith(t, addr, "", append(header, asHeader, as)...)
}

func listenWith(t *testing.T, addr, query string, header ...string) *listener {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/api/v1/events"+query, nil)
	require.NoError(t, err)
	for i := 0; i < len(header); i += 2 {
		if header[i+1] != "" {
			req.Header.Set(header[i], header[i+1])
		}
	}
	transport := &http.Transport{}
	resp, err := transport.RoundTrip(req)
	require.NoError(t, err)
	t.Cleanup(func() { resp.Body.Close(); transport.CloseIdleConnections() })
	return &listener{t, resp, bufio.NewReader(resp.Body)}
}

// block reads up to the next empty line: an event or a keep-alive.
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

// mark skips events until the next keep-alive, and returns its cursor.
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

// event returns the next event and its id.
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

	// A cursor from the beginning or from an event continues with the next event.
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
		"/api/v1/events?after=x": 422, "/api/v1/events?user=a%00b": 422, "/api/v1/events?limit=1": 422,
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

// Event streams beyond the limit are answered 503, until another one has ended.
func TestEvents_AreLimited(t *testing.T) {
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
	assert.Contains(t, body, overload.EventStreams.Row().Detail)
	status, _ = get(t, addr, "/api/v1/stats")
	assert.Equal(t, 200, status, "other calls are not affected")
	held[1].resp.Body.Close()
	require.Eventually(t, func() bool { return s.load.EventStreams() == 2 }, time.Minute, time.Millisecond)
	listen(t, addr, "", "").mark()
}

// An event stream continues beyond the server's timeouts for reads and writes, and sends
// keep-alives. It ends when the node drains, which does not wait for the clients.
func TestEvents_OutlastTimeoutsAndDrain(t *testing.T) {
	longtest.Require(t)
	s := withFeed(newServer(t, Config{Drain: 2 * patience}, &fake{}))
	s.events.KeepAliveInterval = 20 * time.Millisecond
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
	assert.Less(t, time.Since(began), patience, "the drain does not wait for clients")
	for {
		if _, err := l.block(); err != nil {
			assert.Equal(t, io.EOF, err, "the response ends without an error")
			break
		}
	}
	assert.NotEmpty(t, last)
	w := call(s, "GET", "/api/v1/events", "")
	assert.Equal(t, 503, w.Code, "the node is draining")
}

// A client that does not read is disconnected. Other clients receive all events.
func TestEvents_SlowReader(t *testing.T) {
	s := newService(t, 60)
	s.server.events.WriteTimeout = 200 * time.Millisecond
	addr := runNarrow(t, s.server)
	stuck, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer stuck.Close()
	require.NoError(t, stuck.(*net.TCPConn).SetReadBuffer(1024))
	_, err = fmt.Fprintf(stuck, "GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	require.NoError(t, err)
	quick := listen(t, addr, "", "")
	quick.mark()
	require.Eventually(t, func() bool { return s.server.load.EventStreams() == 2 }, time.Minute, time.Millisecond)
	title := strings.Repeat("x", 200)
	body := fmt.Sprintf(`{"content":{"title":%q,"id":%q},"device":{"name":%q,"id":%q,"type":%q}}`, title, title, title, title, title)
	for n := 1; s.server.load.EventStreams() == 2; n++ {
		s.do("POST", fmt.Sprintf("/api/v1/streams/users/user-%d/start", n), body, 200, &apitype.User{})
		got, _ := quick.event()
		require.Equal(t, fmt.Sprint("user-", n), got.UserID)
		require.Less(t, n, 2000, "it was not disconnected")
	}
}

// The connections of a narrow listener have a small send buffer.
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

// A client whose cursor is too old receives a gap event over HTTP.
func TestEvents_Gap(t *testing.T) {
	s := newService(t, 3)
	addr, _ := run(t, s.server)
	l := listen(t, addr, "", "1")
	got, id := l.event()
	assert.Equal(t, "gap", got.Type)
	assert.NotEmpty(t, got.Detail)
	s.start("")
	got, _ = listen(t, addr, "", id).event()
	assert.Equal(t, "start", got.Type, "a gap is reported once")
}

// Event streams that have ended leave no goroutine and no slot occupied.
func TestEvents_LeaveNoGoroutine(t *testing.T) {
	s := withFeed(newServer(t, Config{}, &fake{}))
	addr, _ := run(t, s)
	listen(t, addr, "", "").mark() // the background goroutines of the server are running
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
	require.Eventually(t, func() bool { return runtime.NumGoroutine() <= before+2 && s.load.EventStreams() == 1 },
		time.Minute, 10*time.Millisecond)
}

// A changingAccess is an Access whose callers can be changed.
type changingAccess struct {
	mu  sync.Mutex
	now byHeader
	err error
}

func (a *changingAccess) Authenticate(r *http.Request) (access.Caller, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.err != nil {
		return access.Caller{}, a.err
	}
	return a.now.Authenticate(r)
}

func (a *changingAccess) set(now byHeader, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now, a.err = now, err
}

// An event stream ends soon after its key is revoked or loses its rights. It continues while
// credentials cannot be checked.
func TestEvents_EndWithTheCredential(t *testing.T) {
	for name, next := range map[string]struct {
		now  byHeader
		err  error
		ends bool
	}{
		"revoked":       {err: access.ErrCredential, ends: true},
		"gone":          {now: byHeader{}, ends: true},
		"fewer rights":  {now: byHeader{"reader": {Kind: access.Scraper, Name: "reports"}}, ends: true},
		"another":       {now: byHeader{"reader": {Kind: access.Reader, Name: "other"}}, ends: true},
		"unavailable":   {err: access.ErrUnavailable},
		"the same":      {now: callers},
		"others change": {now: byHeader{"reader": callers["reader"]}},
	} {
		t.Run(name, func(t *testing.T) {
			who := &changingAccess{now: callers}
			s := newServiceWith(t, 3, Config{Access: who})
			s.server.events.RecheckInterval, s.server.events.KeepAliveInterval = 5*time.Millisecond, 20*time.Millisecond
			addr, _ := run(t, s.server)
			l := listenAs(t, addr, "reader")
			l.mark()
			who.set(next.now, next.err)
			ended := false
			for began := time.Now(); !ended && time.Since(began) < 30*time.Second; {
				_, err := l.block()
				if ended = err != nil; !ended && !next.ends && time.Since(began) > 200*time.Millisecond {
					break
				}
			}
			assert.Equal(t, next.ends, ended)
		})
	}
}

// A query is decoded once, in the way of HTML forms.
func TestEventQuery_User(t *testing.T) {
	for query, want := range map[string]string{
		"a%2Bb@x.example": "a+b@x.example", "a+b": "a b", "tom%2Fadmin": "tom/admin", "tom%252Fadmin": "tom%2Fadmin", "m%C3%BCller": "müller",
	} {
		user, _, p := eventQuery(httptest.NewRequest(http.MethodGet, "/api/v1/events?user="+query, nil))
		assert.Nil(t, p)
		assert.Equal(t, want, user)
	}
}
