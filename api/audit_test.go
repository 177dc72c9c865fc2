package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/access"
	"streamcount/api/internal/openapi"
	"streamcount/lease"
	"streamcount/lease/policy"
	"streamcount/lease/streamid"
)

// auditLines returns the audit lines in a log of JSON lines, without time and level.
func auditLines(t *testing.T, log *bytes.Buffer) []map[string]any {
	t.Helper()
	var out []map[string]any
	for line := range bytes.Lines(log.Bytes()) {
		var m map[string]any
		require.NoError(t, json.Unmarshal(line, &m))
		if m["msg"] == "audit" {
			delete(m, "msg")
			delete(m, "time")
			delete(m, "level")
			out = append(out, m)
		}
	}
	return out
}

func TestAudit_RefusalsEvictionsAndRemovals(t *testing.T) {
	const body = `{"onLimit":"replace-oldest"}`
	victim := lease.Stream{ID: "AQAAvictim-and-its-secret", Device: lease.Device{Name: "TV\n\x1b[31m"}}
	tests := []struct {
		name, method, target, body string
		err                        error
		ended                      []lease.Ended
		observed                   []string
		want                       map[string]any
	}{
		{name: "refused", method: "POST", target: "/start", err: &lease.LimitError{Limit: 1, Active: []lease.Stream{victim}, RetryAfter: time.Second},
			want: map[string]any{"what": "refuse", "user": "maya", "caller": "anyone", "limit": 1.0, "streams": 1.0}},
		{name: "refusedToEvict", method: "POST", target: "/start", body: body, err: &lease.LimitError{Limit: 1, NoEviction: lease.NoEvictionCooldown},
			want: map[string]any{"what": "refuse", "user": "maya", "caller": "anyone", "limit": 1.0, "streams": 0.0, "notEvictedReason": "cooling"}},
		{name: "refusedByLimits", method: "POST", target: "/start", body: body,
			err:  &lease.LimitError{Limit: 1, Limits: []policy.RefusingLimit{{Name: "tv", Limit: 1}, {Name: "total", Limit: 3}}},
			want: map[string]any{"what": "refuse", "user": "maya", "caller": "anyone", "limit": 1.0, "streams": 0.0, "limits": []any{"tv", "total"}}},
		{name: "evicted", method: "POST", target: "/start", body: body, ended: []lease.Ended{{Stream: victim, Reason: policy.ReasonEvicted}},
			want: map[string]any{"what": "evict", "user": "maya", "caller": "anyone", "stream": streamid.Handle(victim.ID), "device": victim.Device.Name, "for": streamid.Handle(someStream().ID)}},
		{name: "replacedByName", method: "POST", target: "/start", body: body, ended: []lease.Ended{{Stream: victim, Reason: policy.ReasonReplaced}},
			want: map[string]any{"what": "replace", "user": "maya", "caller": "anyone", "stream": streamid.Handle(victim.ID), "device": victim.Device.Name, "for": streamid.Handle(someStream().ID)}},
		{name: "replacedByItsOwn", method: "POST", target: "/start", body: `{"session":"tab"}`,
			ended: []lease.Ended{{Stream: lease.Stream{ID: victim.ID, Session: "tab"}, Reason: policy.ReasonReplaced}}},
		{name: "observedOnly", method: "POST", target: "/start", body: body, observed: []string{"tv"}},
		{name: "removed", method: "DELETE", want: map[string]any{"what": "remove", "user": "maya", "caller": "anyone"}},
		{name: "heartbeat", method: "POST", target: "/streams/" + someStream().ID + "/heartbeat"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			s := newServer(t, Config{Log: slog.New(slog.NewJSONHandler(&log, nil))}, &fake{err: tt.err, ended: tt.ended, observed: tt.observed})
			call(s, tt.method, "/api/v1/streams/users/maya"+tt.target, tt.body)
			got := auditLines(t, &log)
			if tt.want != nil {
				tt.want["client"] = "192.0.2.1"
			}
			if tt.want == nil {
				assert.Empty(t, got)
				return
			}
			assert.Equal(t, []map[string]any{tt.want}, got)
			assert.NotContains(t, log.String(), "secret", "the log has no complete stream ids")
		})
	}
}

// Each stop is recorded, for each caller and each route.
func TestAudit_EveryStop(t *testing.T) {
	id := someStream().ID
	for _, as := range []string{"operator", "service", "maya", "anonymous"} {
		for _, how := range []struct {
			method, target, body string
			want                 map[string]any
		}{
			{"DELETE", "/streams/" + id, "", map[string]any{"what": "stop", "stream": streamid.Handle(id)}},
			{"POST", "/streams/" + id + "/stop", "", map[string]any{"what": "stop", "stream": streamid.Handle(id)}},
			{"POST", "/streams/" + id + "/stop", "not json", map[string]any{"what": "stop", "stream": streamid.Handle(id)}},
			{"POST", "/stop", `{"streamId":"` + id + `"}`, map[string]any{"what": "stop", "stream": streamid.Handle(id)}},
			{"POST", "/stop", "", map[string]any{"what": "stop", "stream": streamid.Handle("oldest")}},
			{"DELETE", "", "", map[string]any{"what": "remove"}},
		} {
			for _, err := range []error{nil, lease.ErrUnavailable, lease.ErrNoStreams} {
				var log bytes.Buffer
				s := newServer(t, Config{
					Audit: slog.New(slog.NewJSONHandler(&log, nil)), Access: callers,
					Ingress: IngressConfig{Proxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
				}, &fake{err: err})
				w := call(s, how.method, "/api/v1/streams/users/maya"+how.target, how.body, asHeader, as,
					"X-Forwarded-For", "203.0.113.7", "X-Request-Id", "r-17")
				var want []map[string]any
				if w.Code != 401 && !errors.Is(err, lease.ErrNoStreams) {
					line := maps.Clone(how.want)
					line["user"], line["caller"], line["client"], line["request"] = "maya", callers[as].String(), "203.0.113.7", "r-17"
					if err != nil {
						line["outcome"] = "unknown"
					}
					want = append(want, line)
				}
				got := slices.DeleteFunc(auditLines(t, &log), func(l map[string]any) bool { return l["what"] == "deny" })
				assert.ElementsMatch(t, want, got, "%s %s %s as %s: %d", how.method, how.target, how.body, as, w.Code)
				assert.NotContains(t, log.String(), `"`+id+`"`)
			}
		}
	}
}

// The id of a request is recorded only if a trusted proxy sent it.
func TestAudit_RequestIDs(t *testing.T) {
	for _, id := range []string{"", "a b", "a\"b", strings.Repeat("x", 129)} {
		var log bytes.Buffer
		s := newServer(t, Config{
			Audit:   slog.New(slog.NewJSONHandler(&log, nil)),
			Ingress: IngressConfig{Proxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
		}, &fake{})
		call(s, "DELETE", u, "", "X-Request-Id", id)
		assert.NotContains(t, log.String(), "request\"", id)
	}
	var log bytes.Buffer
	s := newServer(t, Config{Audit: slog.New(slog.NewJSONHandler(&log, nil))}, &fake{})
	call(s, "DELETE", u, "", "X-Request-Id", "r-17")
	assert.Contains(t, log.String(), `"what":"remove"`)
	assert.NotContains(t, log.String(), "r-17")
}

// Failed authentication and refused rights are counted each time, and recorded once a
// minute for each address and reason.
func TestAudit_Failures(t *testing.T) {
	var log bytes.Buffer
	s := newServer(t, Config{Audit: slog.New(slog.NewJSONHandler(&log, nil)), Access: callers}, &fake{})
	for range 50 {
		call(s, "GET", u, "")
		call(s, "GET", u, "", asHeader, "bad", "Authorization", "Bearer sck_canary")
		call(s, "GET", u, "", asHeader, "bad", "Authorization", "Bearer canary.e30.x")
		call(s, "GET", u, "", asHeader, "bad", "Authorization", "Basic canary")
		call(s, "GET", u, "", asHeader, "unsure", "Authorization", "Bearer canary.e30.x")
		call(s, "DELETE", u, "", asHeader, "reader")
		call(s, "GET", u, "", asHeader, "ben")
		call(s, "POST", u+"/stop", "")
		call(s, "POST", "/api/v1/streams/heartbeats", `{"heartbeats":[{"userId":"maya","streamId":"stream-1"}]}`, asHeader, "ben")
		call(s, "GET", "/api/v1/stats", "", asHeader, "scraper")
		call(s, "GET", eventsPath, "", asHeader, "scraper")
	}
	var got []string
	for _, l := range auditLines(t, &log) {
		assert.Equal(t, "192.0.2.1", l["client"])
		got = append(got, fmt.Sprint(l["what"], " ", l["reason"], " ", l["caller"]))
	}
	assert.ElementsMatch(t, []string{
		"deny missing anonymous", "deny key anyone", "deny token anyone", "deny header anyone", "deny unavailable anyone",
		"deny forbidden reader reports", "deny foreign viewer ben",
	}, got)
	assert.NotContains(t, log.String(), "canary")
	text := call(s, "GET", "/metrics", "", asHeader, "scraper").Body.String()
	for reason, n := range map[string]int{
		"missing": 100, "key": 50, "token": 50, "header": 50, "unavailable": 50, "forbidden": 150, "foreign": 100,
	} {
		assert.Contains(t, text, fmt.Sprintf("streamcount_auth_failures_total{reason=%q} %d\n", reason, n))
	}
	// An expired token is no failure for a heartbeat: the id of the stream is enough.
	call(s, "POST", u+"/streams/stream-1/heartbeat", "", asHeader, "bad", "Authorization", "Bearer canary.e30.x")
	assert.Equal(t, int64(50), s.denials.Counts()["token"])
}

// Refusals at the limit are frequent, so that only a sample of them is recorded.
func TestAudit_RefusalsAreSampled(t *testing.T) {
	var log bytes.Buffer
	s := newServer(t, Config{Audit: slog.New(slog.NewJSONHandler(&log, nil))}, &fake{err: &lease.LimitError{Limit: 1}})
	for range 1000 {
		call(s, "POST", u+"/start", "")
	}
	assert.Less(t, len(auditLines(t, &log)), 1000/2)
}

// While the audit log is full, calls that must be recorded are rejected. Heartbeats and other
// calls are served.
func TestAudit_Full(t *testing.T) {
	full, starts := true, false
	f := &fake{}
	s := withFeed(newServer(t, Config{Access: callers, AuditFull: func(does access.Action) bool {
		return full && does != access.StartStream || starts && does == access.StartStream
	}}, f))
	recorded := map[string]bool{
		"POST " + openapi.UserPath + "/streams/{id}/stop": true, "DELETE " + openapi.UserPath + "/streams/{id}": true, "POST " + openapi.UserPath + "/stop": true,
		"DELETE " + openapi.UserPath: true, "PUT " + limitsPath: true, "DELETE " + limitsPath: true, "PUT /api/v1/plans/{plan}": true,
		"DELETE /api/v1/plans/{plan}": true, "POST /api/v1/rules": true, "DELETE " + dataPath: true, "POST /api/v1/streams/end": true,
		"POST /api/v1/token-keys/rotate": true,
	}
	for route, row := range routeTable {
		for as, want := range row.answers {
			f.taken()
			if recorded[route] && (want == 200 || route == "POST "+openapi.UserPath+"/stop" && as == "anonymous") {
				want = 503
			}
			w := call(s, strings.Fields(route)[0], row.target, row.body, asHeader, as)
			assert.Equal(t, want, w.Code, "%s as %s: %s", route, as, w.Body)
			if want == 503 {
				assert.Empty(t, f.taken())
				assert.NotEmpty(t, w.Header().Get("Retry-After"))
			}
		}
	}
	full, starts = false, true
	assert.Equal(t, 200, call(s, "DELETE", u, "", asHeader, "operator").Code)
	f.taken()
	assert.Equal(t, 503, call(s, "POST", u+"/start", "", asHeader, "service").Code)
	assert.Empty(t, f.taken())
}

func TestAudit_Off(t *testing.T) {
	var log bytes.Buffer
	s := newServer(t, Config{NoAudit: true, Log: slog.New(slog.NewJSONHandler(&log, nil))}, &fake{})
	call(s, "DELETE", u, "")
	assert.Empty(t, auditLines(t, &log))
}
