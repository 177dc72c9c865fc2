package web

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"streamcount/internal/browser"
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

// A duplicated tab is given a copy of the session. Both play on, each by its own.
// Where the page is not a secure one there are no locks, and tabs ask each other.
func TestTabs_Duplicated(t *testing.T) {
	for name, host := range map[string]string{"locks": "127.0.0.1", "asking": "player.test"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, p := browser.StartNode(t, "--hosts=player.test,127.0.0.1"), browser.Open(t)
			first := p.Tab(demo(strings.Replace(n.URL, "127.0.0.1", host, 1), "TV"))
			assert.Equal(t, name == "locks", browser.Eval[bool](first, `Boolean(navigator.locks)`))
			first.Click("#curtain-main")
			plays(first)
			one := await(t, n, "maya", 1).Active[0]

			second := p.Opened(first, func() { browser.Eval[*struct{}](first, `window.open(location.href), null`) })
			plays(second)
			both := await(t, n, "maya", 2)
			assert.Equal(t, one.ID, both.Active[0].ID)
			assert.NotEqual(t, both.Active[0].Session, both.Active[1].Session)
			session := `sessionStorage.getItem("streamcount.session.player")`
			assert.Equal(t, both.Active[0].Session, browser.Eval[string](first, session))
			assert.Equal(t, both.Active[1].Session, browser.Eval[string](second, session))

			second.Reload()
			plays(second)
			assert.Equal(t, both.Active[1].Session, browser.Eval[string](second, session), "it keeps its own from now on")
			second.Close()
			assert.Equal(t, one.ID, await(t, n, "maya", 1).Active[0].ID)
		})
	}
}

// A page that the browser keeps for the way back gives its slot up, and takes one
// again when it is shown again.
func TestTabs_Back(t *testing.T) {
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

// start makes a stream by hand in whatever page the tab shows, and notes what it
// says in window.heard.
func start(tab *browser.Tab, options string) {
	browser.Eval[string](tab, `import("/streamcount.js").then(async ({ Stream }) => {
		window.heard = [];
		window.made = new Stream(`+options+`);
		for (const type of ["started", "refused", "stopped", "replaced", "evicted", "removed", "ended", "lost", "waiting",
			"degraded", "recovered", "problem"]) {
			made.addEventListener(type, (e) => heard.push({ type, ...e.detail }));
		}
		return made.start();
	})`)
}

// Nobody sees the page, so its timers hardly fire any more. The worker's do not care.
func TestTabs_Hidden(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t), browser.Open(t)
	tab := play(t, p, n, "TV")
	id := await(t, n, "maya", 1).Active[0].ID
	browser.Eval[*struct{}](tab, `window.ticks = 0, setInterval(() => window.ticks++, 250), null`)
	cover := p.Opened(tab, func() { browser.Eval[*struct{}](tab, `window.open("/icon.svg"), null`) })
	tab.Wait("it is hidden", `document.hidden`)
	hidden := time.Now()
	for time.Since(hidden) < 12*time.Second {
		assert.Equal(t, id, await(t, n, "maya", 1).Active[0].ID)
		time.Sleep(time.Second) // how time passes is what this is about
	}
	ticks := browser.Eval[int](tab, `window.ticks`)
	assert.Less(t, ticks, 24, "4 a second where nothing holds them up")
	t.Logf("the page's own timer fired %d times in %v", ticks, time.Since(hidden).Round(time.Second))
	cover.Close()
	plays(tab)
	assert.Equal(t, id, await(t, n, "maya", 1).Active[0].ID)
}

// A page that does nothing but compute for longer than a slot lasts keeps its slot.
// Without the worker it would not.
func TestTabs_Busy(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t), browser.Open(t)
	tab := play(t, p, n, "TV")
	id := await(t, n, "maya", 1).Active[0].ID
	start(tab, `{ user: "ben", name: "control", worker: false }`)
	await(t, n, "ben", 1)
	browser.Eval[*struct{}](tab, `(() => { for (const end = Date.now() + 8000; Date.now() < end;); })(), null`)
	assert.Equal(t, id, await(t, n, "maya", 1).Active[0].ID)
	tab.Wait("the one without a worker was lost", `heard.some((h) => h.type === "lost")`)
	assert.Equal(t, []bool{true, false}, browser.Eval[[]bool](tab, `(async () => {
		const { Stream } = await import("/streamcount.js");
		const other = new Stream({ user: "ida", name: "third" });
		await other.start();
		while (other.inWorker === null) await new Promise((r) => setTimeout(r, 10));
		return [other.inWorker, made.inWorker];
	})()`))
}

// The operating system stops a page for longer than its slot lasts. It notices when
// it runs again, and starts again without a word to the viewer.
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
