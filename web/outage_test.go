package web

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/internal/browser"
)

// state waits until the demo player is in a state.
func state(tab *browser.Tab, want string) {
	tab.Wait("it is "+want, `document.querySelector("#stage").dataset.state === "`+want+`"`)
}

// neverPaused has the page note whether its film ever stands still from now on.
func neverPaused(tab *browser.Tab) (check func()) {
	browser.Eval[*struct{}](tab, `window.paused = 0, new MutationObserver(() => {
		if (document.querySelector("#film").ariaLabel.includes("not playing")) window.paused++;
	}).observe(document.querySelector("#film"), { attributes: true }), null`)
	return func() { tab.Wait("it never paused", `window.paused === 0`) }
}

// The home's network is gone for longer than the slot lasts: the film plays on. When
// it is back, the player has a slot again without anybody noticing.
func TestOutage_NetworkPulled(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t, "--limit=1"), browser.Open(t)
	line := n.Line(t)
	tab := p.Tab(demo(line.URL, "TV"))
	tab.Click("#curtain-main")
	plays(tab)
	id := await(t, n, "maya", 1).Active[0].ID
	check := neverPaused(tab)

	line.Cut()
	state(tab, "degraded")
	tab.WaitText("#chip", "Playing on")
	tab.Looks("demo-degraded")
	await(t, n, "maya", 0) // others could have it
	before := browser.Eval[string](tab, `document.querySelector("#clock").textContent`)
	tab.Wait("the film runs", `document.querySelector("#clock").textContent !== "`+before+`"`)
	line.Mend()
	plays(tab)
	assert.NotEqual(t, id, await(t, n, "maya", 1).Active[0].ID)
	check()

	// This time somebody else has it when the network is back: now it has to stop.
	line.Cut()
	await(t, n, "maya", 0)
	var other apitype.User
	require.Equal(t, http.StatusOK, n.Call(http.MethodPost, users+"maya/start", `{"device":{"name":"Phone"}}`, &other))
	line.Mend()
	tab.WaitText("#curtain-title", "The only place is in use")
	tab.WaitText("#curtain-others", "Phone")
}

// A start that nobody answers is no refusal.
func TestOutage_Start(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t), browser.Open(t)
	line := n.Line(t)
	tab := p.Tab(demo(line.URL, "TV"))
	line.Cut()
	tab.Click("#curtain-main")
	state(tab, "waiting")
	check := neverPaused(tab)
	tab.WaitText("#chip", "No answer to the start")
	line.Mend()
	plays(tab)
	await(t, n, "maya", 1)
	check()
}

// The node dies and comes back: the same stream goes on.
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
