package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
)

// eventServer answers each connection with the next of its scripts, and records the requests.
func eventServer(t *testing.T, scripts ...func(http.ResponseWriter, *http.Request)) (*Client, *[]string) {
	t.Helper()
	asked := &[]string{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.URL.RequestURI()+" after "+r.Header.Get("Last-Event-ID"))
		script := scripts[min(len(*asked), len(scripts))-1]
		script(w, r)
	}))
	t.Cleanup(server.Close)
	c, err := New(Config{Server: server.URL, Credential: "key"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close(context.Background())) })
	return c, asked
}

// say returns a connection that sends text and ends.
func say(text string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = fmt.Fprint(w, text)
	}
}

func refuseWith(status int) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(status) }
}

func TestEvents_ContinueAfterTheLastReceived(t *testing.T) {
	c, asked := eventServer(t,
		say(": hello\n\nid: 7\nevent: start\ndata: {\"type\":\"start\",\"userId\":\"maya\",\"news\":1}\n\nid: 8\nevent: stop\ndata: {\"type\":\"stop"),
		refuseWith(503),
		say("id: 9\r\nevent: stop\r\ndata: {\"type\":\"stop\",\r\ndata: \"reason\":\"evicted\"}\r\n\r\nid: 12\n\n"),
		say("id:13\ndata:{\"type\":\"gap\"}\n\n"),
	)
	var got []string
	var notices []bool
	w := EventOptions{User: "a|b", OnConnection: func(lost error) { notices = append(notices, lost == nil) }}
	for e, err := range c.Events(t.Context(), w) {
		require.NoError(t, err)
		got = append(got, e.Cursor+" "+e.Type+" "+e.UserID+e.Reason)
		if e.Type == apitype.EventGap {
			break
		}
	}
	assert.Equal(t, []string{"7 start maya", "9 stop evicted", "13 gap "}, got)
	assert.Equal(t, []string{
		"/api/v1/events?user=a%7Cb after ", "/api/v1/events?user=a%7Cb after 7",
		"/api/v1/events?user=a%7Cb after 7", "/api/v1/events?user=a%7Cb after 12",
	}, *asked)
	assert.Equal(t, []bool{true, false, false, true, false, true}, notices)
}

func TestEvents_EndWithAPermanentError(t *testing.T) {
	for _, status := range []int{401, 403, 404, 422} {
		c, asked := eventServer(t, refuseWith(status))
		n := 0
		for _, err := range c.Events(t.Context(), EventOptions{}) {
			n++
			p, ok := errors.AsType[*ProblemError](err)
			require.True(t, ok, "%v", err)
			assert.Equal(t, status, p.Problem.Status)
		}
		assert.Equal(t, 1, n)
		assert.Len(t, *asked, 1)
	}
	c, asked := eventServer(t, say(""))
	for _, err := range c.Events(t.Context(), EventOptions{User: "a\n"}) {
		assert.ErrorIs(t, err, ErrInvalid)
	}
	require.NoError(t, c.Close(t.Context()))
	for _, err := range c.Events(t.Context(), EventOptions{}) {
		assert.ErrorIs(t, err, ErrClosed)
	}
	assert.Empty(t, *asked)
}

// The size of an event is limited.
func TestEvents_BoundsAnEvent(t *testing.T) {
	f := eventFollower{yield: func(Event, error) bool { t.Error("nothing was said to its end"); return true }}
	line := "data: " + strings.Repeat(" ", 1<<16) + "\n"
	lines := 0
	err := f.read(strings.NewReader(strings.Repeat(line, 64)+"\n"), func() { lines++ })
	require.ErrorIs(t, err, errUnreadable)
	assert.LessOrEqual(t, lines, maxEvent>>16+1)
}

func TestEvents_EndsWithItsContext(t *testing.T) {
	c, _ := eventServer(t, func(w http.ResponseWriter, r *http.Request) {
		say("id: 1\ndata: {\"type\":\"start\"}\n\n")(w, r)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	var last error
	for _, err := range c.Events(ctx, EventOptions{}) {
		last = err
		cancel()
	}
	assert.ErrorIs(t, last, context.Canceled)
}

func TestStats_Paths(t *testing.T) {
	c, asked := eventServer(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprint(w, `{"everySeconds":10,"more":true,"partial":true,"users":[{"userId":"maya","streams":2,"limit":3}]}`)
	})
	h, err := c.History(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 10, h.EverySeconds)
	con, err := c.Concurrency(t.Context())
	require.NoError(t, err)
	assert.True(t, con.Partial)
	_, err = c.TopUsers(t.Context(), "", 0)
	require.NoError(t, err)
	b, err := c.TopUsers(t.Context(), "a+b", 5)
	require.NoError(t, err)
	assert.Equal(t, apitype.TopUsers{Users: []apitype.TopUser{{UserID: "maya", Streams: 2, Limit: 3}}, More: true}, b)
	assert.Equal(t, []string{
		"/api/v1/stats/history after ", "/api/v1/stats/concurrency after ", "/api/v1/streams/users after ",
		"/api/v1/streams/users?max=5&prefix=a%2Bb after ",
	}, *asked)
}
