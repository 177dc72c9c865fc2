package edge

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/edge/profile"
	"streamcount/lease"
	"streamcount/lease/policy"
)

// A countingLimiter returns fixed values and counts calls. Its other methods are not called.
type countingLimiter struct {
	Limiter
	attendance             lease.Attendance
	err                    error
	attends, looks, starts int
}

func (l *countingLimiter) Attend(context.Context, string, string, bool) (lease.Attendance, error) {
	l.attends++
	return l.attendance, nil
}

func (l *countingLimiter) LookUpSession(context.Context, string, string, bool) (lease.Attendance, error) {
	l.looks++
	return l.attendance, nil
}

func (l *countingLimiter) Start(context.Context, string, lease.Request) (lease.Started, error) {
	l.starts++
	return lease.Started{}, l.err
}

func (l *countingLimiter) WouldStart(context.Context, string, lease.Request) (lease.Usage, error) {
	return lease.Usage{}, l.err
}

func TestCheck_Calls(t *testing.T) {
	profiles, err := profile.Parse([]byte(file))
	require.NoError(t, err)
	check := func(l *countingLimiter, cutOff bool, method string) Decision {
		c := NewChecker(CheckerConfig{})
		c.SetBackend(Backend{Limiter: l, Key: make([]byte, 32), CutOff: func() bool { return cutOff }})
		r := profile.Request{Method: method, Target: "/vod/film/1.ts?sid=a", Header: http.Header{"X-User": {"maya"}}}
		c.Check(t.Context(), profiles["vod"], r)
		return c.Check(t.Context(), profiles["vod"], r)
	}
	running := lease.Stream{ID: "id", User: "maya", Content: lease.Content{ID: "film"}, StartedAt: time.Now()}

	l := &countingLimiter{attendance: lease.Attendance{Stream: running, Current: true}}
	assert.Equal(t, Looked, check(l, true, http.MethodHead).Outcome)
	assert.Equal(t, []int{0, 2, 0}, []int{l.attends, l.looks, l.starts}, "HEAD has no effect")

	for _, err := range []error{&lease.LimitError{}, &policy.MissingAttributesError{}, &policy.AttributeError{}} {
		l = &countingLimiter{attendance: lease.Attendance{Current: true}, err: err}
		assert.Equal(t, AtLimit, check(l, false, http.MethodGet).Outcome)
		assert.Equal(t, 1, l.starts, "a rejected start is not repeated at once: %v", err)
	}

	l = &countingLimiter{attendance: lease.Attendance{Stream: running}}
	assert.Equal(t, Unavailable, check(l, true, http.MethodGet).Outcome, "another node answers")
	d := check(l, false, http.MethodGet)
	assert.Equal(t, Running, d.Outcome)
	w := httptest.NewRecorder()
	answer(w, profiles["vod"], d)
	assert.Equal(t, "1", w.Header().Get("X-Streamcount-Degraded"))
	assert.Equal(t, "0", w.Header().Get("X-Accel-Expires"), "a proxy does not keep a degraded answer")
}

// A refusal sets no cookie, and an explanation says so.
func TestExplain_Cookie(t *testing.T) {
	profiles, err := profile.Parse([]byte(file))
	require.NoError(t, err)
	for _, tt := range []struct {
		err  error
		want bool
	}{{nil, true}, {&lease.LimitError{}, false}} {
		c := NewChecker(CheckerConfig{})
		c.SetBackend(Backend{Limiter: &countingLimiter{attendance: lease.Attendance{Current: true}, err: tt.err}, Key: make([]byte, 32)})
		x := c.Explain(t.Context(), profiles["vod"], profile.Request{
			Method: http.MethodGet, Target: "/vod/film/1.ts?sid=a", Header: http.Header{"X-User": {"maya"}},
		})
		assert.Equal(t, tt.want, x.Cookie, "%v", tt.err)
	}
}

// An explanation says what a check does without etcd: it moves no stream, and starts none.
func TestExplain_WithoutEtcd(t *testing.T) {
	profiles, err := profile.Parse([]byte(file))
	require.NoError(t, err)
	running := lease.Stream{ID: "id", User: "maya", Content: lease.Content{ID: "film"}, StartedAt: time.Now().Add(-time.Hour)}
	for name, tt := range map[string]struct {
		profile, target string
		stream          lease.Stream
		cutOff          bool
		want            string
		degraded        bool
	}{
		"a running session":                      {"vod", "/vod/film/1.ts?sid=a", running, false, "running", true},
		"a move":                                 {"vod", "/vod/other/1.ts?sid=a", running, false, "running", true},
		"a start":                                {"vod", "/vod/film/1.ts?sid=a", lease.Stream{}, false, "uncounted", true},
		"a start of a session that is not known": {"known", "/vod/film/1.ts?sid=a", lease.Stream{}, false, "unavailable", false},
		"a start that is denied":                 {"closed", "/vod/film/1.ts?sid=a", lease.Stream{}, false, "unavailable", false},
		"another node answers":                   {"vod", "/vod/film/1.ts?sid=a", running, true, "unavailable", false},
	} {
		l := &countingLimiter{attendance: lease.Attendance{Stream: tt.stream}, err: lease.ErrUnavailable}
		c := NewChecker(CheckerConfig{})
		c.SetBackend(Backend{Limiter: l, Key: make([]byte, 32), CutOff: func() bool { return tt.cutOff }})
		r := profile.Request{Method: http.MethodGet, Target: tt.target, Header: http.Header{"X-User": {"maya"}}}
		x := c.Explain(t.Context(), profiles[tt.profile], r)
		assert.Equal(t, []any{tt.want, tt.degraded, "nothing"}, []any{x.Reason, x.Degraded, x.Would}, name)
		assert.Zero(t, l.starts+l.attends, name)
		d := c.Check(t.Context(), profiles[tt.profile], r)
		assert.Equal(t, []any{x.Reason, x.Degraded}, []any{d.Outcome.String(), d.Degraded}, name)
	}
}

// Explain states why a request does not count.
func TestExplain_Passed(t *testing.T) {
	t.Parallel()
	profiles, err := profile.Parse([]byte("profiles: {vod: {paths: '/vod/{content}/{file...}', only: [ts], user: 'header:X-User'}}"))
	require.NoError(t, err)
	c, p := NewChecker(CheckerConfig{}), profiles["vod"]
	c.SetBackend(Backend{Limiter: &countingLimiter{}, Key: make([]byte, 32)})
	for request, want := range map[string]string{
		"OPTIONS /vod/film/1.ts": "OPTIONS requests do not count",
		"OPTIONS *":              "OPTIONS requests do not count",
		"GET /film/1.ts":         "no path of the profile matches the path of the request",
		"GET /vod/film/1.mp4":    "the extension of the file is not in only",
		"POST /vod/film/1.ts":    "POST requests do not count with post: pass",
	} {
		method, target, _ := strings.Cut(request, " ")
		x := c.Explain(t.Context(), p, profile.Request{Method: method, Target: target})
		assert.Equal(t, "passed", x.Reason, request)
		assert.Equal(t, want, x.Detail, request)
	}
}
