package client

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
)

// FuzzEvents checks that the events do not depend on how their bytes are split.
func FuzzEvents(f *testing.F) {
	f.Add([]byte("id: a1\ndata: {\"type\":\"start\",\"userId\":\"maya\"}\n\n: ping\nid: a2\n\n"))
	f.Add([]byte("data: {\"type\":\"gap\",\r\ndata: \"at\":\"2026-01-02T03:04:05.678Z\"}\r\n\r\n"))
	f.Add([]byte("event: x\nretry: 5\ndata\n\ndata: [\n\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		read := func(r io.Reader) (events []Event, cursor string, said error) {
			ef := eventFollower{yield: func(e Event, _ error) bool {
				events = append(events, e)
				return true
			}}
			lines := 0
			said = ef.read(r, func() { lines++ })
			require.LessOrEqual(t, lines, bytes.Count(body, []byte("\n"))+1)
			return events, ef.opts.After, said
		}
		events, cursor, said := read(bytes.NewReader(body))
		require.Error(t, said, "an event stream ends only with an error")
		require.LessOrEqual(t, len(events), bytes.Count(body, []byte("data")))
		slowly, at, also := read(iotest.OneByteReader(bytes.NewReader(body)))
		require.Equal(t, events, slowly)
		require.Equal(t, cursor, at)
		require.EqualError(t, also, said.Error())
	})
}

// FuzzAnswer checks that each answer is decoded or an error, and that waits are bounded.
func FuzzAnswer(f *testing.F) {
	f.Add(200, "application/json", "", []byte(`{"userId":"maya","streams":1,"limit":3,"stream":{"id":"x"}}`))
	f.Add(403, "application/problem+json", "7", []byte(`{"title":"limit","status":403,"limit":3,"active":[{"id":"x"}]}`))
	f.Add(410, "application/problem+json; charset=utf-8", "Wed, 21 Oct 2015 07:28:00 GMT", []byte(`{"reason":"evicted","by":{}}`))
	f.Add(503, "text/html", "-1", []byte("<html>"))
	f.Fuzz(func(t *testing.T, status int, media, after string, body []byte) {
		resp := &http.Response{StatusCode: status, Header: http.Header{"Content-Type": {media}, "Retry-After": {after}}}
		require.GreaterOrEqual(t, parseRetryAfter(after), time.Duration(0))
		if status == http.StatusOK {
			var u apitype.User
			_ = decode(resp, body, &u)
			return
		}
		require.Error(t, refusal(resp, body))
	})
}
