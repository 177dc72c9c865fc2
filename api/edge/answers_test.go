package edge

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/api/edge/profile"
	"streamcount/internal/testing/etcdtest"
	"streamcount/lease"
)

// Every kind of answer has its status and headers.
func TestAnswers(t *testing.T) {
	t.Parallel()
	n, l := startNode(t)
	first := n.check(t, "vod", "/vod/film/1.ts?sid=a")
	assert.Equal(t, 200, first.StatusCode)
	assert.Equal(t, "no-store", first.Header.Get("Cache-Control"))
	assert.Equal(t, "allow", first.Header.Get("X-Streamcount-Decision"))
	assert.Equal(t, "maya", first.Header.Get("X-Streamcount-User"))
	assert.Len(t, first.Header.Get("X-Streamcount-Session"), 16)
	assert.Equal(t, "1", first.Header.Get("X-Streamcount-Streams"))
	assert.Equal(t, "1", first.Header.Get("X-Streamcount-Limit"))
	assert.Equal(t, "1", first.Header.Get("X-Accel-Expires"))
	assert.Len(t, first.Header["Set-Cookie"], 1)
	assert.EqualValues(t, 0, first.ContentLength)
	assert.Empty(t, first.Header.Get("X-Streamcount-Degraded"))

	again := n.check(t, "vod", "/vod/film/2.ts?sid=a")
	assert.Equal(t, 200, again.StatusCode)
	assert.Equal(t, "1", again.Header.Get("X-Accel-Expires"))
	assert.Equal(t, first.Header.Get("X-Streamcount-Session"), again.Header.Get("X-Streamcount-Session"))
	all := streams(t, l, "maya")
	require.Len(t, all, 1)
	assert.Equal(t, "edge:vod", all[0].Via)
	assert.Equal(t, "film", all[0].Content.ID)

	full := n.check(t, "vod", "/vod/film/1.ts?sid=b")
	assert.Equal(t, 403, full.StatusCode)
	assert.Equal(t, "deny", full.Header.Get("X-Streamcount-Decision"))
	assert.Equal(t, "limit", full.reason())
	assert.Equal(t, "0", full.Header.Get("X-Accel-Expires"))
	assert.NotEmpty(t, full.Header.Get("Retry-After"))
	assert.Empty(t, full.Header.Get("Set-Cookie"))
	assert.Equal(t, "application/problem+json", full.Header.Get("Content-Type"))
	assert.Positive(t, full.ContentLength)
	var p apitype.Problem
	require.NoError(t, json.Unmarshal([]byte(full.body), &p))
	assert.Equal(t, "Maximum number of streams reached", p.Title)
	require.Len(t, p.Active, 1)
	assert.Equal(t, "film", p.Active[0].Content.ID)
	assert.NotContains(t, full.body, all[0].ID, "the id permits to stop the stream")
	assert.NotContains(t, full.body, `"session"`)

	for name, tt := range map[string]struct {
		method, target, user string
		status               int
		reason               string
	}{
		"an uncounted extension":  {"GET", "/vod/film/poster.jpg", "", 200, ""},
		"another path":            {"GET", "/other", "", 200, ""},
		"a preflight":             {"OPTIONS", "/vod/film/1.ts", "", 200, ""},
		"HEAD of another session": {"HEAD", "/vod/film/1.ts?sid=new", "maya", 200, ""},
		"no identity":             {"GET", "/vod/film/1.ts", "", 401, "identity"},
		"HEAD without identity":   {"HEAD", "/vod/film/1.ts", "", 401, "identity"},
		"an encoded separator":    {"GET", "/vod/a%2Fb/1.ts", "maya", 403, "uri"},
		"an encoded path":         {"GET", "/%76od/film/1.ts?sid=b", "maya", 403, "limit"},
		"dot segments":            {"GET", "/x/../vod/film/1.ts?sid=b", "maya", 403, "limit"},
	} {
		got := n.checkAs(t, "vod", tt.method, tt.target, tt.user)
		assert.Equal(t, tt.status, got.StatusCode, name)
		assert.Equal(t, tt.reason, got.reason(), name)
		assert.Equal(t, "0", got.Header.Get("X-Accel-Expires"), name)
		assert.Equal(t, "no-store", got.Header.Get("Cache-Control"), name)
		assert.NotEmpty(t, got.Header.Get("Content-Length"), name)
		assert.Equal(t, tt.status == 401, got.Header.Get("WWW-Authenticate") == "Bearer", name)
	}
	assert.Len(t, streams(t, l, "maya"), 1, "HEAD starts nothing")
}

// A session whose stream was ended on purpose is refused while its player continues to ask.
func TestBars(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]struct {
		end    func(t *testing.T, n node, l *lease.Limiter)
		reason string
	}{
		"stopped": {func(t *testing.T, _ node, l *lease.Limiter) {
			t.Helper()
			_, err := l.Stop(t.Context(), "maya", streams(t, l, "maya")[0].ID)
			require.NoError(t, err)
		}, "stopped"},
		"removed": {func(t *testing.T, _ node, l *lease.Limiter) {
			t.Helper()
			_, err := l.Remove(t.Context(), "maya")
			require.NoError(t, err)
		}, "removed"},
		"evicted": {func(t *testing.T, n node, _ *lease.Limiter) {
			t.Helper()
			require.Equal(t, 200, n.check(t, "evict", "/vod/film/1.ts?sid=b").StatusCode)
		}, "evicted"},
		"replaced": {func(t *testing.T, _ node, l *lease.Limiter) {
			t.Helper()
			_, err := l.Start(t.Context(), "maya", lease.Request{Replaces: []string{streams(t, l, "maya")[0].ID}})
			require.NoError(t, err)
		}, "replaced"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, l := startNode(t)
			require.Equal(t, 200, n.check(t, "vod", "/vod/film/1.ts?sid=a").StatusCode)
			end.end(t, n, l)
			var got reply
			require.Eventually(t, func() bool {
				got = n.check(t, "vod", "/vod/film/2.ts?sid=a")
				return got.StatusCode == 403
			}, soon, time.Millisecond)
			for range 20 {
				got = n.check(t, "vod", "/vod/film/3.ts?sid=a")
				require.Equal(t, 403, got.StatusCode)
			}
			assert.Equal(t, end.reason, got.reason())
			assert.NotEmpty(t, got.Header.Get("Retry-After"))
			assert.Contains(t, got.body, `"reason":"`+end.reason+`"`)
			assert.Contains(t, got.body, `"status":403`)
			head := n.checkAs(t, "vod", http.MethodHead, "/vod/film/3.ts?sid=a", "maya")
			assert.Equal(t, 403, head.StatusCode, "HEAD needs that there is no bar")
			assert.Equal(t, end.reason, head.reason())
			if name == "stopped" {
				assert.Equal(t, 200, n.check(t, "vod", "/vod/film/3.ts?sid=c").StatusCode, "another session may play")
			}
		})
	}
}

// Leave ends the stream of the session without a bar.
func TestLeave(t *testing.T) {
	t.Parallel()
	n, l := startNode(t)
	require.Equal(t, 200, n.check(t, "vod", "/vod/film/1.ts?sid=a").StatusCode)
	url := n.url + "/edge/v1/vod/leave?sid=a"
	assert.Equal(t, 401, send(t, http.MethodPost, url, nil).StatusCode)
	got := send(t, http.MethodGet, url, map[string]string{"X-User": "maya"})
	assert.Equal(t, 405, got.StatusCode)
	assert.Equal(t, "POST", got.Header.Get("Allow"))
	assert.Len(t, streams(t, l, "maya"), 1)
	assert.Equal(t, 204, send(t, http.MethodPost, url, map[string]string{"X-User": "maya"}).StatusCode)
	assert.Empty(t, streams(t, l, "maya"))
	assert.Equal(t, 204, send(t, http.MethodPost, url, map[string]string{"X-User": "maya"}).StatusCode, "there is none")
	assert.Equal(t, 200, n.check(t, "vod", "/vod/film/1.ts?sid=a").StatusCode)
}

// Switching content moves the stream of the session, or starts another one.
func TestChange(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, etcdtest.Client(t), lease.Config{Prefix: etcdtest.Prefix(t), Limit: 2})
	n := newNode(t, Config{}, l)
	require.Equal(t, 200, n.check(t, "split", "/vod/a/1.ts?sid=s").StatusCode)
	require.Equal(t, 200, n.check(t, "split", "/vod/b/1.ts?sid=s").StatusCode)
	assert.Len(t, streams(t, l, "maya"), 2)
	assert.Equal(t, 403, n.check(t, "split", "/vod/c/1.ts?sid=s").StatusCode)

	ben := func(target string) reply { return n.checkAs(t, "vod", http.MethodGet, target, "ben") }
	require.Equal(t, 200, ben("/vod/a/1.ts?sid=s").StatusCode)
	content := func() string {
		all := streams(t, l, "ben")
		require.Len(t, all, 1, "one slot")
		return all[0].Content.ID
	}
	require.Equal(t, 200, ben("/vod/b/1.ts?sid=s").StatusCode)
	assert.Equal(t, "a", content(), "the stream has just started")
	require.Eventually(t, func() bool {
		require.Equal(t, 200, ben("/vod/b/2.ts?sid=s").StatusCode)
		return content() == "b"
	}, soon, 100*time.Millisecond)
	assert.Equal(t, 200, ben("/vod/b/3.ts?sid=s").StatusCode, "the move sets no bar")
}

// A late request for the previous content does not move the stream back.
func TestMustMove(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change  profile.Change
		content string
		age     time.Duration
		want    bool
	}{
		"the same content":    {profile.Move, "b", time.Hour, false},
		"other content":       {profile.Move, "a", moveInterval, true},
		"a late request":      {profile.Move, "a", 0, false},
		"without content":     {profile.Move, "", time.Hour, false},
		"with a stream of it": {profile.Split, "a", time.Hour, false},
	} {
		ch := check{profile: &profile.Profile{Change: tt.change}, target: profile.Target{Content: tt.content}}
		s := lease.Stream{Content: lease.Content{ID: "b"}, StartedAt: time.Now().Add(-tt.age)}
		assert.Equal(t, tt.want, ch.mustMove(s), name)
	}
}
