package web

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/internal/testing/browser"
)

// evil is a name that would be harmful as HTML.
const evil = `<img src=x onerror="document.title='owned'"><b>TV</b>`

// console opens the console at a user, "" for none, and waits for its figures.
func console(p *browser.Profile, n *browser.Node, user string) *browser.Tab {
	hash := ""
	if user != "" {
		hash = "#user/" + user
	}
	tab := p.Tab(n.URL + "/" + hash)
	live(tab)
	return tab
}

func live(tab *browser.Tab) {
	tab.Wait("the figures are live", `document.querySelector("#state").dataset.state === "live"`)
}

// begin starts a stream.
func begin(t *testing.T, n *browser.Node, user, device, title string) {
	t.Helper()
	body := fmt.Sprintf(`{"device":{"name":%q},"content":{"title":%q}}`, device, title)
	require.Equal(t, http.StatusOK, n.Call(http.MethodPost, users+user+"/start", body, nil))
}

// waitStreams waits until the table of the open user shows count streams.
func waitStreams(tab *browser.Tab, count int) {
	tab.Wait(fmt.Sprintf("%d streams of the user", count),
		fmt.Sprintf(`document.querySelectorAll(".streams tbody tr").length === %d`, count))
}

// confirm presses the main button of the dialog.
func confirm(tab *browser.Tab) {
	tab.Click(`dialog button[type="submit"]`)
	tab.Wait("the dialog is closed", `!document.querySelector("dialog")`)
}

// An operator finds a user, stops a stream and changes the limit. Another console shows the
// changes.
func TestConsole_User(t *testing.T) {
	n := browser.StartNode(t, "--ttl=10m")
	begin(t, n, "maya", evil, "<i>Metropolis</i>")
	begin(t, n, "maya", "Phone", "Nosferatu")
	begin(t, n, "tom", "Laptop", "Sunrise")
	second := console(browser.Open(t), n, "maya")
	first := console(browser.Open(t), n, "")

	first.Press("/")
	first.Press("ma" + kb.Enter)
	first.WaitText("#user", "No streams.") // Open uses the input as an exact id
	first.Fill("#find", "maya")
	first.Press(kb.Enter)
	waitStreams(first, 2)
	first.WaitText("#user h3", "maya")
	first.WaitText(".usage", "2 of 3 streams")
	first.WaitText(".streams", evil)
	first.WaitText(".streams", "<i>Metropolis</i>")
	first.WaitText(".streams", "local")
	left := `(([m, s]) => m * 60 + parseInt(s))(document.querySelector(".streams td.left").innerText.split(":"))`
	before := browser.Eval[int](first, left)
	require.InDelta(t, 600, before, 90)
	first.Wait("it counts down", fmt.Sprintf("%s <= %d", left, before-2))
	assert.Zero(t, browser.Eval[int](first, `document.querySelectorAll(".streams :is(b, i, img)").length`), "names are text")
	assert.Equal(t, "maya · streamcount", browser.Eval[string](first, `document.title`))

	first.Click(`button[aria-label="Stop Phone"]`)
	first.WaitText("dialog", "Phone plays Nosferatu")
	assert.Equal(t, "Cancel", browser.Eval[string](first, `document.activeElement.innerText`), "Enter does not stop the stream")
	first.Press(kb.Escape)
	first.Wait("the dialog is closed", `!document.querySelector("dialog")`)
	assert.Equal(t, "Stop Phone", browser.Eval[string](first, `document.activeElement.ariaLabel`))
	assert.Equal(t, 2, streams(n, "maya").Streams)
	waitStreams(second, 2)
	first.Click(`button[aria-label="Stop Phone"]`)
	confirm(first)
	waitStreams(first, 1)
	first.WaitText("#announcement", "The stream on Phone has been stopped.")
	assert.Equal(t, "maya", browser.Eval[string](first, `document.activeElement.innerText`), "the focus moves when the row is removed")
	waitStreams(second, 1)
	assert.Equal(t, evil, await(t, n, "maya", 1).Active[0].Device.Name)

	first.Click(".user .danger-quiet:not(td *)")
	first.WaitText("dialog", "1 stream of maya")
	confirm(first)
	second.WaitText("#user", "No streams.")
	assert.Zero(t, streams(n, "maya").Streams)
	assert.Equal(t, 1, streams(n, "tom").Streams)
}

func TestConsole_Limit(t *testing.T) {
	n := browser.StartNode(t, "--ttl=10m")
	begin(t, n, "maya", "TV", "Metropolis")
	require.Equal(t, http.StatusOK, n.Call(http.MethodPut, "/api/v1/plans/family", `{"limit":5}`, nil))
	p := browser.Open(t)
	first, second := console(p, n, "maya"), console(p, n, "maya")
	limit := func() (got apitype.UserLimit) {
		n.Call(http.MethodGet, "/api/v1/limits/users/maya", "", &got)
		return got
	}
	first.WaitText(".usage", "1 of 3 streams")

	first.Click(".user .actions button")
	first.Fill("#limit-number", "61")
	first.Click(`dialog button[type="submit"]`)
	first.Wait("the dialog shows the error", `document.querySelector("#limit-number:invalid") || document.querySelector("dialog .error").innerText`)
	first.Fill("#limit-number", "1")
	confirm(first)
	first.WaitText(".usage", "1 of 1 stream")
	second.WaitText(".usage", "1 of 1 stream")
	second.WaitText("#user", "A limit of 1, set for this user.")
	require.NotNil(t, limit().Limit)
	assert.Equal(t, 1, *limit().Limit)
	assert.Equal(t, http.StatusForbidden, n.Call(http.MethodPost, users+"maya/start", "", nil))

	second.Click(".user .actions button")
	second.Click(`dialog input[value="plan"]`)
	confirm(second)
	second.WaitText(".usage", "1 of 5 streams")
	first.WaitText("#user", "The plan family, set for this user.")
	assert.Equal(t, "family", limit().Plan)

	first.Click(".user .actions button:nth-child(2)")
	first.WaitText("dialog", "maya has the plan family.")
	confirm(first)
	second.WaitText("#user", "No override")
	second.WaitText(".usage", "1 of 3 streams")
	assert.Equal(t, http.StatusNotFound, n.Call(http.MethodGet, "/api/v1/limits/users/maya", "", nil))

	until := time.Now().Add(48 * time.Hour).Truncate(time.Second).UTC()
	addOn := fmt.Sprintf(`{"limits":{"tv":2,"kids":1},"until":%q}`, until.Format(time.RFC3339))
	require.Equal(t, http.StatusOK, n.Call(http.MethodPut, "/api/v1/limits/users/maya", addOn, nil))
	second.WaitText("#user", "The limits kids 1, tv 2, until ")
	second.Click(".user .actions button")
	second.WaitText("dialog", "This stays: the limits kids 1, tv 2, until ")
	second.Click(`dialog input[value="plan"]`)
	confirm(second)
	first.WaitText("#user", "The plan family, with kids 1, tv 2, until ")
	got := limit()
	assert.Equal(t, "family", got.Plan)
	assert.Equal(t, apitype.Numbers{"tv": 2, "kids": 1}, got.Limits)
	assert.True(t, until.Equal(got.Until.Time))
}

// While the node does not answer, the page shows that its figures are stale. It recovers
// when the node answers again.
func TestConsole_Restart(t *testing.T) {
	n := browser.StartNode(t, "--ttl=10m")
	begin(t, n, "maya", "TV", "Metropolis")
	tab := console(browser.Open(t), n, "maya")
	waitStreams(tab, 1)
	assert.False(t, browser.Eval[bool](tab, `document.querySelector("#banner").checkVisibility()`))
	n.Freeze() // it accepts connections and does not answer
	tab.WaitText("#banner", "The node does not answer. The figures are from ")
	assert.True(t, browser.Eval[bool](tab, `document.querySelector("#banner").checkVisibility()`))
	tab.WaitText("#state", "Stale, ")
	first := browser.Eval[string](tab, `document.querySelector("#banner").innerText`)
	tab.Wait("the age grows", `parseInt(document.querySelector("#state").innerText.replace(/\D+/, "")) >= 9`)
	assert.Equal(t, first, browser.Eval[string](tab, `document.querySelector("#banner").innerText`), "the banner does not change")
	n.Kill()
	n.Restart()
	live(tab)
	tab.Wait("the banner is hidden", `!document.querySelector("#banner").checkVisibility()`)
	waitStreams(tab, 1)
	begin(t, n, "maya", "Phone", "Nosferatu")
	waitStreams(tab, 2)
}

func TestConsole_KeysAndThemes(t *testing.T) {
	n := browser.StartNode(t, "--ttl=10m")
	p := browser.Open(t)
	tab := console(p, n, "")
	background := `getComputedStyle(document.body).backgroundColor`
	tab.Theme("light")
	light := browser.Eval[string](tab, background)
	tab.Theme("dark")
	dark := browser.Eval[string](tab, background)
	require.NotEqual(t, light, dark)
	browser.Eval[*struct{}](tab, `(() => { const s = document.querySelector("#theme"); s.value = "light"; s.dispatchEvent(new Event("change")) })(), null`)
	assert.Equal(t, light, browser.Eval[string](tab, background), "the switch overrides the system")
	tab.Reload()
	live(tab)
	assert.Equal(t, light, browser.Eval[string](tab, background), "the choice is stored")

	tab.Press("p")
	tab.WaitText("#feed-pause", "Resume")
	tab.Press("/")
	assert.Equal(t, "find", browser.Eval[string](tab, `document.activeElement.id`))
	tab.Press("p/p")
	assert.Equal(t, "p/p", browser.Eval[string](tab, `document.querySelector("#find").value`))
	tab.Fill("#find", strings.Repeat("é", 65))
	tab.Press(kb.Enter)
	tab.WaitText("#find-hint", "A user id has 1 to 128 bytes")
	assert.Equal(t, "", browser.Eval[string](tab, `location.hash`))
}

// figures waits until every panel of the console has figures.
func figures(tab *browser.Tab) {
	for _, css := range []string{
		"#regions tbody tr", "#nodes tbody tr", "#etcd tbody tr", "#latency tbody tr", "#concurrency tbody tr", "#feed tbody tr",
		"#matches tbody tr", ".streams tbody tr", "#chart-streams path.line",
	} {
		tab.Wait(css+" is there", fmt.Sprintf("document.querySelector(%q)", css))
	}
}

// The figures of simulated viewers: screenshots, keyboard access and axe.
func TestConsole_Layout(t *testing.T) {
	n := browser.StartNode(t, "--demo")
	tab := console(browser.Open(t), n, "1")
	figures(tab)
	tab.WaitText("#etcd", "leader")
	var stats apitype.Stats
	require.Equal(t, http.StatusOK, n.Call(http.MethodGet, "/api/v1/stats", "", &stats))
	tab.WaitText("#nodes", stats.Node.ID)
	tab.Wait("the chart can be read with keys", `document.querySelector("#chart-streams .plot").ariaValueText !== "no values yet"`)
	browser.Eval[*struct{}](tab, `document.querySelector("#chart-streams .plot").focus(), null`)
	tab.Press(kb.End + kb.ArrowLeft)
	tab.Wait("a value is shown", `document.querySelector("#chart-streams .tip").checkVisibility()`)
	value := browser.Eval[string](tab, `document.querySelector("#chart-streams .plot").ariaValueText`)
	assert.Contains(t, strings.ReplaceAll(tab.Text("#chart-streams .tip"), "\n", " "), value[:8], "the tip and the slider show the same time")
	assert.Regexp(t, `^\d\d:\d\d:\d\d: \d+ streams, \d+ users, \d+ at their limit$`, value)
	tab.Press(kb.Tab)
	tab.CheckLayout("console")
}
