package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/browser"
)

// A script stands for the service where a test has to decide what it answers.
type script struct {
	URL string

	mu     sync.Mutex
	starts int
	beats  []http.HandlerFunc // answers to the next heartbeats, one each; then all is well
	first  []http.HandlerFunc // likewise for starts
	calls  []string           // what was asked, with the credential
	wishes []string           // onLimit of the starts
	token  string             // demanded of every call, unless empty
}

const emptyPage = `<!doctype html><html lang="en"><title>player</title><main><h1>Player</h1></main></html>`

func newScript(t *testing.T) *script {
	t.Helper()
	s, mux := &script{}, http.NewServeMux()
	for path, page := range Pages() {
		if strings.HasSuffix(path, ".js") {
			mux.Handle("GET "+path, page)
		}
	}
	mux.HandleFunc("GET /player", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Security-Policy", policy)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(emptyPage))
	})
	mux.HandleFunc("POST "+users+"maya/start", s.start)
	mux.HandleFunc("POST "+users+"maya/streams/{id}/{call}", s.stream)
	mux.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// next notes a call and takes its answer from the list; nil if all is well.
func (s *script) next(r *http.Request, answers *[]http.HandlerFunc) http.HandlerFunc {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, strings.TrimSpace(r.URL.Path[len(users):]+" "+r.Header.Get("Authorization")))
	if s.token != "" && r.Header.Get("Authorization") != "Bearer "+s.token {
		return problem(401, `"title":"Credential missing or not valid"`)
	}
	if len(*answers) == 0 {
		return nil
	}
	answer := (*answers)[0]
	*answers = (*answers)[1:]
	return answer
}

func (s *script) start(w http.ResponseWriter, r *http.Request) {
	var wish struct{ OnLimit string }
	_ = json.NewDecoder(r.Body).Decode(&wish)
	s.mu.Lock()
	s.wishes = append(s.wishes, wish.OnLimit)
	s.mu.Unlock()
	if answer := s.next(r, &s.first); answer != nil {
		answer(w, r)
		return
	}
	s.mu.Lock()
	s.starts++
	id := fmt.Sprint("s", s.starts)
	s.mu.Unlock()
	say(w, 200, `{"userId":"maya","streams":1,"limit":3,"stream":`+living(id)+`}`)
}

func (s *script) stream(w http.ResponseWriter, r *http.Request) {
	none := []http.HandlerFunc{}
	answers := &none
	if r.PathValue("call") == "heartbeat" {
		answers = &s.beats
	}
	if answer := s.next(r, answers); answer != nil {
		answer(w, r)
		return
	}
	say(w, 200, living(r.PathValue("id")))
}

func living(id string) string {
	return fmt.Sprintf(`{"id":%q,"ttlSeconds":3,"heartbeatSeconds":1,"startedAt":"2026-05-04T20:15:00.000Z"}`, id)
}

func say(w http.ResponseWriter, status int, body string) {
	w.Header().Set("Content-Type", "application/json")
	if status >= 400 {
		w.Header().Set("Content-Type", "application/problem+json")
	}
	w.WriteHeader(status)
	_, _ = w.Write([]byte(body))
}

func problem(status int, fields string, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if len(header) > 0 {
			w.Header().Set(header[0], header[1])
		}
		say(w, status, fmt.Sprintf(`{"type":"/problems/x","status":%d,%s}`, status, fields))
	}
}

func html(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(emptyPage))
	}
}

// hangUp breaks off in the middle of an answer. Before its beginning, browsers ask
// again by themselves.
func hangUp(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", "100")
	_, _ = w.Write([]byte(`{"id":`))
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// heard are the events of the stream that start made, with their reason.
func heard(tab *browser.Tab) []string {
	return strings.Fields(browser.Eval[string](tab,
		`heard.map((h) => h.type + (h.reason ? ":" + h.reason : "") + (h.quiet ? ":quiet" : "")).join(" ")`))
}

func (s *script) waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return done()
	}, browser.Patience, 10*time.Millisecond, what)
}

// The client rule: whatever is answered but a word on the stream ends nothing.
func TestClient_PlaysOn(t *testing.T) {
	t.Parallel()
	for _, worker := range []string{"true", "false"} {
		t.Run("worker "+worker, func(t *testing.T) {
			t.Parallel()
			s := newScript(t)
			s.first = []http.HandlerFunc{html(502), problem(503, `"title":"Away"`, "Retry-After", "1"), hangUp, html(200)}
			s.beats = []http.HandlerFunc{
				problem(503, `"title":"Away"`, "Retry-After", "1"), problem(429, `"title":"Too fast"`, "Retry-After", "600"),
				html(500), html(200), html(410), html(404), problem(403, `"title":"Not allowed"`), hangUp,
				func(w http.ResponseWriter, _ *http.Request) {
					say(w, 200, `{"id":"s1","degraded":true,"ttlSeconds":3}`)
				},
			}
			tab := browser.Open(t).Tab(s.URL + "/player")
			start(tab, `{ user: "maya", worker: `+worker+` }`)
			assert.Equal(t, "waiting", browser.Eval[string](tab, `made.state`))
			assert.True(t, browser.Eval[bool](tab, `made.mayPlay`))
			s.waitFor(t, "all answers", func() bool { return len(s.first) == 0 && len(s.beats) == 0 })
			tab.Wait("it is well again", `heard.some((h) => h.type === "recovered")`)
			assert.Equal(t, []string{"waiting", "waiting", "waiting", "waiting", "started", "degraded", "recovered"}, heard(tab))
			assert.Equal(t, worker == "true", browser.Eval[bool](tab, `made.inWorker`))
			assert.Equal(t, "s1", browser.Eval[string](tab, `made.info.id`))
		})
	}
}

// What becomes of a stream that is gone depends on why.
func TestClient_Gone(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.beats = []http.HandlerFunc{
		problem(410, `"reason":"expired"`), problem(410, `"reason":"ended"`), problem(404, `"title":"Stream not found"`),
		problem(410, `"reason":"evicted","by":{"device":{"name":"TV"}}`),
	}
	tab := browser.Open(t).Tab(s.URL + "/player")
	start(tab, `{ user: "maya", onLimit: "replace-oldest" }`)
	tab.Wait("it was evicted", `made.state === "ended"`)
	assert.Equal(t, []string{"started", "lost:expired", "started:quiet", "lost:ended", "started:quiet", "lost:unknown",
		"started:quiet", "evicted:evicted", "ended:evicted"}, heard(tab))
	assert.Equal(t, "TV", browser.Eval[string](tab, `made.ending.by.device.name`))
	assert.False(t, browser.Eval[bool](tab, `made.mayPlay`))
	assert.Equal(t, "playing", browser.Eval[string](tab, `made.start()`), "if the viewer wants it")

	s.mu.Lock()
	assert.Equal(t, []string{"replace-oldest", "", "", "", "replace-oldest"}, s.wishes, "a quiet start evicts nobody")
	s.first = []http.HandlerFunc{problem(403, `"limit":1,"streams":1,"active":[`+living("x")+`],"evictAfterSeconds":9`)}
	s.beats = []http.HandlerFunc{problem(410, `"reason":"expired"`)}
	s.mu.Unlock()
	tab.Wait("the place was taken meanwhile", `made.state === "refused"`)
	assert.False(t, browser.Eval[bool](tab, `made.mayPlay`))
	assert.Equal(t, "x 9", browser.Eval[string](tab, `made.refusal.active[0].id + " " + made.refusal.evictAfterSeconds`))
	assert.Equal(t, []string{"started", "lost:expired", "refused:quiet"}, heard(tab)[9:])
}

// A request that is wrong is nobody's limit.
func TestClient_Wrong(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.first = []http.HandlerFunc{
		problem(422, `"title":"Not valid","detail":"device.name is too long"`), problem(403, `"title":"Not allowed"`),
	}
	tab := browser.Open(t).Tab(s.URL + "/player")
	start(tab, `{ user: "maya" }`)
	assert.Equal(t, "failed true device.name is too long",
		browser.Eval[string](tab, "`${made.state} ${made.mayPlay} ${heard[0].detail}`"))
	assert.Equal(t, "failed", browser.Eval[string](tab, `made.start()`), "a 403 that names no limit")
	assert.True(t, browser.Eval[bool](tab, `made.mayPlay`))
	assert.Equal(t, "playing", browser.Eval[string](tab, `made.start()`))
	browser.Eval[*struct{}](tab, `made.close().then(() => null)`)
	s.waitFor(t, "a stop", func() bool { return s.calls[len(s.calls)-1] == "maya/streams/s1/stop" })
}

// Credentials are asked for, refreshed when they are no longer good, and sent with
// the stop of a page that is being closed.
func TestClient_Credential(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.token = "one"
	tab := browser.Open(t).Tab(s.URL + "/player")
	start(tab, `{ user: "maya", idIsEnough: false, token: async ({ refused }) => {
		window.asked = (window.asked ?? 0) + 1;
		return refused ? "two" : "one";
	} }`)
	s.waitFor(t, "a heartbeat", func() bool { return s.calls[len(s.calls)-1] == "maya/streams/s1/heartbeat Bearer one" })
	s.mu.Lock()
	s.token = "two"
	s.mu.Unlock()
	s.waitFor(t, "the other", func() bool { return s.calls[len(s.calls)-1] == "maya/streams/s1/heartbeat Bearer two" })
	assert.Equal(t, 2, browser.Eval[int](tab, `asked`))
	assert.Equal(t, []string{"started"}, heard(tab))
	tab.Close()
	s.waitFor(t, "a stop", func() bool { return s.calls[len(s.calls)-1] == "maya/streams/s1/stop Bearer two" })
}

// A player on another origin loads the client from the node, whose worker then comes
// by way of a blob. Where the page's policy forbids that, the page itself beats.
func TestClient_OtherOrigin(t *testing.T) {
	t.Parallel()
	var node string
	film := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		worker := "worker-src blob: " + node
		if r.URL.Path == "/strict" {
			worker = "worker-src 'none'"
		}
		w.Header().Set("Content-Security-Policy", fmt.Sprintf("default-src 'none'; script-src %s; connect-src %s; %s",
			node, node, worker))
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte(emptyPage))
	}))
	t.Cleanup(film.Close)
	n, p := browser.StartNode(t, "--cors-origins="+film.URL), browser.Open(t)
	node = n.URL
	for path, inWorker := range map[string]bool{"/": true, "/strict": false} {
		tab := p.Tab(film.URL + path)
		got := browser.Eval[string](tab, `import("`+n.URL+`/streamcount.js").then(async ({ Stream }) => {
			window.made = new Stream({ user: "maya", name: "`+path+`" });
			await made.start();
			return JSON.stringify(made.info);
		})`)
		var info struct{ ID string }
		require.NoError(t, json.Unmarshal([]byte(got), &info))
		tab.Wait("it knows where it beats", `made.inWorker !== null`)
		assert.Equal(t, inWorker, browser.Eval[bool](tab, `made.inWorker`), path)
		expires := browser.Eval[string](tab, `made.info.expiresAt`)
		tab.Wait("it beats", `made.info.expiresAt > "`+expires+`" && !made.degraded`)
		assert.Equal(t, info.ID, await(t, n, "maya", 1).Active[0].ID)
		if !inWorker {
			assert.NotEmpty(t, tab.Complaints(), "the browser says what the policy forbade")
		}
		tab.Close()
		await(t, n, "maya", 0)
	}
}
