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
	"streamcount/internal/testing/browser"
)

const users = "/api/v1/streams/users/"

// demo returns the URL of maya's demo player on a device.
func demo(at, device string) string {
	return at + "/demo?" + url.Values{"user": {"maya"}, "device": {device}}.Encode()
}

// play opens maya's demo player, presses play and waits until it plays.
func play(t *testing.T, p *browser.Profile, n *browser.Node, device string) *browser.Tab {
	t.Helper()
	tab := p.Tab(demo(n.URL, device))
	tab.Click("#overlay-main")
	plays(tab)
	return tab
}

func plays(tab *browser.Tab) {
	tab.Wait("it plays", `document.querySelector("#stage").dataset.state === "playing"`)
}

// streams returns a user as the service lists them.
func streams(n *browser.Node, user string) apitype.User {
	var got apitype.User
	if n.Call(http.MethodGet, users+user, "", &got) == http.StatusNotFound {
		return apitype.User{}
	}
	return got
}

// await waits until a user has count streams, and returns them.
func await(t *testing.T, n *browser.Node, user string, count int) apitype.User {
	t.Helper()
	var got apitype.User
	require.Eventually(t, func() bool { got = streams(n, user); return got.Streams == count },
		browser.Timeout, 20*time.Millisecond, "%s never had %d streams", user, count)
	return got
}

// Of four screens, the fourth is refused, lists the others and replaces one of them, which
// shows by what it was replaced. Then another screen is closed, and its place is free.
func TestDemo_FourScreens(t *testing.T) {
	n, p := browser.StartNode(t, "--ttl=60s"), browser.Open(t)
	first := play(t, p, n, "Living room TV")
	second := play(t, p, n, "Laptop")
	third := play(t, p, n, "Phone")
	fourth := p.Tab(demo(n.URL, "Tablet"))
	fourth.CheckLayout("demo-idle")
	fourth.Size(1280, 800)
	fourth.Click("#overlay-main")
	fourth.WaitText("#overlay-title", "All 3 places are in use")
	fourth.Wait("the heading has the focus", `document.activeElement.id === "overlay-title"`)
	for _, device := range []string{"Living room TV", "Laptop", "Phone"} {
		fourth.WaitText("#overlay-others", device)
	}
	assert.Contains(t, browser.Eval[string](fourth, `document.querySelector("#film").ariaLabel`), "not playing")
	fourth.CheckLayout("demo-refused")

	fourth.Size(1280, 800)
	fourth.Click(`#overlay-others button[aria-label="Play here instead of Laptop"]`)
	plays(fourth)
	second.WaitText("#overlay-title", "Another screen took over")
	second.WaitText("#overlay-text", "“Tablet”")
	assert.Equal(t, 3, streams(n, "maya").Streams)
	second.CheckLayout("demo-replaced")

	second.Size(1280, 800)
	second.Click("#overlay-main")
	second.WaitText("#overlay-title", "All 3 places are in use")
	third.Close()
	second.WaitText("#overlay-title", "A place is free now")
	assert.Equal(t, 2, streams(n, "maya").Streams, "a closed tab stops its stream at once")
	second.Click("#overlay-main")
	plays(second)
	second.WaitText("#screens", "Laptop (this screen)")
	first.CheckLayout("demo-playing")
}

// With the keyboard: play, a refusal, the choice of a screen to stop, stop.
func TestDemo_Keyboard(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t, "--limit=1", "--ttl=60s"), browser.Open(t)
	play(t, p, n, "TV")
	tab := p.Tab(demo(n.URL, "Laptop"))
	for range 12 {
		if browser.Eval[string](tab, `document.activeElement.id`) == "overlay-main" {
			break
		}
		tab.Press(kb.Tab)
	}
	tab.Press(kb.Enter)
	tab.WaitText("#overlay-title", "The only place is in use")
	tab.Wait("the heading has the focus", `document.activeElement.id === "overlay-title"`)
	tab.Press(kb.Tab)
	assert.Equal(t, "Play here instead of TV", browser.Eval[string](tab, `document.activeElement.ariaLabel`))
	tab.Press(kb.Enter)
	plays(tab)
	tab.Wait("stop has the focus", `document.activeElement.id === "stop"`)
	tab.Press(kb.Enter)
	await(t, n, "maya", 0)
}

// A viewer stops another screen first, and changes the name of the device while it plays,
// to a name that would be harmful as HTML.
func TestDemo_StopOtherAndRename(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t, "--limit=1", "--ttl=60s"), browser.Open(t)
	first := play(t, p, n, "TV")
	second := p.Tab(demo(n.URL, "Laptop"))
	second.Click("#overlay-main")
	second.Click(`#overlay-others button[aria-label="Stop TV"]`)
	first.WaitText("#overlay-title", "Stopped remotely")
	second.WaitText("#overlay-title", "A place is free now")
	second.Click("#overlay-main")
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
	second.WaitText("#overlay-title", "All screens were stopped")
}

// A screen that was evicted as the oldest one shows this, and cannot evict another screen
// during the cooldown.
func TestDemo_Evicted(t *testing.T) {
	t.Parallel()
	n, p := browser.StartNode(t, "--limit=1"), browser.Open(t)
	first := play(t, p, n, "TV")
	second := p.Tab(demo(n.URL, "Phone"))
	second.Click("#overlay-main")
	second.Click("#overlay-oldest")
	plays(second)
	first.WaitText("#overlay-text", "“Phone”")
	first.WaitText("#overlay-text", "in place of the oldest screen")
	first.WaitText("#status", "Another screen took over")
	first.Click("#overlay-main")
	first.WaitText("#overlay-others", "Phone")
	first.Click("#overlay-oldest")
	first.WaitText("#overlay-text", "can replace another one in")
}
