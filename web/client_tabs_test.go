package web

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"streamcount/internal/testing/browser"
)

// A reloaded page takes over its own slot, although its stop was lost.
func TestTabs_Reload(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t, "--limit=1", "--ttl=60s"), browser.Open(t)
	tab := play(t, p, n, "TV")
	before := await(t, n, "maya", 1).Active[0]
	browser.Eval[*struct{}](tab, `navigator.sendBeacon = () => true, null`)
	tab.Reload()
	plays(tab)
	after := await(t, n, "maya", 1).Active[0]
	assert.NotEqual(t, before.ID, after.ID)
	assert.Equal(t, before.Session, after.Session)
	var gone struct{ Reason string }
	assert.Equal(t, http.StatusGone,
		n.Call(http.MethodPost, users+"maya/streams/"+before.ID+"/heartbeat", "", &gone))
	assert.Equal(t, "replaced", gone.Reason, "and was not stopped")
}

// A duplicated tab has a copy of the session and creates another one, so both tabs play.
// Outside of a secure context there are no locks, and tabs use a BroadcastChannel.
func TestTabs_Duplicated(t *testing.T) {
	for name, host := range map[string]string{"locks": "127.0.0.1", "asking": "player.test"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, p := browser.StartNode(t, "--hosts=player.test,127.0.0.1"), browser.Open(t)
			first := p.Tab(demo(strings.Replace(n.URL, "127.0.0.1", host, 1), "TV"))
			assert.Equal(t, name == "locks", browser.Eval[bool](first, `Boolean(navigator.locks)`))
			first.Click("#overlay-main")
			plays(first)
			one := await(t, n, "maya", 1).Active[0]

			second := p.NewWindow(first, func() { browser.Eval[*struct{}](first, `window.open(location.href), null`) })
			plays(second)
			both := await(t, n, "maya", 2)
			assert.Equal(t, one.ID, both.Active[0].ID)
			assert.NotEqual(t, both.Active[0].Session, both.Active[1].Session)
			session := `sessionStorage.getItem("streamcount.session.player")`
			assert.Equal(t, both.Active[0].Session, browser.Eval[string](first, session))
			assert.Equal(t, both.Active[1].Session, browser.Eval[string](second, session))

			second.Reload()
			plays(second)
			assert.Equal(t, both.Active[1].Session, browser.Eval[string](second, session), "the duplicate keeps its session")
			second.Close()
			assert.Equal(t, one.ID, await(t, n, "maya", 1).Active[0].ID)
		})
	}
}

// A page that enters the back/forward cache releases its slot, and starts again when it
// returns.
func TestTabs_BackForwardCache(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t, "--ttl=60s"), browser.Open(t)
	tab := play(t, p, n, "TV")
	session := await(t, n, "maya", 1).Active[0].Session
	browser.Eval[*struct{}](tab, `addEventListener("pageshow", (e) => { window.kept = e.persisted }), null`)
	tab.Go(n.URL + "/icon.svg")
	await(t, n, "maya", 0)
	browser.Eval[*struct{}](tab, `history.back(), null`)
	tab.Wait("the demo is back", `document.querySelector("#stage")`)
	plays(tab)
	assert.Equal(t, session, await(t, n, "maya", 1).Active[0].Session)
	t.Logf("kept by the browser: %v", browser.Eval[bool](tab, `window.kept === true`))
}

// start creates a Stream in the page of the tab, as window.made, and records its events in
// window.received.
func start(tab *browser.Tab, options string) {
	browser.Eval[string](tab, `import("/streamcount.js").then(async ({ Stream }) => {
		window.received = [];
		window.made = new Stream(`+options+`);
		for (const type of ["started", "refused", "stopped", "replaced", "evicted", "removed", "ended", "lost", "waiting",
			"degraded", "recovered", "problem"]) {
			made.addEventListener(type, (e) => received.push({ type, ...e.detail }));
		}
		return made.start();
	})`)
}

// The timers of a hidden page are throttled, and those of the worker are not.
func TestTabs_Hidden(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t), browser.Open(t)
	tab := play(t, p, n, "TV")
	id := await(t, n, "maya", 1).Active[0].ID
	browser.Eval[*struct{}](tab, `window.ticks = 0, setInterval(() => window.ticks++, 250), null`)
	cover := p.NewWindow(tab, func() { browser.Eval[*struct{}](tab, `window.open("/icon.svg"), null`) })
	tab.Wait("it is hidden", `document.hidden`)
	hidden := time.Now()
	for time.Since(hidden) < 12*time.Second {
		assert.Equal(t, id, await(t, n, "maya", 1).Active[0].ID)
		time.Sleep(time.Second) // the test is about the passing of time
	}
	ticks := browser.Eval[int](tab, `window.ticks`)
	assert.Less(t, ticks, 24, "without throttling there are 4 per second")
	t.Logf("the page's own timer fired %d times in %v", ticks, time.Since(hidden).Round(time.Second))
	cover.Close()
	plays(tab)
	assert.Equal(t, id, await(t, n, "maya", 1).Active[0].ID)
}

// A page whose main thread is busy for longer than the TTL keeps its slot. Without the
// worker it loses the slot.
func TestTabs_Busy(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t), browser.Open(t)
	tab := play(t, p, n, "TV")
	id := await(t, n, "maya", 1).Active[0].ID
	start(tab, `{ user: "ben", name: "control", worker: false }`)
	await(t, n, "ben", 1)
	browser.Eval[*struct{}](tab, `(() => { for (const end = Date.now() + 8000; Date.now() < end;); })(), null`)
	assert.Equal(t, id, await(t, n, "maya", 1).Active[0].ID)
	tab.Wait("the stream without a worker was lost", `received.some((h) => h.type === "lost")`)
	assert.Equal(t, []bool{true, false}, browser.Eval[[]bool](tab, `(async () => {
		const { Stream } = await import("/streamcount.js");
		const other = new Stream({ user: "ida", name: "third" });
		await other.start();
		while (other.inWorker === null) await new Promise((r) => setTimeout(r, 10));
		return [other.inWorker, made.inWorker];
	})()`))
}

// A page that the operating system freezes for longer than the TTL starts its stream again
// when it resumes, without notifying the viewer.
func TestTabs_Frozen(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t), browser.Open(t)
	tab := play(t, p, n, "TV")
	id := await(t, n, "maya", 1).Active[0].ID
	tab.Freeze(true)
	await(t, n, "maya", 0)
	tab.Freeze(false)
	assert.NotEqual(t, id, await(t, n, "maya", 1).Active[0].ID)
	plays(tab)
	tab.Wait("it was lost, and started", `/started[^]*lost expired/.test(document.querySelector("#log").textContent)`)
}
