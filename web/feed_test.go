package web

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/browser"
)

// rows waits until the feed shows these events and no others, the newest first;
// each is its kind and user, a gap without one.
func rows(tab *browser.Tab, want string) {
	tab.Wait("the feed is "+want, fmt.Sprintf(
		`[...document.querySelectorAll("#feed tbody tr")].map(r => r.children[1].innerText + " " + (r.querySelector("a")?.innerText ?? "")).join(", ") === %q`, want))
}

// follows waits until the event stream is open: what happened before is not told.
func follows(tab *browser.Tab) { tab.WaitText("#feed-empty", "Nothing has happened since") }

func TestConsole_Feed(t *testing.T) {
	n := browser.StartNode(t, "--ttl=10m", "--limit=1")
	tab := console(browser.Open(t), n, "")
	follows(tab)
	begin(t, n, "maya", evil, "<i>Metropolis</i>")
	rows(tab, "start maya")
	require.Equal(t, http.StatusForbidden, n.Call(http.MethodPost, users+"maya/start", "", nil))
	rows(tab, "refusal maya, start maya")
	begin(t, n, "tom", "Laptop", "Sunrise")
	require.Equal(t, http.StatusOK, n.Call(http.MethodDelete, users+"maya", "", nil))
	rows(tab, "stop maya, start tom, refusal maya, start maya")
	tab.WaitText("#feed tbody tr:last-child", evil+" · <i>Metropolis</i> · local")
	tab.WaitText("#feed tbody tr:last-child", "1 of 1")
	tab.WaitText("#feed tbody tr:first-child", "removed")
	assert.Zero(t, browser.Eval[int](tab, `document.querySelectorAll("#feed :is(img, b, i)").length`), "names are text")
	assert.NotEqual(t, "owned", browser.Eval[string](tab, `document.title`))

	// The filter.
	tab.Click(`#feed-kinds input[value="start"]`)
	rows(tab, "stop maya, refusal maya")
	tab.Click(`#feed-kinds input[value="start"]`)
	tab.Fill("#feed-user", "to")
	rows(tab, "start tom")
	tab.Fill("#feed-user", "nobody")
	tab.WaitText("#feed-empty", "No event that the filter lets through.")
	tab.Fill("#feed-user", "")

	// The pause: what comes is counted, and shown afterwards.
	rows(tab, "stop maya, start tom, refusal maya, start maya")
	tab.Click("#feed-pause")
	begin(t, n, "ida", "TV", "Faust")
	begin(t, n, "eva", "TV", "Faust")
	tab.WaitText("#feed-state", "paused, 2 new")
	rows(tab, "stop maya, start tom, refusal maya, start maya")
	tab.Click("#feed-pause")
	rows(tab, "start eva, start ida, stop maya, start tom, refusal maya, start maya")

	// From an event to its user, and that user's events alone.
	tab.Click(`#feed a[href="#user/ida"]`)
	held(tab, 1)
	tab.Click(".user .actions button:nth-child(3)")
	rows(tab, "start ida")

	// The histogram says what that comes to.
	tab.WaitText("#concurrency", "1 was refused at the limit of 1 (1 start)")
}

// After a node's restart the feed goes on by itself, and says that it may have
// missed something: a node does not know what happened before it started.
func TestConsole_FeedResumes(t *testing.T) {
	n := browser.StartNode(t, "--ttl=10m")
	tab := console(browser.Open(t), n, "")
	follows(tab)
	begin(t, n, "maya", "TV", "Metropolis")
	rows(tab, "start maya")
	n.Stop()
	tab.WaitText("#feed-state", "interrupted, trying again")
	n.Restart()
	rows(tab, "gap , start maya")
	tab.WaitText("#feed", "Events were missed.")
	tab.Wait("it is connected", `document.querySelector("#feed-state").innerText === ""`)
	begin(t, n, "tom", "TV", "Metropolis")
	rows(tab, "start tom, gap , start maya")
}
