package api

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/lease"
)

// auditLines are the audit lines in a log of JSON lines, without time and level.
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
		want                       map[string]any
	}{
		{name: "refused", method: "POST", target: "/start", err: &lease.LimitError{Limit: 1, Active: []lease.Stream{victim}, RetryAfter: time.Second},
			want: map[string]any{"what": "refuse", "user": "maya", "caller": "anyone", "limit": 1.0, "streams": 1.0}},
		{name: "refusedToEvict", method: "POST", target: "/start", body: body, err: &lease.LimitError{Limit: 1, Kept: lease.KeptCooling},
			want: map[string]any{"what": "refuse", "user": "maya", "caller": "anyone", "limit": 1.0, "streams": 0.0, "evictedNobody": "cooling"}},
		{name: "evicted", method: "POST", target: "/start", body: body, ended: []lease.Ended{{Stream: victim, Reason: lease.ReasonEvicted}},
			want: map[string]any{"what": "evict", "user": "maya", "caller": "anyone", "stream": "AQAAvict", "device": victim.Device.Name, "for": someStream().ID[:8]}},
		{name: "replacedByItsOwn", method: "POST", target: "/start", body: body, ended: []lease.Ended{{Stream: victim, Reason: lease.ReasonReplaced}}},
		{name: "removed", method: "DELETE", want: map[string]any{"what": "remove", "user": "maya", "caller": "anyone"}},
		{name: "heartbeat", method: "POST", target: "/streams/" + someStream().ID + "/heartbeat"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var log bytes.Buffer
			s := newServer(t, Config{Log: slog.New(slog.NewJSONHandler(&log, nil))}, &fake{err: tt.err, ended: tt.ended})
			call(s, tt.method, "/api/v1/streams/users/maya"+tt.target, tt.body)
			got := auditLines(t, &log)
			if tt.want == nil {
				assert.Empty(t, got)
				return
			}
			assert.Equal(t, []map[string]any{tt.want}, got)
			assert.NotContains(t, log.String(), "secret", "whole stream ids stay out of the log")
		})
	}
}

// An operator ends what is somebody else's; players and their services stop their
// own streams all the time.
func TestAudit_StopsByOperators(t *testing.T) {
	id := someStream().ID
	for _, as := range []string{"operator", "service", "maya", "anonymous"} {
		for _, how := range []struct{ method, target, body string }{
			{"DELETE", "/streams/" + id, ""}, {"POST", "/streams/" + id + "/stop", ""},
		} {
			var log bytes.Buffer
			s := newServer(t, Config{Log: slog.New(slog.NewJSONHandler(&log, nil)), Access: callers}, &fake{})
			w := call(s, how.method, "/api/v1/streams/users/maya"+how.target, how.body, asHeader, as)
			require.Equal(t, 200, w.Code, as)
			if as != "operator" {
				assert.Empty(t, auditLines(t, &log), as)
				continue
			}
			assert.Equal(t, []map[string]any{
				{"what": "stop", "user": "maya", "caller": callers[as].String(), "stream": id[:8]},
			}, auditLines(t, &log))
		}
	}
}
