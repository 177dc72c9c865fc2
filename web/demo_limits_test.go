package web

import (
	"net/http"
	"net/url"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/browser"
)

const severalLimits = `{"limit":4,"limits":[
	{"name":"tv","where":{"device.type":["tv",""]},"limit":1,"message":"Only one TV at a time"},
	{"name":"profile","per":"profile","limit":1},
	{"name":"consoles","where":{"device.type":"console"},"limit":0}]}`

// Under a plan with several limits, a refused screen shows the plan's message, and offers the
// screens whose end is enough. If none is, the viewer selects several. If the plan forbids the
// screen, there is no choice.
func TestDemo_SeveralLimits(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t, "--ttl=60s"), browser.Open(t)
	require.Equal(t, http.StatusOK, n.Call(http.MethodPut, "/api/v1/plans/default", severalLimits, nil))
	screen := func(device, kind, profile string) *browser.Tab {
		return p.Tab(n.URL + "/demo?" + url.Values{"user": {"maya"}, "device": {device}, "type": {kind}, "profile": {profile}}.Encode())
	}
	start := func(device, kind, profile string) *browser.Tab {
		tab := screen(device, kind, profile)
		tab.Click("#overlay-main")
		return tab
	}
	tv := start("Living room TV", "tv", "ann")
	plays(tv)
	phone := start("Phone", "phone", "ben")
	plays(phone)

	second := start("Bedroom TV", "tv", "cem")
	second.WaitText("#overlay-title", "Only one TV at a time")
	second.WaitText("#overlay-text", "The limit “tv” is reached. Choose the screen to stop.")
	second.WaitText("#overlay-others", "Counts for “tv”")
	second.WaitText("#overlay-others", "Stopping it makes no room")
	visible := func(tab *browser.Tab) string {
		return browser.Eval[string](tab, `[...document.querySelectorAll("#overlay :is(button, input)")].filter((b) => b.checkVisibility())
			.map((b) => b.ariaLabel ?? b.innerText).join(", ")`)
	}
	assert.Equal(t, "Play here instead of Living room TV, Stop Living room TV", visible(second))
	second.CheckLayout("demo-limits")
	second.Size(1280, 800)

	both := start("Kitchen TV", "tv", "ben")
	both.WaitText("#overlay-text", "The limits “tv” and “profile” are reached. Select the screens to stop, for each limit one.")
	assert.Equal(t, "Select Living room TV, Select Phone, Play here instead of the selected", visible(both))
	both.Click(`input[aria-label="Select Living room TV"]`)
	assert.True(t, browser.Eval[bool](both, `document.querySelector("#overlay-selected").disabled`))
	both.Click(`input[aria-label="Select Phone"]`)
	both.Wait("both are selected", `!document.querySelector("#overlay-selected").disabled`)
	both.CheckLayout("demo-limits-several")
	both.Size(1280, 800)
	both.Click("#overlay-selected")
	plays(both)
	tv.WaitText("#overlay-title", "Another screen took over")
	phone.WaitText("#overlay-title", "Another screen took over")
	second.WaitText("#overlay-title", "A place is free now") // of the screens that it was refused for

	forbidden := start("Game console", "console", "dora")
	forbidden.WaitText("#overlay-text", "The plan does not allow this here: “consoles”.")
	assert.Empty(t, visible(forbidden))
}

// The console shows the limits of a plan, of refusals and of evictions, and the attributes of
// streams.
func TestConsole_SeveralLimits(t *testing.T) {
	t.Parallel()
	n := browser.StartNode(t, "--ttl=10m")
	require.Equal(t, http.StatusOK, n.Call(http.MethodPut, "/api/v1/plans/default", severalLimits, nil))
	tab := console(browser.Open(t), n, "maya")
	begin := func(want int, body string) {
		require.Equal(t, want, n.Call(http.MethodPost, users+"maya/start", body, nil))
	}
	begin(http.StatusOK, `{"device":{"name":"Living room","type":"tv"},"profile":"ann","labels":{"kids":"<b>no</b>"},"priority":7,"content":{"title":"News","type":"live"}}`)
	begin(http.StatusForbidden, `{"device":{"name":"Bedroom","type":"tv"},"profile":"ann"}`)
	tab.WaitText(".streams", "type: tv · profile: ann · content: live · kids: <b>no</b> · priority: 7")
	tab.WaitText("#feed", "limits tv, profile")
	tab.WaitText("#concurrency", "Refused by other limits of plans: profile (1): 1 user, 1 start; tv (1): 1 user, 1 start.")
	tab.Click(".user .actions button")
	tab.Click(`dialog input[value="plan"]`)
	tab.WaitText("#limit-further", "tv: 1 stream, device.type is tv or missing (“Only one TV at a time”)")
	tab.WaitText("#limit-further", "profile: 1 stream, for each profile")
	tab.CheckLayout("console-limits")
}
