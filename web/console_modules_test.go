package web

import (
	"testing"

	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"

	"streamcount/api/apitype"
	"streamcount/internal/testing/browser"
)

// The functions of the console's modules, run in the browser.
func TestConsole_Modules(t *testing.T) {
	tab := console(browser.Open(t), browser.StartNode(t), "")
	t.Run("stream", func(t *testing.T) {
		// The events do not depend on the boundaries of the pieces.
		got := browser.Eval[[]string](tab, `import("/console/stream.js").then(({Parser}) => {
			const text = ": hello\r\n\r\nid: 7\r\nevent: start\r\ndata: {\"a\":1}\r\n\r\n: still here\n\nid:8\ndata: x\ndata:  y\n\nevent: lost\n\n";
			const seen = new Set();
			for (let cut = 0; cut <= text.length; cut++) {
				for (let next = cut; next <= text.length; next++) {
					const p = new Parser();
					seen.add(JSON.stringify([text.slice(0, cut), text.slice(cut, next), text.slice(next)].flatMap(s => p.push(s))));
				}
			}
			return [...seen];
		})`)
		assert.Equal(t, []string{
			`[{"id":"7","type":"start","data":"{\"a\":1}"},{"id":"8","type":"message","data":"x\n y"}]`,
		}, got)
	})
	t.Run("axis", func(t *testing.T) {
		got := browser.Eval[[][]float64](tab, `import("/console/chart.js").then(({ticks}) => [0.4, 1, 4, 7, 23, 1999].map(ticks))`)
		assert.Equal(t, [][]float64{
			{0, 0.1, 0.2, 0.3, 0.4}, {0, 0.25, 0.5, 0.75, 1}, {0, 1, 2, 3, 4}, {0, 2, 4, 6, 8}, {0, 10, 20, 30}, {0, 500, 1000, 1500, 2000},
		}, got)
	})
	t.Run("words", func(t *testing.T) {
		got := browser.Eval[[]string](tab, `import("/console/format.js").then(f => [f.rate(0), f.rate(0.01), f.rate(4.25), f.rate(1240.4),
			f.millis(0.841), f.millis(480.2), f.percent(1, 1000), f.percent(1, 0), f.bytes(48234496), f.span(3.7e6), f.countdown(84_100),
			f.countdown(245_000), f.plural(1, "stream"), f.plural(12345, "stream")])`)
		assert.Equal(t, []string{"0", "<0.1", "4.3", "1,240", "0.84", "480", "<1 %", "0 %", "48 MB", "1 h 1 min", "85 s", "4:05 min",
			"1 stream", "12,345 streams"}, got)
	})
	t.Run("attention", func(t *testing.T) {
		assert.False(t, browser.Eval[bool](tab, `document.querySelector("#attention").checkVisibility()`), "there are no problems")
		// The result is read before the next statistics arrive.
		got := browser.Eval[[]string](tab, `import("/console/service.js").then(({showService}) => {
			const member = {version: "3.7.3", dbSizeBytes: 9, dbInUseBytes: 3, lag: 0, alarms: [], leader: false};
			showService({node: {id: "a"}, nodes: [{id: "a", reportedAt: new Date().toISOString()},
				{id: "b", reportedAt: new Date(Date.now() - 95_000).toISOString()}], shards: [
				{name: "one", members: 3, streams: 1, etcd: [{...member, name: "m1", leader: true, alarms: ["NOSPACE"]},
					{...member, name: "m2", lag: 5000}, {name: "m3", alarms: [], error: "no answer"}]},
				{name: "two", members: 1, streams: 1, etcd: [{...member, name: "m4"}]},
				{name: "three", members: 0, streams: 0, etcd: [], error: "<b>gone</b>"}]});
			return [...document.querySelectorAll("#attention li")].map(li => li.innerText);
		})`)
		assert.Equal(t, []string{
			"etcd member m1 (one) has raised NOSPACE.",
			"etcd member m2 (one) is 5,000 entries behind its leader.",
			"etcd member m3 (one): no answer",
			"Shard two has no leader: no stream can be started; running streams continue.",
			"Shard three: <b>gone</b>",
			"Node b has not reported for 1 min.",
		}, got)
	})
	t.Run("concurrency", func(t *testing.T) {
		finding := func(c string) string {
			return browser.Eval[string](tab, `import("/console/concurrency.js").then(({showConcurrency}) => {
				showConcurrency(`+c+`); return document.querySelector("#concurrency .finding").innerText; })`)
		}
		assert.Equal(t, "No streams today.", finding(`{reached: [], refused: []}`))
		assert.Contains(t, finding(`{reached: [{streams: 1, users: 40}, {streams: 2, users: 3}], refused: []}`),
			"40 users had streams; the maximum per user was 2, and no start was refused.")
		assert.Contains(t, finding(`{reached: [{streams: 1, users: 40}, {streams: 2, users: 9}, {streams: 3, users: 4}], refused: [{limit: 0, users: 8,
			starts: 9}, {limit: 3, users: 2, starts: 7}, {limit: 1, users: 1, starts: 1}]}`),
			"40 users had streams; 4 (10 %) had 3 at once, and 2 were refused at the limit of 3 (7 starts): "+
				"a limit of 4 would have admitted more of their starts.")
	})
}

// A user is found by the beginning of the id and opened with the keyboard.
func TestConsole_Find(t *testing.T) {
	n := browser.StartNode(t, "--ttl=10m")
	for range 3 {
		begin(t, n, "maya", "TV", "Metropolis")
	}
	begin(t, n, "marc", "TV", "Metropolis")
	begin(t, n, "tom", "TV", "Metropolis")
	tab := console(browser.Open(t), n, "")
	listed := func(want string) {
		t.Helper()
		tab.Wait("the list is "+want,
			`[...document.querySelectorAll("#matches tbody tr")].map(r => [...r.cells].map(c => c.innerText.trim()).join(" ")).join(", ") === "`+want+`"`)
	}
	listed("maya 3 of 3, marc 1 of 3, tom 1 of 3")
	tab.Press("/ma")
	listed("maya 3 of 3, marc 1 of 3")
	tab.Press("r")
	listed("marc 1 of 3")
	tab.Press("x")
	tab.WaitText("#find-hint", "No user whose id begins with “marx” has streams.")
	tab.Fill("#find", "ma")
	listed("maya 3 of 3, marc 1 of 3")
	tab.Press(kb.ArrowDown + kb.ArrowDown + kb.Enter)
	waitStreams(tab, 1)
	tab.WaitText("#user h3", "marc")
	var got apitype.TopUsers
	n.Call("GET", "/api/v1/streams/users?prefix=ma&max=1", "", &got)
	assert.Equal(t, apitype.TopUsers{Users: []apitype.TopUser{{UserID: "maya", Streams: 3, Limit: 3}}, More: true}, got)
}
