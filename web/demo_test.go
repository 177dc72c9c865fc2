package web

import (
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/internal/browser"
)

const users = "/api/v1/streams/users/"

// demo is the address of the demo player for a user and a device.
func demo(n *browser.Node, user, device string) string {
	return n.URL + "/demo?" + url.Values{"user": {user}, "device": {device}}.Encode()
}

// play opens a demo player and presses play; the service has to admit it.
func play(t *testing.T, p *browser.Profile, n *browser.Node, user, device string) *browser.Tab {
	t.Helper()
	tab := p.Tab(demo(n, user, device))
	tab.Click("#play")
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
	evil := `<img src=x onerror="document.title='owned'"><b>TV</b>`
	first := play(t, p, n, "maya", evil)
	second := play(t, p, n, "maya", "Laptop")
	third := play(t, p, n, "maya", "Phone")
	fourth := p.Tab(demo(n, "maya", "Tablet"))
	fourth.Click("#play")
	fourth.WaitText("#curtain-title", "All 3 places are in use")
	assert.Equal(t, "curtain-title", browser.Eval[string](fourth, `document.activeElement.id`))
	for _, device := range []string{evil, "Laptop", "Phone"} {
		fourth.WaitText("#curtain-others", device)
	}
	assert.Equal(t, 0, browser.Eval[int](fourth, `document.querySelectorAll("#curtain-others img, #curtain-others b").length`),
		"names are text")
	assert.False(t, browser.Eval[bool](fourth, `document.querySelector("#film").getAttribute("aria-label").includes(", playing")`))
	fourth.Looks("refused")

	fourth.Size(1280, 800)
	fourth.Click(`#curtain-others button[aria-label="Play here instead of Laptop"]`)
	plays(fourth)
	second.WaitText("#curtain-title", "Another screen took over")
	second.WaitText("#curtain-text", "“Tablet”")
	assert.Equal(t, 3, streams(n, "maya").Streams)
	second.Looks("replaced")

	second.Size(1280, 800)
	second.Click("#curtain-main")
	second.WaitText("#curtain-title", "All 3 places are in use")
	third.Close()
	second.WaitText("#curtain-title", "A place is free now")
	assert.Equal(t, 2, streams(n, "maya").Streams, "a closed tab gives its place back at once")
	second.Click("#curtain-main")
	plays(second)
	second.WaitText("#screens", "Laptop (this screen)")
	first.Looks("playing")
	assert.NotEqual(t, "owned", browser.Eval[string](first, `document.title`))
}

func TestDemo_Looks(t *testing.T) {
	n := browser.StartNode(t)
	tab := browser.Open(t).Tab(demo(n, "maya", "Laptop"))
	tab.WaitText("#nobody", "Nobody is watching.")
	tab.Looks("idle")
}
