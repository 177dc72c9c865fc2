package client

import (
	"cmp"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
)

type answerer func(*http.Request) (*http.Response, error)

// A wire answers requests in memory, so that it works inside a synctest bubble.
type wire struct {
	t      *testing.T
	answer answerer

	mu   sync.Mutex
	seen []seen
}

// seen is one request that was sent.
type seen struct {
	at           time.Time
	method, path string
	body         string
}

func (w *wire) RoundTrip(r *http.Request) (*http.Response, error) {
	s := seen{at: time.Now(), method: r.Method, path: r.URL.EscapedPath()}
	if r.Body != nil {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		s.body = string(b)
	}
	w.mu.Lock()
	w.seen = append(w.seen, s)
	w.mu.Unlock()
	return w.answer(r)
}

// requests returns the requests so far whose path ends in suffix.
func (w *wire) requests(suffix string) []seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	var found []seen
	for _, s := range w.seen {
		if strings.HasSuffix(s.path, suffix) {
			found = append(found, s)
		}
	}
	return found
}

// newClient returns a Client whose requests are answered by answer.
func newClient(t *testing.T, cfg Config, answer answerer) (*Client, *wire) {
	t.Helper()
	w := &wire{t: t, answer: answer}
	cfg.HTTP = &http.Client{Transport: w}
	c, err := New(cfg)
	require.NoError(t, err)
	return c, w
}

func reply(status int, contentType string, body any) *http.Response {
	text, ok := body.(string)
	if !ok {
		b, err := json.Marshal(body)
		if err != nil {
			panic(err) // the test's own body
		}
		text = string(b)
	}
	return &http.Response{
		StatusCode: status,
		Header:     http.Header{"Content-Type": {contentType}},
		Body:       io.NopCloser(strings.NewReader(text)),
	}
}

func good(body any) (*http.Response, error) { return reply(200, "application/json", body), nil }

func problem(p apitype.Problem, header ...string) (*http.Response, error) {
	p.Type = cmp.Or(p.Type, "/problems/some-kind")
	resp := reply(p.Status, "application/problem+json; charset=utf-8", p)
	for i := 0; i+1 < len(header); i += 2 {
		resp.Header.Set(header[i], header[i+1])
	}
	return resp, nil
}

// stream returns the fake service's only stream.
func stream(ttl, pace int) apitype.Stream {
	return apitype.Stream{ID: "s1", TTLSeconds: ttl, HeartbeatSeconds: pace}
}

// service admits every start and answers the nth heartbeat with the result of answer(n).
func service(ttl, pace int, answer func(n int) (*http.Response, error)) answerer {
	var mu sync.Mutex
	heartbeats := 0
	return func(r *http.Request) (*http.Response, error) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/start"):
			s := stream(ttl, pace)
			return good(apitype.User{UserID: "maya", Streams: 1, Limit: 3, Stream: &s})
		case strings.HasSuffix(r.URL.Path, "/heartbeat"):
			mu.Lock()
			heartbeats++
			n := heartbeats
			mu.Unlock()
			return answer(n)
		}
		return good(apitype.User{UserID: "maya"})
	}
}
