package web

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/browser"
)

// The body of a start has labels that the service accepts, for any input, and ids without
// changes.
func TestClient_StartBody(t *testing.T) {
	t.Parallel()
	tab := browser.Open(t).Tab(newScript(t).URL + "/player")
	for options, want := range map[string]string{
		`{}`: `{}`,
		`{ session: null, device: null, content: undefined, onLimit: null, replaces: undefined }`:      `{}`,
		`{ session: "s", device: { id: null, name: undefined, type: "tv" } }`:                          `{"session":"s","device":{"type":"tv"}}`,
		`{ content: { id: "x".repeat(201), title: "x".repeat(200) + "y" } }`:                           `{"content":{"id":"` + strings.Repeat("x", 201) + `","title":"` + strings.Repeat("x", 200) + `"}}`,
		`{ content: { title: "x".repeat(199) + "\u{1F4FA}\u{1F4FA}" } }`:                               `{"content":{"title":"` + strings.Repeat("x", 199) + `📺"}}`,
		`{ content: { title: "\u{1F4FA}".repeat(201) } }`:                                              `{"content":{"title":"` + strings.Repeat("📺", 200) + `"}}`,
		`{ content: { title: "x" + "\u{1F4FA}".repeat(1e6) } }`:                                        `{"content":{"title":"x` + strings.Repeat("📺", 199) + `"}}`,
		`{ device: { name: "TV \u{1F4FA}".slice(0, 4), type: "\uDCFA!" } }`:                            `{"device":{"name":"TV �","type":"�!"}}`,
		`{ device: { name: 7, poster: "y".repeat(1e6) }, content: { title: 1984, year: 1 } }`:          `{"device":{"name":"7"},"content":{"title":"1984"}}`,
		`{ content: { id: "e\u0301/\u00e9", type: "film", labels: ["a", null, "", 7] } }`:              `{"content":{"id":"é/é","labels":["a","7"],"type":"film"}}`,
		`{ content: { type: "x".repeat(65), labels: { a: "b" } } }`:                                    `{"content":{"type":"` + strings.Repeat("x", 64) + `"}}`,
		`{ profile: "ann", labels: { kids: "yes" }, priority: 0, network: "n", replaces: ["a", "b"] }`: `{"profile":"ann","labels":{"kids":"yes"},"priority":0,"network":"n","replaces":["a","b"]}`,
		`{ device: "TV", content: 7 }`:                                                                 `{"device":"TV","content":7}`,
	} {
		got := browser.Eval[string](tab, `import("/streamcount-page.js").then(({ startBody }) => startBody(`+options+`))`)
		assert.JSONEq(t, want, got, options)
	}
}

// A start with any labels is accepted.
func TestClient_AnyLabels(t *testing.T) {
	t.Parallel()
	n := browser.StartNode(t)
	tab := browser.Open(t).Tab(n.URL + "/demo")
	start(tab, `{ user: "maya", device: { id: null, name: "TV \ud83d", type: "x".repeat(500) }, content: { title: "é".repeat(201) } }`)
	got := await(t, n, "maya", 1).Active[0]
	assert.Equal(t, "TV �", got.Device.Name)
	assert.Equal(t, strings.Repeat("x", 200), got.Device.Type)
	assert.Equal(t, strings.Repeat("é", 200), got.Content.Title)
}

// User ids are percent-encoded in the URL.
func TestClient_Users(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	tab := browser.Open(t).Tab(s.URL + "/player")
	for user, want := range map[string]string{
		`"CORP\\ann"`: "CORP%5Cann", `"tom/admin"`: "tom%2Fadmin", `"müller"`: "m%C3%BCller", `"mu\u0308ller"`: "mu%CC%88ller",
		`"o'brien@x.example"`: "o'brien%40x.example", `"ann lee"`: "ann%20lee", `"a?b#c%2Fd"`: "a%3Fb%23c%252Fd",
		`"S//808E9UOiY="`: "S%2F%2F808E9UOiY%3D", `"../x"`: "..%2Fx", `"..."`: "...", `"\u{1F4FA}"`: "%F0%9F%93%BA", `42`: "42",
		`"a;b=c,d&e"`: "a%3Bb%3Dc%2Cd%26e", `"-n"`: "-n", `"%2e%2e"`: "%252e%252e",
	} {
		start(tab, `{ user: `+user+` }`)
		assert.Equal(t, "playing", browser.Eval[string](tab, `made.state`), user)
		browser.Eval[*struct{}](tab, `made.stop().then(() => null)`)
		s.mu.Lock()
		require.NotEmpty(t, s.calls)
		assert.Equal(t, want+"/start", s.calls[0])
		assert.Regexp(t, `/streams/s\d+/stop$`, s.calls[len(s.calls)-1])
		s.calls = nil
		s.mu.Unlock()
	}
}

// An id that a browser cannot send raises a problem and is not sent in another form.
func TestClient_InvalidIDs(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	tab := browser.Open(t).Tab(s.URL + "/player")
	for _, user := range []string{`"."`, `".."`, `"\ud83d"`, `"a\udc00b"`} {
		start(tab, `{ user: `+user+` }`)
		assert.Equal(t, "failed true problem path.user", browser.Eval[string](tab,
			"`${made.state} ${made.mayPlay} ${received[0].type} ${received[0].members[0].location}`"), user)
	}
	start(tab, `{ user: "maya", content: { id: 5n } }`)
	assert.Equal(t, []string{"problem"}, received(tab), "this cannot be encoded as JSON")
	assert.Empty(t, s.calls)
	start(tab, `{ user: "maya" }`)
	for _, id := range []string{`""`, `"."`, `".."`, `"\ud83d"`, `undefined`} {
		browser.Eval[*struct{}](tab, `made.stopOther(`+id+`).then(() => null)`)
	}
	assert.Equal(t, []string{"maya/start", "maya/streams/undefined/stop"}, s.calls, "a stop of the id .. would stop another stream")
}

// No request follows a redirect.
func TestClient_Redirected(t *testing.T) {
	t.Parallel()
	var requests []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		requests = append(requests, r.Header.Get("Authorization"))
		w.Header().Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
		w.Header().Set("Access-Control-Allow-Headers", "Authorization, Content-Type")
		reply(w, 200, `{"stream":`+living("other")+`}`)
	}))
	s := newScript(t)
	s.startAnswers = []http.HandlerFunc{func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
	}}
	tab := browser.Open(t).Tab(s.URL + "/player")
	start(tab, `{ user: "maya", token: "secret" }`)
	tab.Wait("the start is retried", `made.state === "playing"`)
	assert.Equal(t, []string{"waiting", "started"}, received(tab))
	other.Close()
	assert.Empty(t, requests)
	tab.ConsoleErrors()
}

// A page whose origin is not allowed gets no answer and no reason. The event problem names
// the possible causes.
func TestClient_BlockedByCORS(t *testing.T) {
	t.Parallel()
	film := httptest.NewServer(html(200))
	t.Cleanup(film.Close)
	n := browser.StartNode(t)
	tab := browser.Open(t).Tab(film.URL)
	browser.Eval[*struct{}](tab, `import("`+n.URL+`/streamcount.js").then(({ Stream }) => {
		window.received = [];
		window.made = new Stream({ user: "maya", worker: false });
		for (const type of ["waiting", "problem"]) made.addEventListener(type, (e) => received.push({ type, ...e.detail }));
		made.start();
		return null;
	})`)
	tab.Wait("many tries", `received.filter((h) => h.type === "waiting").length >= 5`)
	assert.True(t, browser.Eval[bool](tab, `made.mayPlay`))
	problems := browser.Eval[[]string](tab, `received.filter((h) => h.type === "problem").map((h) => h.detail)`)
	require.Len(t, problems, 1, "once")
	assert.Contains(t, problems[0], film.URL+", by --cors-origins")
	assert.Contains(t, problems[0], n.URL)
	tab.ConsoleErrors()
}

// An outage does not raise a problem.
func TestClient_Outage(t *testing.T) {
	t.Parallel()
	n := browser.StartNode(t)
	tab := browser.Open(t).Tab(n.URL + "/demo")
	start(tab, `{ user: "maya" }`)
	n.Kill()
	browser.Eval[*struct{}](tab, `made.start().then(() => null)`)
	tab.Wait("many tries", `received.filter((h) => h.type === "waiting").length >= 5`)
	assert.NotContains(t, received(tab), "problem")
	n.Restart()
	tab.Wait("it plays", `made.state === "playing"`)
}

// An unknown reason ends the stream for the viewer. Only expired and ended restart it.
func TestClient_UnknownReason(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	s.heartbeatAnswers = []http.HandlerFunc{problem(410, `"title":"Ended"`), problem(410, `"reason":"started"`)}
	tab := browser.Open(t).Tab(s.URL + "/player")
	start(tab, `{ user: "maya" }`)
	tab.Wait("it ended", `made.state === "ended"`)
	assert.Equal(t, []string{"started", "lost:ended", "started:quiet", "ended:started"}, received(tab))
}

// A film that is paused for a long time releases its slot, and starts again when it resumes.
func TestClient_PauseAfter(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t), browser.Open(t)
	tab := p.Tab(n.URL + "/demo")
	start(tab, `{ user: "maya", pauseAfter: 0.02 }`)
	first := await(t, n, "maya", 1).Active[0]
	browser.Eval[*struct{}](tab, `made.pause(), made.pause(), null`)
	assert.Equal(t, "playing", browser.Eval[string](tab, `made.state`), "a short pause keeps the slot")
	tab.Wait("the slot is released", `made.state === "paused" && !made.mayPlay`)
	await(t, n, "maya", 0)
	assert.Equal(t, "playing", browser.Eval[string](tab, `made.resume()`))
	assert.Equal(t, first.Session, await(t, n, "maya", 1).Active[0].Session)
	assert.Equal(t, []string{"started", "started"}, received(tab))

	browser.Eval[*struct{}](tab, `made.pause(), made.resume().then(() => null)`)
	began := time.Now()
	for time.Since(began) < 2*time.Second { // longer than pauseAfter
		require.Equal(t, "playing", browser.Eval[string](tab, `made.state`), "an ended pause does not release the slot")
		time.Sleep(100 * time.Millisecond) // the test is about the passing of time
	}
	for _, wrong := range []string{"-1", "NaN", `"soon"`} {
		assert.True(t, browser.Eval[bool](tab, `import("/streamcount.js").then(({ Stream }) => {
			try { new Stream({ user: "maya", pauseAfter: `+wrong+` }); return false; } catch (e) { return e instanceof TypeError; }
		})`), wrong)
	}
}

// With a media element, its events report the pauses. An element that does not play, for
// example because the browser blocks autoplay, counts as paused.
func TestClient_PauseOfMedia(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t), browser.Open(t)
	tab := p.Tab(n.URL + "/demo")
	browser.Eval[*struct{}](tab, `window.video = document.createElement("video"), null`)
	start(tab, `{ user: "maya", media: video, pauseAfter: 0.02 }`)
	await(t, n, "maya", 1)
	tab.Wait("the slot is released", `made.state === "paused"`)
	await(t, n, "maya", 0)
	browser.Eval[*struct{}](tab, `video.dispatchEvent(new Event("play")), null`)
	tab.Wait("it plays on", `made.state === "playing"`)
	await(t, n, "maya", 1)
	browser.Eval[*struct{}](tab, `video.dispatchEvent(new Event("pause")), null`)
	tab.Wait("the slot is released", `made.state === "paused"`)
	await(t, n, "maya", 0)
	n.Call("PUT", "/api/v1/limits/users/maya", `{"limit":0}`, nil)
	browser.Eval[*struct{}](tab, `video.dispatchEvent(new Event("play")), null`)
	tab.Wait("no slot is free", `made.state === "refused"`)
	browser.Eval[*struct{}](tab, `made.close().then(() => null)`)
}

// A machine that sleeps during a pause has no slot when it wakes, and does not start again.
func TestClient_SleepDuringPause(t *testing.T) {
	t.Parallel()
	s := newScript(t)
	tab := browser.Open(t).Tab(s.URL + "/player")
	start(tab, `{ user: "maya", pauseAfter: 20 }`)
	browser.Eval[*struct{}](tab, `made.pause(), null`)
	s.mu.Lock()
	s.heartbeatAnswers = []http.HandlerFunc{problem(410, `"reason":"expired"`), problem(410, `"reason":"expired"`)}
	s.mu.Unlock()
	tab.Wait("during a short pause an expired stream is restarted", `received.some((h) => h.quiet)`)
	browser.Eval[*struct{}](tab, `(() => { const now = Date.now; Date.now = () => now() + 21 * 60_000; })(), null`)
	tab.Wait("the pause is too long", `made.state === "paused"`)
	s.mu.Lock()
	defer s.mu.Unlock()
	assert.Equal(t, 2, s.starts)
}

// The demo player releases its place after a long pause.
func TestDemo_Paused(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t), browser.Open(t)
	tab := p.Tab(demo(n.URL, "TV") + "&pauseAfter=0.02")
	tab.Click("#overlay-main")
	plays(tab)
	tab.Click("#pause")
	tab.WaitText("#status", "The place is kept for")
	tab.WaitText("#chip", "The place is free for another screen")
	await(t, n, "maya", 0)
	tab.WaitText("#pause", "Resume")
	tab.Click("#pause")
	plays(tab)
	await(t, n, "maya", 1)
	assert.Contains(t, fmt.Sprint(browser.Eval[string](tab, `document.querySelector("#film").ariaLabel`)), ", playing")
}

// docs/browser.md promises browsers of 2020 and 2021. Newer features, which the Chromium of
// these tests has, are not used.
func TestClient_Baseline(t *testing.T) {
	newer := regexp.MustCompile(`\.at\(|replaceAll|structuredClone|hasOwn\(|findLast|static \{|AbortSignal\.|[tT]oWellFormed|` +
		`Promise\.(any|withResolvers)|randomUUID\(\)|#\w+ in |\bawait\b.*\bimport\(|toSorted|Object\.groupBy|\?\.\w*\(\.\.\.`)
	for path, page := range Pages() {
		if !strings.HasPrefix(path, "/streamcount") {
			continue
		}
		w := httptest.NewRecorder()
		page.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		for line := range strings.Lines(w.Body.String()) {
			if code := strings.TrimSpace(line); !strings.HasPrefix(code, "//") && !strings.HasPrefix(code, "*") {
				assert.NotRegexp(t, newer, line, path)
			}
		}
	}
}
