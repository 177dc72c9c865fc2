package api

import (
	"bytes"
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/access"
	"streamcount/lease"
	"streamcount/lease/bulkend"
	"streamcount/lease/policy"
	"streamcount/lease/userdata"
)

func (f *fake) UserData(_ context.Context, user string) (userdata.Data, error) {
	five, high := 5, 9
	return userdata.Data{
		User: user,
		Streams: []userdata.Stream{{
			ID: "stream-1", StartedAt: someTime, ExpiresAt: someTime.Add(time.Minute), TTL: time.Minute, Region: "eu", Session: "tab",
			Device: userdata.Device{ID: "d1", Name: "TV", Type: "tv"}, Content: userdata.Content{ID: "c1", Title: "Metropolis"},
			Plan: "family", Limit: &five, Attributes: policy.StartAttributes{
				Profile: "kids", Network: "n1", ContentType: "live", ContentLabels: []string{"uhd"}, Labels: map[string]string{"tier": "gold"}, Priority: &high,
			},
		}, {ID: "stream-2", StartedAt: someTime}},
		Override:  []byte(`{"limit":5}`),
		Cooldowns: []userdata.Cooldown{{Of: "device", Hash: "AAECAwQFBgcICQoLDA0ODw", ExpiresAt: someTime}},
		Departed:  []byte("not JSON"),
		Arrived:   true,
		Other:     []userdata.Key{{Key: "/streamcount/users/maya/x", Value: []byte("y")}},
	}, f.note("data of %s", user)
}

func (f *fake) EraseUserData(_ context.Context, user string) (userdata.Erased, error) {
	e := userdata.Erased{Streams: 2, Override: true, Cooldowns: 1, Other: 3, MarkKept: true}
	return e, f.note("erase data of %s", user)
}

func (f *fake) EndStreams(_ context.Context, q bulkend.Query) (bulkend.Result, error) {
	res := bulkend.Result{Matched: 3, Users: 2, Ended: 2}
	if q.DryRun {
		res = bulkend.Result{Matched: 3, Users: 2, Complete: true, Sample: []bulkend.Stream{
			{User: "maya", ID: "stream-1", StartedAt: someTime, Region: "eu", ContentID: "film-77", ContentTitle: "Metropolis"},
			{User: "tom", ID: "stream-2", StartedAt: someTime},
		}}
	}
	return res, f.note("end %+v", q)
}

// An end of the streams of all users has one line, with the conditions and the counts.
func TestAudit_EndStreams(t *testing.T) {
	const where = `"where":{"content.id":"film-77","region":{"not":["eu"]}}`
	line := map[string]any{
		"what": "end", "user": "", "caller": "operator dana", "client": "192.0.2.1", "matched": 3.0, "ended": 2.0, "users": 2.0,
		"complete": false, "max": 5.0, "where": map[string]any{"content.id": []any{"film-77"}, "region": map[string]any{"not": []any{"eu"}}},
	}
	for _, tt := range []struct {
		body string
		want []map[string]any
	}{
		{`{` + where + `,"max":5}`, []map[string]any{line}},
		{`{` + where + `,"dryRun":true}`, nil},
		{`{"where":{}}`, nil},
	} {
		var log bytes.Buffer
		s := newServer(t, Config{Audit: slog.New(slog.NewJSONHandler(&log, nil)), Access: callers}, &fake{})
		call(s, "POST", "/api/v1/streams/end", tt.body, asHeader, "operator")
		assert.Equal(t, tt.want, auditLines(t, &log), tt.body)
	}
	var log bytes.Buffer
	s := newServer(t, Config{Audit: slog.New(slog.NewJSONHandler(&log, nil))}, &fake{err: lease.ErrUnavailable})
	require.Equal(t, 503, call(s, "POST", "/api/v1/streams/end", `{`+where+`}`).Code)
	lines := auditLines(t, &log)
	require.Len(t, lines, 1)
	assert.Equal(t, "unknown", lines[0]["outcome"])
}

func TestAudit_Erase(t *testing.T) {
	line := map[string]any{
		"what": "erase", "user": "maya", "caller": "operator dana", "client": "192.0.2.1",
		"streams": 2.0, "override": true, "cooldowns": 1.0, "other": 3.0,
	}
	for _, tt := range []struct {
		method string
		err    error
		want   []map[string]any
	}{
		{"DELETE", nil, []map[string]any{line}},
		{"DELETE", userdata.ErrNoData, nil},
		{"GET", nil, nil},
	} {
		var log bytes.Buffer
		s := newServer(t, Config{Audit: slog.New(slog.NewJSONHandler(&log, nil)), Access: callers}, &fake{err: tt.err})
		call(s, tt.method, dataOfMaya, "", asHeader, "operator")
		assert.Equal(t, tt.want, auditLines(t, &log), "%s %v", tt.method, tt.err)
	}
	var log bytes.Buffer
	s := newServer(t, Config{Audit: slog.New(slog.NewJSONHandler(&log, nil))}, &fake{err: lease.ErrUnavailable})
	require.Equal(t, 503, call(s, "DELETE", dataOfMaya, "").Code)
	lines := auditLines(t, &log)
	require.Len(t, lines, 1)
	assert.Equal(t, "unknown", lines[0]["outcome"])
}

// An erasure is refused if it cannot be recorded; an export is not.
func TestUserData_AuditFull(t *testing.T) {
	s := newServer(t, Config{AuditFull: func(access.Action) bool { return true }}, &fake{})
	assert.Equal(t, 503, call(s, "DELETE", dataOfMaya, "").Code)
	assert.Equal(t, 200, call(s, "GET", dataOfMaya, "").Code)
}

func TestUserData_WithoutStore(t *testing.T) {
	s, err := New(Config{Log: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	f := &fake{}
	s.SetBackend(Backend{Limiter: f, Rules: f, Ready: isReady})
	assert.Equal(t, 503, call(s, "GET", dataOfMaya, "").Code)
	assert.Equal(t, 503, call(s, "DELETE", dataOfMaya, "").Code)
	assert.Equal(t, 200, call(s, "GET", userBase, "").Code)
}

// A user id may contain an encoded slash and be a dot segment.
func TestUserData_EncodedUser(t *testing.T) {
	for path, user := range map[string]string{"tom%2Fadmin": "tom/admin", "%2E%2E": "..", "m%C3%A4x": "mäx", "a%252Fb": "a%2Fb"} {
		f := &fake{}
		s := newServer(t, Config{}, f)
		assert.Equal(t, 200, call(s, "DELETE", "/api/v1/data/users/"+path, "").Code, path)
		assert.Equal(t, []string{"erase data of " + user}, f.taken())
	}
	s := newServer(t, Config{}, &fake{})
	assert.Equal(t, 404, call(s, "DELETE", "/api/v1/data/users/tom/admin", "").Code)
}
