package web

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/browser"
)

// rows waits until the feed shows exactly the given events, newest first. Each is a type
// and a user; a gap has no user.
func rows(tab *browser.Tab, want string) {
	tab.Wait("the feed is "+want, fmt.Sprintf(
		`[...document.querySelectorAll("#feed tbody tr")].map(r => r.children[1].innerText + " " + (r.querySelector("a")?.innerText ?? "")).join(", ") === %q`, want))
}

// follows waits until the event stream is open. It does not have earlier events.
func follows(tab *browser.Tab) { tab.WaitText("#feed-empty", "No events since") }

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
	tab.WaitText("#feed-empty", "No event matches the filter.")
	tab.Fill("#feed-user", "")

	// While the feed is paused, new events are counted. They are shown afterwards.
	rows(tab, "stop maya, start tom, refusal maya, start maya")
	tab.Click("#feed-pause")
	begin(t, n, "ida", "TV", "Faust")
	begin(t, n, "eva", "TV", "Faust")
	tab.WaitText("#feed-state", "paused, 2 new")
	rows(tab, "stop maya, start tom, refusal maya, start maya")
	tab.Click("#feed-pause")
	rows(tab, "start eva, start ida, stop maya, start tom, refusal maya, start maya")

	// From an event to its user, and to the events of that user only.
	tab.Click(`#feed a[href="#user/ida"]`)
	waitStreams(tab, 1)
	tab.Click(".user .actions button:nth-child(3)")
	rows(tab, "start ida")

	// The histogram counts the refusal.
	tab.WaitText("#concurrency", "1 was refused at the limit of 1 (1 start)")
}

// After a restart of the node the feed reconnects and shows a gap: the node does not have
// the events from before its start.
func TestConsole_FeedResumes(t *testing.T) {
	n := browser.StartNode(t, "--ttl=10m")
	tab := console(browser.Open(t), n, "")
	follows(tab)
	begin(t, n, "maya", "TV", "Metropolis")
	rows(tab, "start maya")
	n.Stop()
	tab.WaitText("#feed-state", "disconnected, retrying")
	n.Restart()
	rows(tab, "gap , start maya")
	tab.WaitText("#feed", "Events are missing.")
	tab.Wait("it is connected", `document.querySelector("#feed-state").innerText === ""`)
	begin(t, n, "tom", "TV", "Metropolis")
	rows(tab, "start tom, gap , start maya")
}
