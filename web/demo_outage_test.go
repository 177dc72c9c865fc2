package web

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/internal/testing/browser"
)

// state waits until the demo player is in a state.
func state(tab *browser.Tab, want string) {
	tab.Wait("it is "+want, `document.querySelector("#stage").dataset.state === "`+want+`"`)
}

// neverPaused makes the page record whether its film stops from now on.
func neverPaused(tab *browser.Tab) (check func()) {
	browser.Eval[*struct{}](tab, `window.paused = 0, new MutationObserver(() => {
		if (document.querySelector("#film").ariaLabel.includes("not playing")) window.paused++;
	}).observe(document.querySelector("#film"), { attributes: true }), null`)
	return func() { tab.Wait("the film never stopped", `window.paused === 0`) }
}

// While the network is down for longer than the TTL, the film plays on. When the network is
// back, the stream is restarted without notifying the viewer.
func TestOutage_Network(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t, "--limit=1"), browser.Open(t)
	line := n.Line(t)
	tab := p.Tab(demo(line.URL, "TV"))
	tab.Click("#overlay-main")
	plays(tab)
	id := await(t, n, "maya", 1).Active[0].ID
	check := neverPaused(tab)

	line.Cut()
	state(tab, "degraded")
	tab.WaitText("#chip", "Playing on")
	tab.CheckLayout("demo-degraded")
	await(t, n, "maya", 0) // the slot is free
	before := browser.Eval[string](tab, `document.querySelector("#clock").textContent`)
	tab.Wait("the film runs", `document.querySelector("#clock").textContent !== "`+before+`"`)
	line.Restore()
	plays(tab)
	assert.NotEqual(t, id, await(t, n, "maya", 1).Active[0].ID)
	check()

	// If another device has the slot when the network is back, the film stops.
	line.Cut()
	await(t, n, "maya", 0)
	var other apitype.User
	require.Equal(t, http.StatusOK, n.Call(http.MethodPost, users+"maya/start", `{"device":{"name":"Phone"}}`, &other))
	line.Restore()
	tab.WaitText("#overlay-title", "The only place is in use")
	tab.WaitText("#overlay-others", "Phone")
}

// A start without an answer is no refusal.
func TestOutage_Start(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t), browser.Open(t)
	line := n.Line(t)
	tab := p.Tab(demo(line.URL, "TV"))
	line.Cut()
	tab.Click("#overlay-main")
	state(tab, "waiting")
	check := neverPaused(tab)
	tab.WaitText("#chip", "No answer to the start")
	line.Restore()
	plays(tab)
	await(t, n, "maya", 1)
	check()
}

// After a restart of the node the same stream continues.
func TestOutage_NodeRestarts(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t), browser.Open(t)
	tab := play(t, p, n, "TV")
	id := await(t, n, "maya", 1).Active[0].ID
	check := neverPaused(tab)
	n.Kill()
	state(tab, "degraded")
	n.Restart()
	plays(tab)
	check()
	assert.Equal(t, id, await(t, n, "maya", 1).Active[0].ID)
}
