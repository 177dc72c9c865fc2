package web

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/internal/browser"
)

const users = "/api/v1/streams/users/"

// demo is the address of maya's demo player on a device, at a node or a line to it.
func demo(at, device string) string {
	return at + "/demo?" + url.Values{"user": {"maya"}, "device": {device}}.Encode()
}

// play opens maya's demo player and presses play; the service has to admit it.
func play(t *testing.T, p *browser.Profile, n *browser.Node, device string) *browser.Tab {
	t.Helper()
	tab := p.Tab(demo(n.URL, device))
	tab.Click("#curtain-main")
	plays(tab)
	return tab
}

func plays(tab *browser.Tab) {
	tab.Wait("it plays", `document.querySelector("#stage").dataset.state === "playing"`)
}

// streams are what the service says of a user.
func streams(n *browser.Node, user string) apitype.User {
	var got apitype.User
	if n.Call(http.MethodGet, users+user, "", &got) == http.StatusNotFound {
		return apitype.User{}
	}
	return got
}

// await waits until a user has so many streams, and returns them.
func await(t *testing.T, n *browser.Node, user string, count int) apitype.User {
	t.Helper()
	var got apitype.User
	require.Eventually(t, func() bool { got = streams(n, user); return got.Streams == count },
		browser.Patience, 20*time.Millisecond, "%s never had %d streams", user, count)
	return got
}

// Four screens: the fourth is told where the others are, takes the place of one of
// them, and that one says by whom. Then another closes, and its place is free.
func TestDemo_FourScreens(t *testing.T) {
	n, p := browser.StartNode(t, "--ttl=60s"), browser.Open(t)
	first := play(t, p, n, "Living room TV")
	second := play(t, p, n, "Laptop")
	third := play(t, p, n, "Phone")
	fourth := p.Tab(demo(n.URL, "Tablet"))
	fourth.Looks("demo-idle")
	fourth.Size(1280, 800)
	fourth.Click("#curtain-main")
	fourth.WaitText("#curtain-title", "All 3 places are in use")
	fourth.Wait("the heading has the focus", `document.activeElement.id === "curtain-title"`)
	for _, device := range []string{"Living room TV", "Laptop", "Phone"} {
		fourth.WaitText("#curtain-others", device)
	}
	assert.Contains(t, browser.Eval[string](fourth, `document.querySelector("#film").ariaLabel`), "not playing")
	fourth.Looks("demo-refused")

	fourth.Size(1280, 800)
	fourth.Click(`#curtain-others button[aria-label="Play here instead of Laptop"]`)
	plays(fourth)
	second.WaitText("#curtain-title", "Another screen took over")
	second.WaitText("#curtain-text", "“Tablet”")
	assert.Equal(t, 3, streams(n, "maya").Streams)
	second.Looks("demo-replaced")

	second.Size(1280, 800)
	second.Click("#curtain-main")
	second.WaitText("#curtain-title", "All 3 places are in use")
	third.Close()
	second.WaitText("#curtain-title", "A place is free now")
	assert.Equal(t, 2, streams(n, "maya").Streams, "a closed tab gives its place back at once")
	second.Click("#curtain-main")
	plays(second)
	second.WaitText("#screens", "Laptop (this screen)")
	first.Looks("demo-playing")
}

// With nothing but keys: play, be refused, choose who gives way, stop.
func TestDemo_Keyboard(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t, "--limit=1", "--ttl=60s"), browser.Open(t)
	play(t, p, n, "TV")
	tab := p.Tab(demo(n.URL, "Laptop"))
	for range 12 {
		if browser.Eval[string](tab, `document.activeElement.id`) == "curtain-main" {
			break
		}
		tab.Press(kb.Tab)
	}
	tab.Press(kb.Enter)
	tab.WaitText("#curtain-title", "The only place is in use")
	tab.Wait("the heading has the focus", `document.activeElement.id === "curtain-title"`)
	tab.Press(kb.Tab)
	assert.Equal(t, "Play here instead of TV", browser.Eval[string](tab, `document.activeElement.ariaLabel`))
	tab.Press(kb.Enter)
	plays(tab)
	tab.Wait("stop has the focus", `document.activeElement.id === "stop"`)
	tab.Press(kb.Enter)
	await(t, n, "maya", 0)
}

// A viewer may stop another screen first, and name the device anew while it plays: to
// something that would be a page of its own, were it not shown as text.
func TestDemo_StopOtherAndRename(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t, "--limit=1", "--ttl=60s"), browser.Open(t)
	first := play(t, p, n, "TV")
	second := p.Tab(demo(n.URL, "Laptop"))
	second.Click("#curtain-main")
	second.Click(`#curtain-others button[aria-label="Stop TV"]`)
	first.WaitText("#curtain-title", "Stopped from elsewhere")
	second.WaitText("#curtain-title", "A place is free now")
	second.Click("#curtain-main")
	plays(second)
	before := await(t, n, "maya", 1).Active[0]

	evil := `<img src=x onerror="document.title='owned'"><b>TV</b>`
	second.Fill("#device", evil)
	second.Press(kb.Enter)
	second.WaitText("#screens", evil+" (this screen)")
	first.WaitText("#screens", evil)
	for _, tab := range []*browser.Tab{first, second} {
		assert.Zero(t, browser.Eval[int](tab, `document.querySelectorAll(".others img, .others b").length`), "names are text")
		assert.NotEqual(t, "owned", browser.Eval[string](tab, `document.title`))
	}
	after := await(t, n, "maya", 1).Active[0]
	assert.NotEqual(t, before.ID, after.ID)
	assert.Equal(t, before.Session, after.Session)
	plays(second)

	assert.Equal(t, http.StatusOK, n.Call(http.MethodDelete, users+"maya", "", nil))
	second.WaitText("#curtain-title", "All screens were stopped")
}

// Evicted by whoever takes the place of the oldest, a screen says so, and may not
// do the same at once.
func TestDemo_Evicted(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t, "--limit=1"), browser.Open(t)
	first := play(t, p, n, "TV")
	second := p.Tab(demo(n.URL, "Phone"))
	second.Click("#curtain-main")
	second.Click("#curtain-oldest")
	plays(second)
	first.WaitText("#curtain-text", "“Phone”")
	first.WaitText("#curtain-text", "playing longest")
	first.WaitText("#status", "Another screen took over")
	first.Click("#curtain-main")
	first.WaitText("#curtain-others", "Phone")
	first.Click("#curtain-oldest")
	first.WaitText("#curtain-text", "may take over again in")
}
