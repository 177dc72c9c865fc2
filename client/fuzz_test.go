package client

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
)

// Whatever an answer says, it is understood or an error; and what a server asks a
// client to wait is within reason.
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
