package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
)

// write answers with body. Its error does not matter: the client checks what it received.
func write(w http.ResponseWriter, body string) { _, _ = io.WriteString(w, body) }

func ptr[T any](v T) *T { return &v }

func TestNew_RejectsInvalidConfig(t *testing.T) {
	servers := []string{"127.0.0.1:3000", "ftp://x", "http://", "http://x/?a=b", "http://x/#a", "%zz"}
	for _, server := range servers {
		_, err := New(Config{Server: server})
		require.ErrorIs(t, err, ErrInvalid, server)
	}
	for _, cfg := range []Config{{Timeout: -1}, {Attempts: -1}, {Every: -1}, {Every: 1}} {
		_, err := New(cfg)
		require.ErrorIs(t, err, ErrInvalid)
	}
}

func TestClient_RejectsInvalidIDs(t *testing.T) {
	c, w := newClient(t, Config{}, service(90, 30, alive))
	for _, user := range []string{"", "a\n", "a\x00", "\u0085", "a\xff", strings.Repeat("x", 129), strings.Repeat("é", 65)} {
		_, err := c.Start(t.Context(), user, apitype.Start{})
		require.ErrorIs(t, err, ErrInvalid, "%q", user)
		_, err = c.List(t.Context(), user)
		require.ErrorIs(t, err, ErrInvalid)
		_, err = c.StopOldestHeartbeat(t.Context(), user)
		require.ErrorIs(t, err, ErrInvalid)
		_, err = c.Remove(t.Context(), user)
		require.ErrorIs(t, err, ErrInvalid)
	}
	_, err := c.StopStream(t.Context(), "maya", "")
	require.ErrorIs(t, err, ErrInvalid, "no id must not become a stop of any stream")
	_, err = c.Heartbeat(t.Context(), "maya", "")
	require.ErrorIs(t, err, ErrInvalid)
	assert.Empty(t, w.requests(""))
}

func TestClient_EscapesPathSegments(t *testing.T) {
	c, w := newClient(t, Config{Server: "http://example.test/behind/"}, service(90, 30, alive))
	_, err := c.StopStream(t.Context(), "auth0|5f+7@x", "../a?b#c/d")
	require.NoError(t, err)
	assert.Equal(t, "/behind/api/v1/streams/users/auth0%7C5f+7@x/streams/..%2Fa%3Fb%23c%2Fd",
		w.requests("")[0].path)
}

func TestStart_Refused(t *testing.T) {
	c, w := newClient(t, Config{}, func(*http.Request) (*http.Response, error) {
		return problem(apitype.Problem{
			Status: 403, Title: "Maximum number of streams reached", Limit: ptr(2), Streams: ptr(2),
			Active: []apitype.Stream{{ID: "a", Device: &apitype.Device{Name: "TV"}}, {ID: "b"}},
		}, "Retry-After", "42")
	})
	_, err := c.Start(t.Context(), "maya", apitype.Start{})
	var full *LimitError
	require.ErrorAs(t, err, &full)
	require.ErrorIs(t, err, ErrLimit)
	assert.Equal(t, 2, full.Limit)
	assert.Equal(t, 2, full.Streams)
	assert.Equal(t, 42*time.Second, full.RetryAfter)
	require.Len(t, full.Active, 2)
	assert.Equal(t, "TV", full.Active[0].Device.Name)
	assert.Len(t, w.requests("/start"), 1, "a refusal is final")
	assert.EqualError(t, err, "start stream of maya: maximum number of streams reached: 2 of 2")
}

func TestStart_OnlyTheLimitIsErrLimit(t *testing.T) {
	for _, status := range []int{302, 400, 401, 403, 404, 415, 422, 429, 500, 503} {
		synctest.Test(t, func(t *testing.T) {
			c, _ := newClient(t, Config{}, func(*http.Request) (*http.Response, error) {
				return problem(apitype.Problem{Status: status, Title: "No"})
			})
			_, err := c.Start(t.Context(), "maya", apitype.Start{})
			require.NotErrorIs(t, err, ErrLimit)
			var p *ProblemError
			require.ErrorAs(t, err, &p)
			assert.Equal(t, status, p.Problem.Status)
		})
	}
}

// All requests of one start have the same session.
func TestStart_RetriesUseOneSession(t *testing.T) {
	for name, fail := range map[string]func() (*http.Response, error){
		"503":        func() (*http.Response, error) { return problem(apitype.Problem{Status: 503}) },
		"429":        func() (*http.Response, error) { return problem(apitype.Problem{Status: 429}) },
		"transport":  func() (*http.Response, error) { return nil, errNetwork },
		"unreadable": func() (*http.Response, error) { return good(struct{}{}) },
		"proxy":      func() (*http.Response, error) { return reply(502, "text/html", "<p>bad gateway"), nil },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, w := newClient(t, Config{}, service(90, 30, alive))
				plain := w.answer
				w.answer = func(r *http.Request) (*http.Response, error) {
					if len(w.requests("/start")) < 4 {
						return fail()
					}
					return plain(r)
				}
				s := mustStart(t, c)
				sent := w.requests("/start")
				require.Len(t, sent, 4)
				var body apitype.Start
				require.NoError(t, json.Unmarshal([]byte(sent[0].body), &body))
				assert.Len(t, body.Session, 26)
				for i, r := range sent[1:] {
					assert.Equal(t, sent[0].body, r.body)
					assert.Greater(t, r.at.Sub(sent[i].at), 100*time.Millisecond)
				}
				require.NoError(t, s.Stop(t.Context()))
			})
		})
	}
}

func TestStart_StopsRetrying(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := func(*http.Request) (*http.Response, error) {
			return problem(apitype.Problem{Status: 503, Title: "Store unavailable"}, "Retry-After", "3")
		}
		c, w := newClient(t, Config{Attempts: 3}, down)
		began := time.Now()
		_, err := c.Start(t.Context(), "maya", apitype.Start{})
		require.ErrorContains(t, err, "503 Store unavailable")
		assert.Len(t, w.requests("/start"), 3)
		assert.Equal(t, 6*time.Second, time.Since(began), "Retry-After is obeyed")

		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		began = time.Now()
		_, err = c.Start(ctx, "maya", apitype.Start{})
		require.ErrorContains(t, err, "503 Store unavailable")
		assert.Equal(t, 3*time.Second, time.Since(began), "no wait that the context would cut short")
	})
}

func TestStart_KeepsItsSession(t *testing.T) {
	c, w := newClient(t, Config{}, service(90, 30, alive))
	_, err := c.StartStream(t.Context(), "maya", apitype.Start{
		Session: "tab-1", Replaces: apitype.StreamIDs{"old"}, OnLimit: "replace-oldest", Device: &apitype.Device{Name: "TV"}})
	require.NoError(t, err)
	assert.JSONEq(t, `{"session":"tab-1","replaces":"old","onLimit":"replace-oldest","device":{"name":"TV"}}`,
		w.requests("/start")[0].body)
}

func TestHeartbeatAll_KeepsTheOrder(t *testing.T) {
	heartbeats := make([]apitype.Heartbeat, 2*apitype.MaxBatch+1)
	for i := range heartbeats {
		heartbeats[i] = apitype.Heartbeat{UserID: "u", StreamID: fmt.Sprint(i)}
	}
	var sizes []int
	c, w := newClient(t, Config{}, nil)
	w.answer = func(*http.Request) (*http.Response, error) {
		sent := w.requests("/heartbeats")
		var got apitype.Heartbeats
		if err := json.Unmarshal([]byte(sent[len(sent)-1].body), &got); err != nil {
			return nil, err
		}
		sizes = append(sizes, len(got.Heartbeats))
		last := got.Heartbeats[len(got.Heartbeats)-1]
		return good(apitype.HeartbeatsResult{Alive: len(got.Heartbeats) - 1,
			Ended: []apitype.EndedHeartbeat{{UserID: last.UserID, StreamID: last.StreamID, Reason: "evicted"}}})
	}
	ended, err := c.HeartbeatAll(t.Context(), heartbeats)
	require.NoError(t, err)
	assert.Equal(t, []int{1000, 1000, 1}, sizes)
	require.Len(t, ended, len(heartbeats))
	for i, err := range ended {
		if i == 999 || i == 1999 || i == 2000 {
			require.ErrorIs(t, err, ErrEnded, i)
			continue
		}
		require.NoError(t, err, i)
	}
}

func TestAnswers_OverASocket(t *testing.T) {
	pages := map[string]http.HandlerFunc{
		"u-ok": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			write(w, `{"userId":"u-ok","streams":1,"limit":3,"brandNew":{"x":[1]},"active":[{"id":"s"}]}`)
		},
		"u-long": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			write(w, `{"userId":"`+strings.Repeat("x", maxAnswer)+`"}`)
		},
		"u-redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/api/v1/streams/users/u-ok", http.StatusMovedPermanently)
		},
		"u-cut": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			write(w, `{"userId"`)
		},
		"u-none": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(404)
			write(w, `{"type":"/problems/user-not-found","title":"User not found","status":404,`+
				`"detail":"It has no streams.","errors":[{"location":"path.user","message":"m"}]}`)
		},
		"u-slow": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		pages[r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]](w, r)
	}))
	defer srv.Close()
	c, err := New(Config{Server: srv.URL, Timeout: time.Second})
	require.NoError(t, err)
	defer func() { assert.NoError(t, c.Close(t.Context())) }()

	u, err := c.List(t.Context(), "u-ok")
	require.NoError(t, err, "unknown fields are ignored")
	assert.Equal(t, apitype.User{UserID: "u-ok", Streams: 1, Limit: 3, Active: []apitype.Stream{{ID: "s"}}}, u)
	_, err = c.List(t.Context(), "u-long")
	require.ErrorIs(t, err, errUnreadable)
	_, err = c.List(t.Context(), "u-redirect")
	require.EqualError(t, err, "list streams of u-redirect: 301 Moved Permanently: it redirects to "+srv.URL+
		", and redirects are not followed: use that address as the server")
	_, err = c.List(t.Context(), "u-cut")
	require.Error(t, err)
	_, err = c.List(t.Context(), "u-none")
	require.EqualError(t, err, "list streams of u-none: 404 User not found: It has no streams.; path.user: m")
	_, err = c.List(t.Context(), "u-slow")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.EqualError(t, err, "list streams of u-slow: no answer within 1s")
}

func TestCalls(t *testing.T) {
	var calls atomic.Int32
	c, w := newClient(t, Config{}, func(r *http.Request) (*http.Response, error) {
		calls.Add(1)
		switch r.Method + " " + r.URL.Path {
		case "GET /api/v1/stats":
			return good(`{"streams":7,"users":4,"revision":12}`)
		case "DELETE /api/v1/streams/users/maya":
			return good(apitype.Removed{UserID: "maya", Message: "User removed from tracking"})
		case "POST /api/v1/streams/users/maya/stop":
			return good(apitype.User{UserID: "maya", Streams: 1})
		}
		return nil, errors.New("no such call: " + r.Method + " " + r.URL.Path)
	})
	stats, err := c.Stats(t.Context())
	require.NoError(t, err)
	assert.Equal(t, 7, stats.Streams)
	removed, err := c.Remove(t.Context(), "maya")
	require.NoError(t, err)
	assert.Equal(t, "User removed from tracking", removed.Message)
	left, err := c.StopOldestHeartbeat(t.Context(), "maya")
	require.NoError(t, err)
	assert.Equal(t, 1, left.Streams)
	assert.Empty(t, w.requests("/stop")[0].body)
	assert.EqualValues(t, 3, calls.Load())
}

// Repeated, it would stop a second stream.
func TestStopOldestHeartbeat_IsSentOnce(t *testing.T) {
	c, w := newClient(t, Config{}, func(*http.Request) (*http.Response, error) { return nil, errNetwork })
	_, err := c.StopOldestHeartbeat(t.Context(), "maya")
	require.ErrorIs(t, err, errNetwork)
	assert.Len(t, w.requests("/stop"), 1)
}

func TestParseRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // virtual time
		for header, want := range map[string]time.Duration{
			"": 0, "5": 5 * time.Second, "-5": 0, "x": 0, "99999999999": maxRetryAfter,
			time.Now().Add(time.Minute).UTC().Format(http.TimeFormat):  time.Minute,
			time.Now().Add(-time.Minute).UTC().Format(http.TimeFormat): 0,
		} {
			assert.Equal(t, want, parseRetryAfter(header), header)
		}
	})
}
