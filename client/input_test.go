package client

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"streamcount/api/apitype"
)

// Every valid id arrives unchanged, under the right path.
func TestUserIDs_ArriveUnchanged(t *testing.T) {
	var got string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		base, id, _ := strings.Cut(r.URL.EscapedPath(), "/users/")
		got, _ = url.PathUnescape(id)
		if base != "/api/v1/streams" || strings.Contains(id, "/") || path.Clean("/x/"+id+"/y") != "/x/"+id+"/y" {
			got = "another path: " + id
		}
		w.Header().Set("Content-Type", "application/json")
		write(w, `{"userId":"x","from":"a later version"}`)
	}))
	defer server.Close()
	c, err := New(Config{Server: server.URL})
	require.NoError(t, err)
	check := func(t require.TestingT, user string) {
		_, err := c.List(context.Background(), user)
		require.NoError(t, err, "%q", user)
		require.Equal(t, user, got)
	}
	for _, user := range []string{
		`CORP\ann`, "o'brien@x.example", "müller", "tom/admin", "ann lee", "S//808E9UOiYKKAkagOBLGxvuLUbDCXlp8sZz6ilew8=",
		".", "..", "...", "../x", "a/../b", "%2e%2e", "%", "a?b#c", "-n", "--", " ", "a;b,c", "📺", "mu\u0308ller", "\u2028", "auth0|a+b",
		strings.Repeat("é", 64),
	} {
		check(t, user)
	}
	rapid.Check(t, func(t *rapid.T) {
		user := rapid.StringN(1, 40, 128).Draw(t, "user")
		if checkUser(user) == nil {
			check(t, user)
		}
	})
}

func TestCleanStart(t *testing.T) {
	dev, con := &apitype.Device{Name: "TV \xf0\x9f", Type: strings.Repeat("é", 201)}, &apitype.Content{Title: strings.Repeat("📺", 200) + "x"}
	got, err := cleanStart(apitype.Start{Device: dev, Content: con})
	require.NoError(t, err)
	assert.Equal(t, "TV \uFFFD", got.Device.Name)
	assert.Equal(t, strings.Repeat("é", 200), got.Device.Type)
	assert.Equal(t, strings.Repeat("📺", 200), got.Content.Title)
	assert.Equal(t, "TV \xf0\x9f", dev.Name, "the caller's own is not changed")
	for _, bad := range []apitype.Start{
		{Session: "\xff"}, {Replaces: apitype.StreamIDs{"\xff"}}, {Plan: "\xff"}, {Device: &apitype.Device{ID: "\xff"}}, {Content: &apitype.Content{ID: "a\xc3"}},
		{Profile: "\xff"}, {Network: "\xff"}, {Labels: apitype.Labels{"k": "\xff"}}, {Content: &apitype.Content{Type: "\xff"}}, {Content: &apitype.Content{Labels: []string{"\xff"}}},
	} {
		_, err := cleanStart(bad)
		require.ErrorIs(t, err, ErrInvalid, "JSON would make another id of %+v", bad)
	}
	long := strings.Repeat("x", 300)
	got, err = cleanStart(apitype.Start{Session: long, Device: &apitype.Device{ID: long}})
	require.NoError(t, err)
	assert.Equal(t, []string{long, long}, []string{got.Session, got.Device.ID}, "ids are not cut")
}

func TestLabel_Properties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOf(rapid.Byte()).Draw(t, "text"))
		if rapid.Bool().Draw(t, "long") {
			text = strings.Repeat(text, 100)
		}
		got := label(text)
		require.True(t, utf8.ValidString(got))
		require.LessOrEqual(t, utf8.RuneCountInString(got), apitype.MaxLabel)
		require.Equal(t, got, label(got))
		require.True(t, strings.HasPrefix(strings.ToValidUTF8(text, "\uFFFD"), got))
	})
}

func TestServer_KeepsSecrets(t *testing.T) {
	for _, server := range []string{
		"ftp://me:secret@x", "http://me:secret@", "http://secret@h/?a=b", "http://me:secret@h/#x", "http://me:secret@h:port", "me:secret@h",
		"http://me:sec%zzret@h", "http://me:secret@other.example",
	} {
		_, err := New(Config{Server: server})
		require.ErrorIs(t, err, ErrInvalid, server)
		assert.NotContains(t, err.Error(), "secret")
		assert.NotContains(t, err.Error(), "me:")
	}
	c, err := New(Config{Server: "http://me:secret@127.0.0.1:1", Attempts: 1})
	require.NoError(t, err)
	_, err = c.List(t.Context(), "maya")
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "secret")
	assert.NotContains(t, err.Error(), "me")
}

// A credential is not sent over http to another machine, unless that is configured.
func TestServer_Plaintext(t *testing.T) {
	for server, allowed := range map[string]bool{
		"http://127.0.0.1:3000": true, "http://127.9.9.9": true, "http://[::1]:3000": true, "http://[::ffff:127.0.0.1]": true,
		"http://localhost": true, "http://LOCALHOST.:3000": true, "http://a.localhost": true, "https://streams.example": true,
		"http://streams.example": false, "http://10.0.0.1": false, "http://[fd00::1]": false, "http://localhost.example": false,
		"http://127.0.0.1.example": false, "http://0.0.0.0": false, "http://[::]": false, "http://notlocalhost": false,
	} {
		_, err := New(Config{Server: server, Credential: "key"})
		assert.Equal(t, allowed, err == nil, "%s: %v", server, err)
		if !allowed {
			require.ErrorIs(t, err, ErrPlaintext)
		}
		_, err = New(Config{Server: server, Credential: "key", PlaintextCredential: true})
		require.NoError(t, err)
		_, err = New(Config{Server: server})
		require.NoError(t, err, "without a credential there is nothing to read")
	}
}

// No redirect is followed, whatever the caller's http.Client does.
func TestRedirects(t *testing.T) {
	var visits int
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { visits++ }))
	defer other.Close()
	server := httptest.NewServer(http.RedirectHandler(other.URL+"/login?secret=1", http.StatusTemporaryRedirect))
	defer server.Close()
	follow := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return nil }}
	for _, own := range []*http.Client{nil, {}, follow} {
		c, err := New(Config{Server: server.URL, HTTP: own, Credential: "key"})
		require.NoError(t, err)
		_, err = c.Start(t.Context(), "maya", apitype.Start{})
		require.ErrorContains(t, err, "307 Temporary Redirect: it redirects to "+other.URL+", and redirects are not followed")
		for _, err := range c.Events(t.Context(), EventOptions{}) {
			require.ErrorContains(t, err, "307")
		}
	}
	assert.Zero(t, visits)
}

// A rejected start is reported with its members, and StartEventually repeats it at long intervals.
func TestStartEventually(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var problems []*ProblemError
		c, w := newClient(t, Config{OnProblem: func(p *ProblemError) { problems = append(problems, p) }}, service(90, 30, alive))
		plain := w.answer
		answers := []apitype.Problem{
			{Status: 422, Title: "Not valid", Errors: []apitype.FieldError{{Location: "body.session", Message: "too long"}}},
			{Status: 401}, {Status: 404}, {Status: 403, Title: "Not allowed", Limit: ptr(3)}, {Status: 415}, {Status: 431}, {Status: 413},
		}
		w.answer = func(r *http.Request) (*http.Response, error) {
			if n := len(w.requests("/start")); n <= len(answers) {
				return problem(answers[n-1])
			}
			return plain(r)
		}
		s, err := c.StartEventually(t.Context(), "maya", apitype.Start{})
		require.NoError(t, err)
		require.Len(t, problems, len(answers))
		assert.Contains(t, problems[0].Error(), "422 Not valid; body.session: too long")
		sent := w.requests("/start")
		for i, r := range sent[1:] {
			assert.Equal(t, sent[0].body, r.body, "one start")
			wait := r.at.Sub(sent[i].at)
			assert.GreaterOrEqual(t, wait, min(15*time.Second<<i, 150*time.Second))
			assert.LessOrEqual(t, wait, 5*time.Minute)
		}
		require.NoError(t, s.Stop(t.Context()))

		w.answer = func(*http.Request) (*http.Response, error) {
			return problem(apitype.Problem{Status: 403, Title: "Maximum number of streams reached", Limit: ptr(3)})
		}
		_, err = c.StartEventually(t.Context(), "maya", apitype.Start{})
		require.ErrorIs(t, err, ErrLimit, "a refusal is final")

		down := 0
		w.answer = func(*http.Request) (*http.Response, error) { down++; return nil, errNetwork }
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		_, err = c.StartEventually(ctx, "maya", apitype.Start{})
		require.ErrorIs(t, err, errNetwork)
		assert.Greater(t, down, 240, "without an answer it tries all the time")
		require.Len(t, problems, len(answers))
		_, err = c.StartEventually(t.Context(), "", apitype.Start{})
		require.ErrorIs(t, err, ErrInvalid)
		require.NoError(t, c.Close(t.Context()))
		_, err = c.StartEventually(t.Context(), "maya", apitype.Start{})
		require.ErrorIs(t, err, ErrClosed)
	})
}

// A rejected heartbeat does not end the stream. Consecutive rejections are reported once.
func TestHeartbeat_Rejected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		problems := 0
		plain := service(90, 30, alive)
		var c *Client
		var w *wire
		c, w = newClient(t, Config{OnProblem: func(*ProblemError) { problems++ }}, func(r *http.Request) (*http.Response, error) {
			switch n := len(w.requests("/heartbeat")); {
			case !strings.HasSuffix(r.URL.Path, "/heartbeat"):
			case n <= 3 || n == 6:
				return problem(apitype.Problem{Status: 403, Title: "Not allowed"})
			case n == 4:
				return problem(apitype.Problem{Status: 503})
			case n == 7:
				return problem(apitype.Problem{Status: 410, Reason: "superseded"})
			}
			return plain(r)
		})
		s := mustStart(t, c)
		<-s.Done()
		var ended *EndedError
		require.ErrorAs(t, s.Err(), &ended)
		assert.Equal(t, "superseded", ended.Reason, "a reason that this version does not know is the reason")
		assert.Equal(t, 2, problems)
	})
}

func TestRefusal_Bounds(t *testing.T) {
	for status, body := range map[int]string{
		403: `{"title":"Maximum number of streams reached","evictAfterSeconds":9223372036854775807,"new":{"a":[1]}}`,
		410: `{"type":"/problems/stream-ended","reason":"elsewhere","since":1}`,
	} {
		resp := reply(status, "application/problem+json", body)
		for _, after := range []string{"99999999999999999999", "9223372036854775807", "-5", "86401", "Fri, 31 Dec 9999 23:59:59 GMT", "soon"} {
			resp.Header.Set("Retry-After", after)
			err := refusal(resp, []byte(body))
			if full, ok := errors.AsType[*LimitError](err); ok {
				assert.LessOrEqual(t, full.RetryAfter, maxRetryAfter)
				assert.GreaterOrEqual(t, full.RetryAfter, time.Duration(0))
				assert.Equal(t, maxRetryAfter, full.EvictAfter)
				continue
			}
			assert.Equal(t, &EndedError{Reason: "elsewhere"}, err)
		}
	}
	_, isGone := asEnded(refusal(reply(410, "text/html", "<p>gone"), []byte("<p>gone")))
	assert.False(t, isGone, "the page of a proxy ends no stream")
	b, err := json.Marshal(apitype.Problem{Errors: make([]apitype.FieldError, 1000)})
	require.NoError(t, err)
	assert.Less(t, len(refusal(reply(422, "application/problem+json", string(b)), b).Error()), 200)
}
