package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/lease"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
	"streamcount/lease/userdata"
)

var update = flag.Bool("update", false, "rewrite testdata")

// An exchange is one request, and the results of the limiter.
type exchange struct {
	about  string
	method string
	target string
	body   string
	header []string
	fake   fake
}

const (
	userBase   = "/api/v1/streams/users/maya"
	dataOfMaya = "/api/v1/data/users/maya"
)

var limitError = &lease.LimitError{
	Limit: 1, Active: []lease.Stream{someStream()}, RetryAfter: 41500 * time.Millisecond,
}

// goldens returns the exchanges by file. Together they have every status and every field of
// the wire contract.
func goldens() map[string][]exchange {
	return map[string][]exchange{
		"user": {
			{about: "a user with a stream", method: "GET", target: userBase, fake: fake{count: 1}},
			{about: "a user with a stream of the edge", method: "GET", target: userBase, fake: fake{count: 1, via: "edge:vod"}},
			{about: "a user without", method: "GET", target: userBase, fake: fake{err: lease.ErrNoStreams}},
			{about: "end all streams", method: "DELETE", target: userBase},
			{about: "end all of none", method: "DELETE", target: userBase, fake: fake{err: lease.ErrNoStreams}},
			{about: "not a user", method: "GET", target: "/api/v1/streams/users/ma%09ya"},
			{about: "a user id the limiter refuses", method: "GET", target: userBase, fake: fake{err: lease.ErrBadUser}},
		},
		"data": {
			{about: "everything about a user", method: "GET", target: dataOfMaya},
			{about: "erase it", method: "DELETE", target: dataOfMaya},
			{about: "nothing to export", method: "GET", target: dataOfMaya, fake: fake{err: userdata.ErrNoData}},
			{about: "nothing to erase", method: "DELETE", target: dataOfMaya, fake: fake{err: userdata.ErrNoData}},
			{about: "not known whether erased", method: "DELETE", target: dataOfMaya, fake: fake{err: lease.ErrUnavailable}},
			{about: "not a user", method: "DELETE", target: "/api/v1/data/users/ma%09ya"},
		},
		"end": {
			{about: "some of the streams of all users", method: "POST", target: "/api/v1/streams/end", body: `{"where":{"content.id":"film-77","labels.tier":{"not":["paid"]}}}`},
			{about: "a dry run", method: "POST", target: "/api/v1/streams/end", body: `{"where":{"region":["eu",""]},"dryRun":true,"max":2}`},
			{about: "without a condition", method: "POST", target: "/api/v1/streams/end", body: `{"where":{}}`},
			{about: "without conditions", method: "POST", target: "/api/v1/streams/end", body: `{}`},
			{about: "a misspelled attribute, and no value", method: "POST", target: "/api/v1/streams/end", body: `{"where":{"content.ids":"film-77","region":[]}}`},
			{about: "not a condition", method: "POST", target: "/api/v1/streams/end", body: `{"where":{"region":{"only":"eu"}}}`},
			{about: "etcd is away", method: "POST", target: "/api/v1/streams/end", body: `{"where":{"region":"eu"}}`, fake: fake{err: lease.ErrUnavailable}},
		},
		"start": {
			{about: "without a body", method: "POST", target: userBase + "/start", fake: fake{count: 1}},
			{about: "with all of it", method: "POST", target: userBase + "/start", fake: fake{count: 2}, body: `{
  "session": "tab-1", "replaces": "stream-0", "onLimit": "replace-oldest",
  "device": {"id": "d1", "name": "<b>TV</b>", "type": "tv"}, "content": {"id": "c1",
"title": "Metropolis"}}`},
			{about: "full", method: "POST", target: userBase + "/start", fake: fake{err: limitError}},
			{about: "full, with nothing known", method: "POST", target: userBase + "/start", fake: fake{err: lease.ErrLimit}},
			{about: "replaces another user's", method: "POST", target: userBase + "/start",
				body: `{"replaces":"theirs"}`, fake: fake{err: streamid.ErrForeign}},
			{about: "etcd is away", method: "POST", target: userBase + "/start",
				fake: fake{err: fmt.Errorf("put /secret/key: %w", lease.ErrUnavailable)}},
			{about: "our fault", method: "POST", target: userBase + "/start", fake: fake{err: errors.New("secret detail")}},
		},
		"stop": {
			{about: "the oldest heartbeat", method: "POST", target: userBase + "/stop", fake: fake{count: 1}},
			{about: "the oldest heartbeat, the last", method: "POST", target: userBase + "/stop", body: `{}`},
			{about: "none to stop", method: "POST", target: userBase + "/stop", fake: fake{err: lease.ErrNoStreams}},
			{about: "by id in the body", method: "POST", target: userBase + "/stop", body: `{"streamId":"stream-1"}`},
			{about: "empty id", method: "POST", target: userBase + "/stop", body: `{"streamId":""}`},
			{about: "by address", method: "DELETE", target: userBase + "/streams/stream-1", fake: fake{count: 2}},
			{about: "by beacon", method: "POST", target: userBase + "/streams/stream-1/stop", body: "bye",
				header: []string{"Content-Type", "text/plain;charset=UTF-8"}},
			{about: "of another user", method: "DELETE", target: userBase + "/streams/theirs",
				fake: fake{err: streamid.ErrForeign}},
			{about: "not an id", method: "DELETE", target: userBase + "/streams/zzz", fake: fake{err: streamid.ErrMalformed}},
			{about: "again", method: "DELETE", target: userBase + "/streams/stream-1",
				fake: fake{err: &lease.EndedError{Reason: policy.ReasonStopped}}},
		},
		"heartbeat": {
			{about: "alive", method: "POST", target: userBase + "/streams/stream-1/heartbeat"},
			{about: "replaced", method: "POST", target: userBase + "/streams/stream-1/heartbeat", fake: fake{
				err: &lease.EndedError{Reason: policy.ReasonReplaced, By: &lease.Replacement{
					Device: lease.Device{Name: "Phone"}, StartedAt: someTime}}}},
			{about: "gone, no longer known how", method: "POST", target: userBase + "/streams/stream-1/heartbeat",
				fake: fake{err: lease.ErrEnded}},
			{about: "too late for an answer", method: "POST", target: userBase + "/streams/stream-1/heartbeat",
				fake: fake{err: context.DeadlineExceeded}},
			{about: "many", method: "POST", target: "/api/v1/streams/heartbeats",
				body: `{"heartbeats":[{"userId":"a","streamId":"alive"},{"userId":"a","streamId":"alive"},` +
					`{"userId":"b","streamId":"degraded"},{"userId":"c","streamId":"away"},` +
					`{"userId":"d","streamId":"stopped"},{"userId":"e","streamId":"theirs"},` +
					`{"userId":"f","streamId":"bad"},{"userId":"/","streamId":"baduser"},` +
					`{"userId":"g","streamId":"bug"},{"userId":"h","streamId":"ended"}]}`,
				fake: fake{heartbeatErr: map[string]error{
					"away": lease.ErrUnavailable, "stopped": &lease.EndedError{Reason: policy.ReasonStopped},
					"theirs": streamid.ErrForeign, "bad": streamid.ErrMalformed, "baduser": lease.ErrBadUser,
					"bug": errors.New("secret detail"), "ended": lease.ErrEnded}}},
			{about: "none of many", method: "POST", target: "/api/v1/streams/heartbeats", body: `{"heartbeats":[]}`},
			{about: "no body for many", method: "POST", target: "/api/v1/streams/heartbeats"},
		},
		"node": {
			{about: "totals", method: "GET", target: "/api/v1/stats"},
			{about: "history", method: "GET", target: "/api/v1/stats/history"},
			{about: "the top users", method: "GET", target: "/api/v1/streams/users?prefix=ma&max=5"},
			{about: "the top users without parameters", method: "GET", target: "/api/v1/streams/users"},
			{about: "no such prefix", method: "GET", target: "/api/v1/streams/users?prefix=a/b&max=0"},
			{about: "events too early", method: "GET", target: "/api/v1/events"},
			{about: "events of nobody", method: "GET", target: "/api/v1/events?user="},
			{about: "events of two", method: "GET", target: "/api/v1/events?user=a&user=b"},
			{about: "events by another name", method: "GET", target: "/api/v1/events?users=maya"},
			{about: "health", method: "GET", target: "/healthz"},
			{about: "readiness", method: "GET", target: "/readyz"},
			{about: "home", method: "GET", target: "/"},
			{about: "icon", method: "GET", target: "/favicon.ico"},
			{about: "what a problem means", method: "GET", target: "/problems/limit-reached"},
			{about: "no such problem", method: "GET", target: "/problems/none"},
		},
		"refused": {
			{about: "no such path", method: "GET", target: "/api/v2/streams"},
			{about: "no such method", method: "PUT", target: userBase},
			{about: "unknown field", method: "POST", target: userBase + "/start", body: `{"sesion":"tab-1"}`},
			{about: "wrong type", method: "POST", target: userBase + "/start", body: `{"device":{"name":7}}`},
			{about: "too long", method: "POST", target: userBase + "/start",
				body: `{"session":"` + strings.Repeat("x", 201) + `"}`},
			{about: "not one of a few", method: "POST", target: userBase + "/start", body: `{"onLimit":"evict"}`},
			{about: "bad JSON", method: "POST", target: userBase + "/start", body: `{`},
			{about: "too large", method: "POST", target: userBase + "/start", body: strings.Repeat(" ", 16<<10+1)},
			{about: "not JSON", method: "POST", target: userBase + "/start", body: `{}`,
				header: []string{"Content-Type", "text/plain"}},
			{about: "unknown query", method: "GET", target: userBase + "?limit=5"},
			{about: "bad query", method: "GET", target: userBase + "?a=1;b=2"},
			{about: "a long target", method: "GET", target: userBase + "?" + strings.Repeat("x", 2<<10)},
		},
	}
}

func TestGolden(t *testing.T) {
	contract := loadContract(t)
	seen := map[int]bool{}
	for file, list := range goldens() {
		t.Run(file, func(t *testing.T) {
			var out bytes.Buffer
			for i := range list {
				e := &list[i]
				w := call(newServer(t, Config{}, &e.fake), e.method, e.target, e.body, e.header...)
				seen[w.Code] = true
				contract.check(t, e, w)
				transcribe(t, &out, e, w)
			}
			path := filepath.Join("testdata", file+".txt")
			if *update {
				require.NoError(t, os.WriteFile(path, out.Bytes(), 0o644))
			}
			want, err := os.ReadFile(path)
			require.NoError(t, err, "go test ./api -run Golden -update writes it")
			assert.Equal(t, string(want), out.String())
			assert.NotContains(t, out.String(), "secret")
		})
	}
	for _, status := range []int{200, 204, 302, 400, 403, 404, 405, 410, 413, 414, 415, 422, 500, 503} {
		assert.True(t, seen[status], "no exchange with status %d", status)
	}
}

// transcribe writes an exchange as text.
func transcribe(t *testing.T, out *bytes.Buffer, e *exchange, w *httptest.ResponseRecorder) {
	t.Helper()
	fmt.Fprintf(out, "### %s\n%s %s\n", e.about, e.method, brief(e.target))
	if e.body != "" {
		fmt.Fprintf(out, "%s\n", brief(e.body))
	}
	fmt.Fprintf(out, "\n%d %s\n", w.Code, http.StatusText(w.Code))
	names := []string{}
	for name := range w.Header() {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		value := w.Header().Get(name)
		if name == "Retry-After" && w.Code == http.StatusServiceUnavailable {
			assert.Regexp(t, "^[1-5]$", value)
			value = "1 to 5"
		}
		fmt.Fprintf(out, "%s: %s\n", name, value)
	}
	body := w.Body.Bytes()
	var pretty bytes.Buffer
	if json.Indent(&pretty, body, "", "  ") == nil {
		body = pretty.Bytes()
	}
	fmt.Fprintf(out, "\n%s\n\n", bytes.TrimSpace(body))
}

func brief(s string) string {
	if len(s) > 1000 {
		return fmt.Sprintf("%s... (%d bytes)", strings.TrimSpace(s[:60]), len(s))
	}
	return s
}
