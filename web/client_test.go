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

	"streamcount/internal/testing/browser"
)

// A script is a fake service whose answers a test determines.
type script struct {
	URL string

	mu               sync.Mutex
	starts           int
	heartbeatAnswers []http.HandlerFunc // answers to the next heartbeats, one each; later ones succeed
	startAnswers     []http.HandlerFunc // answers to the next starts, one each; later ones succeed
	calls            []string           // paths, with the credential
	onLimit          []string           // of the starts
	token            string             // required of every call, unless empty
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
	mux.HandleFunc("POST "+users+"{user}/start", s.start)
	mux.HandleFunc("POST "+users+"{user}/streams/{id}/{call}", s.stream)
	mux.HandleFunc("GET /favicon.ico", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	s.URL = server.URL
	return s
}

// next records a call and returns its answer from the list, or nil for success.
func (s *script) next(r *http.Request, answers *[]http.HandlerFunc) http.HandlerFunc {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, strings.TrimSpace(r.URL.EscapedPath()[len(users):]+" "+r.Header.Get("Authorization")))
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
	var body struct{ OnLimit string }
	_ = json.NewDecoder(r.Body).Decode(&body)
	s.mu.Lock()
	s.onLimit = append(s.onLimit, body.OnLimit)
	s.mu.Unlock()
	if answer := s.next(r, &s.startAnswers); answer != nil {
		answer(w, r)
		return
	}
	s.mu.Lock()
	s.starts++
	id := fmt.Sprint("s", s.starts)
	s.mu.Unlock()
	reply(w, 200, `{"userId":"maya","streams":1,"limit":3,"stream":`+living(id)+`}`)
}

func (s *script) stream(w http.ResponseWriter, r *http.Request) {
	none := []http.HandlerFunc{}
	answers := &none
	if r.PathValue("call") == "heartbeat" {
		answers = &s.heartbeatAnswers
	}
	if answer := s.next(r, answers); answer != nil {
		answer(w, r)
		return
	}
	reply(w, 200, living(r.PathValue("id")))
}

func living(id string) string {
	return fmt.Sprintf(`{"id":%q,"ttlSeconds":3,"heartbeatSeconds":1,"startedAt":"2026-05-04T20:15:00.000Z"}`, id)
}

func reply(w http.ResponseWriter, status int, body string) {
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
		reply(w, status, fmt.Sprintf(`{"type":"/problems/x","status":%d,%s}`, status, fields))
	}
}

func html(status int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(emptyPage))
	}
}

// hangUp closes the connection in the middle of an answer. Browsers repeat a request whose
// answer has not begun.
func hangUp(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", "100")
	_, _ = w.Write([]byte(`{"id":`))
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// received returns the events of the stream that start created, with their reasons.
func received(tab *browser.Tab) []string {
	return strings.Fields(browser.Eval[string](tab,
		`received.map((h) => h.type + (h.reason ? ":" + h.reason : "") + (h.quiet ? ":quiet" : "")).join(" ")`))
}

func (s *script) waitFor(t *testing.T, what string, done func() bool) {
	t.Helper()
	require.Eventually(t, func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return done()
	}, browser.Timeout, 10*time.Millisecond, what)
}

// No answer but a decision about the stream ends it.
func TestClient_UnansweredCallsDoNotStopTheFilm(t *testing.T) {
	t.Parallel()
	for _, worker := range []string{"true", "false"} {
		t.Run("worker "+worker, func(t *testing.T) {
			t.Parallel()
			s := newScript(t)
			s.startAnswers = []http.HandlerFunc{html(502), problem(503, `"title":"Away"`, "Retry-After", "1"), hangUp, html(200)}
			s.heartbeatAnswers = []http.HandlerFunc{
				problem(503, `"title":"Away"`, "Retry-After", "1"), problem(429, `"title":"Too fast"`, "Retry-After", "600"),
				html(500), html(200), html(410), html(404), problem(403, `"title":"Not allowed"`), hangUp,
				func(w http.ResponseWriter, _ *http.Request) {
					reply(w, 200, `{"id":"s1","degraded":true,"ttlSeconds":3}`)
				},
			}
			tab := browser.Open(t).Tab(s.URL + "/player")
			start(tab, `{ user: "maya", worker: `+worker+` }`)
			assert.Equal(t, "waiting", browser.Eval[string](tab, `made.state`))
			assert.True(t, browser.Eval[bool](tab, `made.mayPlay`))
			s.waitFor(t, "all answers", func() bool { return len(s.startAnswers) == 0 && len(s.heartbeatAnswers) == 0 })
			tab.Wait("heartbeats succeed again", `received.some((h) => h.type === "recovered")`)
			assert.Equal(t, []string{"waiting", "waiting", "waiting", "waiting", "started", "degraded", "problem", "recovered"}, received(tab))
			assert.Equal(t, worker == "true", browser.Eval[bool](tab, `made.inWorker`))
			assert.Equal(t, "s1", browser.Eval[string](tab, `made.info.id`))
		})
	}
}

// The reason determines what the client does after the end of a stream.
func TestClient_StreamEnds(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.heartbeatAnswers = []http.HandlerFunc{
		problem(410, `"reason":"expired"`), problem(410, `"reason":"ended"`), problem(404, `"title":"Stream not found"`),
		problem(410, `"reason":"evicted","by":{"device":{"name":"TV"}}`),
	}
	tab := browser.Open(t).Tab(s.URL + "/player")
	start(tab, `{ user: "maya", onLimit: "replace-oldest" }`)
	tab.Wait("it was evicted", `made.state === "ended"`)
	assert.Equal(t, []string{"started", "lost:expired", "started:quiet", "lost:ended", "started:quiet", "lost:unknown",
		"started:quiet", "evicted:evicted", "ended:evicted"}, received(tab))
	assert.Equal(t, "TV", browser.Eval[string](tab, `made.ending.by.device.name`))
	assert.False(t, browser.Eval[bool](tab, `made.mayPlay`))
	assert.Equal(t, "playing", browser.Eval[string](tab, `made.start()`), "the viewer can start again")

	s.mu.Lock()
	assert.Equal(t, []string{"replace-oldest", "", "", "", "replace-oldest"}, s.onLimit, "a quiet start evicts no stream")
	s.startAnswers = []http.HandlerFunc{problem(403, `"title":"Maximum number of streams reached","limit":1,"streams":1,"active":[`+living("x")+`],"evictAfterSeconds":9`)}
	s.heartbeatAnswers = []http.HandlerFunc{problem(410, `"reason":"expired"`)}
	s.mu.Unlock()
	tab.Wait("the slot is no longer free", `made.state === "refused"`)
	assert.False(t, browser.Eval[bool](tab, `made.mayPlay`))
	assert.Equal(t, "x 9", browser.Eval[string](tab, `made.refusal.active[0].id + " " + made.refusal.evictAfterSeconds`))
	assert.Equal(t, []string{"started", "lost:expired", "refused:quiet"}, received(tab)[9:])
}

// A refusal by a plan with several limits has the message, and what each stream blocks.
func TestClient_SeveralLimits(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	const refused = `"title":"Maximum number of streams reached","limit":1,"counted":1,"streams":3,
		"limits":[{"name":"tv","limit":1,"counted":1,"count":"streams"},{"name":"uhd","limit":1,"counted":2,"message":"One in 4K"}],
		"active":[{"id":"a","blocks":["tv"],"enough":false},{"id":"b","blocks":["uhd"],"enough":false},{"id":"c","blocks":["uhd","tv"],"enough":false}]`
	s.startAnswers = []http.HandlerFunc{problem(403, refused), problem(403, strings.Replace(refused, `"tv"],"enough":false}`, `"tv"],"enough":true}`, 1)),
		problem(403, `"title":"Maximum number of streams reached","limit":1,"streams":1,"active":[`+living("x")+`]`)}
	tab := browser.Open(t).Tab(s.URL + "/player")
	start(tab, `{ user: "maya" }`)
	covers := func(ids string) bool {
		return browser.Eval[bool](tab, `import("/streamcount.js").then(({ covers }) => covers(made.refusal, `+ids+`))`)
	}
	assert.Equal(t, "One in 4K tv,uhd uhd,tv false", browser.Eval[string](tab,
		`(({message, limits, active}) => [message, limits.map((l) => l.name), active[2].blocks, active[2].enough].join(" "))(made.refusal)`))
	for ids, want := range map[string]bool{
		`[]`: false, `["a"]`: false, `["c"]`: false, `["a", "b"]`: false, `["b", "c"]`: true, `["a", "b", "c"]`: true, `["x"]`: false,
	} {
		assert.Equal(t, want, covers(ids), ids)
	}
	assert.Equal(t, "refused", browser.Eval[string](tab, `made.start()`))
	assert.True(t, covers(`["a"]`), "this stream alone is enough")
	assert.Equal(t, "refused", browser.Eval[string](tab, `made.start()`))
	assert.Equal(t, " 0", browser.Eval[string](tab, `made.refusal.message + " " + made.refusal.limits.length`))
	assert.False(t, covers(`["x"]`), "the refusal does not show it")
}

// A start that is rejected for another reason than the limit does not stop the film. The
// page receives the reason, and the start is retried.
func TestClient_Rejected(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	tab := browser.Open(t).Tab(s.URL + "/player")
	start(tab, `{ user: "maya", device: { name: "TV" } }`)
	again := func() { browser.Eval[*struct{}](tab, `dispatchEvent(new Event("online")), null`) } // or in half a minute
	answers := map[string]http.HandlerFunc{
		"403 Not allowed":         problem(403, `"title":"Not allowed","limit":3`),
		"403 Status 403":          html(403),
		"431 Status 431":          html(431),
		"409 Conflict body.plan.": problem(409, `"title":"Conflict","errors":[{"location":"body.plan","message":"no"}]`),
		"422 Not valid body.content.title,body.device.": problem(422, `"title":"Not valid","errors":[
			{"location":"body.content.title","message":"no"},{"location":"body.device","message":"no"}]`),
	}
	// Not 421, which the browser itself sends again.
	for _, status := range []int{400, 401, 404, 405, 411, 413, 414, 415, 422, 431} {
		answers[fmt.Sprint(status, " Wrong")] = problem(status, `"title":"Wrong"`)
	}
	for want, answer := range answers {
		s.mu.Lock()
		s.startAnswers = []http.HandlerFunc{answer}
		s.mu.Unlock()
		browser.Eval[*struct{}](tab, `received.length = 0, null`)
		assert.Equal(t, "failed", browser.Eval[string](tab, `made.start()`), want)
		assert.True(t, browser.Eval[bool](tab, `made.mayPlay`), want)
		assert.Equal(t, want, browser.Eval[string](tab, `received.map((h) => [h.status, h.title,
			...(h.members.length ? [h.members.map((m) => m.location).join(",") + "."] : [])].join(" ")).join()`))
		after := browser.Eval[float64](tab, `received[0].againInSeconds`)
		assert.True(t, after >= 15 && after <= 30, "%s: retried in %v s", want, after)
		tab.Wait("the start is retried", `dispatchEvent(new Event("online")) && made.state === "playing"`)
	}
	s.mu.Lock()
	for range 4 {
		s.startAnswers = append(s.startAnswers, problem(422, `"title":"Wrong"`, "Retry-After", "70"))
	}
	s.mu.Unlock()
	browser.Eval[*struct{}](tab, `received.length = 0, made.start().then(() => null)`)
	tab.Wait("the waits grow", `dispatchEvent(new Event("online")) && made.state === "playing"`)
	again()
	waits := browser.Eval[[]float64](tab, `received.filter((h) => h.type === "problem").map((h) => h.againInSeconds)`)
	require.Len(t, waits, 4)
	assert.InDelta(t, 70, waits[0], 0.1, "Retry-After is respected")
	assert.True(t, waits[3] >= 120 && waits[3] <= 240, "%v", waits)
	browser.Eval[*struct{}](tab, `made.close().then(() => null)`)
	s.waitFor(t, "a stop", func() bool { return strings.HasSuffix(s.calls[len(s.calls)-1], "/stop") })
}

// The client requests a credential, refreshes it when it is not valid, and sends it with the
// stop of a page that is being closed.
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
	assert.Equal(t, []string{"started"}, received(tab))
	tab.Close()
	s.waitFor(t, "a stop", func() bool { return s.calls[len(s.calls)-1] == "maya/streams/s1/stop Bearer two" })
}

// The client passes the playback tokens of starts and heartbeats to the player, also of a degraded
// heartbeat.
func TestClient_PlaybackTokens(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	withToken := func(body, name string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			reply(w, 200, strings.TrimSuffix(body, "}")+fmt.Sprintf(`,"token":{"jwt":"%s %s"}}`, name, r.URL.RawQuery))
		}
	}
	s.startAnswers = []http.HandlerFunc{withToken(`{"userId":"maya","streams":1,"limit":3,"stream":`+living("s1")+`}`, "start")}
	s.heartbeatAnswers = []http.HandlerFunc{
		withToken(living("s1"), "heartbeat"), withToken(`{"id":"s1","ttlSeconds":3,"heartbeatSeconds":1,"degraded":true}`, "degraded"),
	}
	tab := browser.Open(t).Tab(s.URL + "/player")
	start(tab, `{ user: "maya", playbackTokens: ["jwt", "akamai"], onToken: ({ jwt }) => (window.tokens ??= []).push(jwt) }`)
	require.Eventually(t, func() bool { return browser.Eval[int](tab, `(window.tokens ?? []).length`) >= 3 }, time.Minute, 50*time.Millisecond)
	query := " token=jwt%2Cakamai"
	assert.Equal(t, []string{"start" + query, "heartbeat" + query, "degraded" + query}, browser.Eval[[]string](tab, `tokens.slice(0, 3)`))
}

// An error of the page's function onToken does not affect the stream.
func TestClient_PlaybackTokenThrows(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	const token = `,"token":{"jwt":"a"}}`
	s.startAnswers = []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, `{"userId":"maya","streams":1,"limit":3,"stream":`+living("s1")+token)
	}}
	s.heartbeatAnswers = []http.HandlerFunc{func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, `{"id":"s1","ttlSeconds":3,"heartbeatSeconds":1,"degraded":true`+token)
	}, func(w http.ResponseWriter, _ *http.Request) {
		reply(w, 200, strings.TrimSuffix(living("s1"), "}")+token)
	}}
	tab := browser.Open(t).Tab(s.URL + "/player")
	start(tab, `{ user: "maya", playbackTokens: "jwt", onToken: () => { throw new Error("of the page"); } }`)
	tab.Wait("the heartbeat after the degraded one", `received.some((h) => h.type === "recovered")`)
	assert.Equal(t, []string{"started", "degraded", "recovered"}, received(tab))
	assert.NotEmpty(t, tab.ConsoleErrors(), "the browser logs the errors of the page")
}

// A player on another origin loads the client from the node, and the worker from a blob. If
// the page's policy forbids that, the page sends the heartbeats.
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
		tab.Wait("the worker has loaded or failed", `made.inWorker !== null`)
		assert.Equal(t, inWorker, browser.Eval[bool](tab, `made.inWorker`), path)
		expires := browser.Eval[string](tab, `made.info.expiresAt`)
		tab.Wait("a heartbeat succeeds", `made.info.expiresAt > "`+expires+`" && !made.degraded`)
		assert.Equal(t, info.ID, await(t, n, "maya", 1).Active[0].ID)
		if !inWorker {
			assert.NotEmpty(t, tab.ConsoleErrors(), "the browser logs what the policy blocked")
		}
		tab.Close()
		await(t, n, "maya", 0)
	}
}
