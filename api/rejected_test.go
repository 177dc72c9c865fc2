package api

import (
	"bytes"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/internal/openapi"
	"streamcount/lease"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// An invalid start is logged and counted with the name of the invalid member. The label has a
// fixed set of values, whatever the client sends.
func TestRejectedStarts(t *testing.T) {
	for _, c := range []struct {
		name, target, body, member string
		header                     []string
		err                        error
	}{
		{"long session", userBase + "/start", `{"session":"` + strings.Repeat("x", 201) + `"}`, "session", nil, nil},
		{"long device id", userBase + "/start", `{"device":{"id":"` + strings.Repeat("x", 201) + `"}}`, "device.id", nil, nil},
		{"label of another type", userBase + "/start", `{"content":{"title":7}}`, "content.title", nil, nil},
		{"list for a device", userBase + "/start", `{"device":[]}`, "device", nil, nil},
		{"unknown member", userBase + "/start", `{"hunter2":7}`, "unknown", nil, nil},
		{"bad JSON", userBase + "/start", `{`, "body", nil, nil},
		{"too large", userBase + "/start", strings.Repeat(" ", openapi.MaxBody+1), "body", nil, nil},
		{"duplicate", userBase + "/start", `{"session":"a","session":"b"}`, "body", nil, nil},
		{"onLimit", userBase + "/start", `{"onLimit":"no"}`, "onLimit", nil, nil},
		{"media type", userBase + "/start", `{}`, "Content-Type", []string{"Content-Type", "text/plain"}, nil},
		{"encoding", userBase + "/start", `{}`, "Content-Encoding", []string{"Content-Encoding", "gzip"}, nil},
		{"user", "/api/v1/streams/users/a%00b/start", ``, "user", nil, nil},
		{"slash that a proxy decoded", "/api/v1/streams/users/tom/admin/start", ``, "path", nil, nil},
		{"long path", "/api/v1/streams/users/" + strings.Repeat("a", 3000) + "/start", ``, "path", nil, nil},
		{"query", userBase + "/start?x=1", `{}`, "query", nil, nil},
		{"replaces", userBase + "/start", `{"replaces":"zzz"}`, "replaces", nil, streamid.ErrMalformed},
		{"plan", userBase + "/start", `{"plan":"gold"}`, "plan", nil, policy.ErrNoPlan},
	} {
		t.Run(c.name, func(t *testing.T) {
			var log bytes.Buffer
			s := newServer(t, Config{Log: jsonLog(&log, slog.LevelWarn)}, &fake{err: c.err})
			w := call(s, "POST", c.target, c.body, c.header...)
			require.GreaterOrEqual(t, w.Code, 400)
			require.Equal(t, map[string]int64{c.member: 1}, s.rejectedStarts.counts(), w.Body)
			line := lastLine(t, &log)
			assert.Equal(t, c.member, line["member"])
			assert.NotEmpty(t, line["reason"])
			assert.NotContains(t, log.String(), "hunter2")
			metrics := call(s, http.MethodGet, metricsPath, "").Body.String()
			assert.Contains(t, metrics, `streamcount_rejected_starts_total{member="`+c.member+`"} 1`)
		})
	}
}

// Starts that are rejected for another reason, and other calls, are not counted.
func TestRejectedStarts_Others(t *testing.T) {
	for _, err := range []error{nil, lease.ErrLimit, lease.ErrUnavailable, streamid.ErrForeign, lease.ErrEnded} {
		s := newServer(t, Config{}, &fake{err: err})
		call(s, "POST", userBase+"/start", `{}`)
		call(s, "POST", userBase+"/stop", `{`)
		call(s, "GET", "/nothing", "")
		assert.Empty(t, s.rejectedStarts.counts(), "%v", err)
	}
}
