package players

import (
	"fmt"
	"image"
	"image/draw"
	"image/png"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/internal/testing/browser"
)

const (
	playing  = `document.querySelector("video").currentTime > 1`
	progress = 10 * time.Millisecond // between two looks at a condition
)

// retrying is how long a stopped player tries again.
const retrying = 3 * time.Minute

// TestTabs plays in four tabs with a limit of three. The fourth tab gets no file of the film
// and shows why, until one of the others is stopped. The stopped tab stays stopped while it tries
// again, also when a slot is free, and plays when the viewer opens it later.
func TestTabs(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3, "1s")
	profile := browser.Open(t)
	var tabs []*browser.Tab
	var players []*playback
	for i := range 4 {
		p := s.playback(fmt.Sprint("Tab ", i+1))
		tab := profile.Tab(p.page(fmt.Sprint("film-", i+1)))
		tab.Size(360, 312)
		if i < 3 {
			tab.Wait("the film plays", playing)
		}
		players, tabs = append(players, p), append(tabs, tab)
	}
	stopped, second, fourth := players[0], players[1], players[3]

	tabs[3].WaitText("[role=status]", `"reason":"limit"`)
	assert.Contains(t, tabs[3].Text("[role=status]"), "403")
	tabs[3].Wait("it tries again", "failures >= 3")
	assert.Empty(t, fourth.received(http.StatusOK, http.StatusPartialContent), "the fourth tab gets no file")
	assert.Greater(t, len(fourth.received(http.StatusForbidden)), 3)
	streams := s.list()
	require.Len(t, streams, 3, "the renditions of a playback are one stream")
	for i, stream := range streams {
		assert.Equal(t, fmt.Sprint("film-", i+1), stream.Content.ID)
		assert.Equal(t, "edge:vod", stream.Via)
		assert.Positive(t, players[i].segments("video"))
		assert.Positive(t, players[i].segments("audio"))
	}
	compose(t, tabs)

	var answer apitype.User
	require.Equal(t, http.StatusOK, s.call(http.MethodDelete, "/streams/"+streams[0].ID, "", &answer))
	ended := time.Now()
	tabs[0].WaitText("[role=status]", `"reason":"stopped"`)
	tabs[3].Wait("the slot is free for the fourth tab", playing)
	tabs[1].Close() // then the stream of this tab expires

	refused := stopped.received(http.StatusForbidden)
	first := refused[0].at
	got := stopped.received(http.StatusOK, http.StatusPartialContent)
	t.Logf("the stopped tab received its last file %s after the stop, and the first 403 %s after it",
		got[len(got)-1].at.Sub(ended).Round(time.Millisecond), first.Sub(ended).Round(time.Millisecond))
	require.Eventually(t, func() bool { return time.Since(first) > retrying }, 2*retrying, time.Second)
	stopped.skipIfSilent(t, ended)
	assert.Len(t, stopped.received(http.StatusOK, http.StatusPartialContent), len(got), "no file since the stop")
	refused = stopped.received(http.StatusForbidden)
	t.Logf("the stopped tab has sent %d requests in %s", len(refused), refused[len(refused)-1].at.Sub(first).Round(time.Second))
	assert.Contains(t, tabs[0].Text("[role=status]"), `"reason":"stopped"`)
	require.Eventually(t, func() bool { return len(s.list()) == 2 }, 2*time.Minute, time.Second, "a slot is free")
	tabs[0].Reload()
	tabs[0].Wait("it has tried", "failures > 0")
	stopped.skipIfSilent(t, ended)
	tabs[0].WaitText("[role=status]", `"reason":"stopped"`)
	assert.Empty(t, second.received(http.StatusForbidden), "the closed tab was never refused")

	tabs[0].Go("about:blank")
	left := time.Now()
	require.Eventually(t, func() bool { // a HEAD does not prolong the time in which the session is refused
		resp, err := http.Head(s.url + stopped.playlist("film-1"))
		return assert.NoError(t, err) && assert.NoError(t, resp.Body.Close()) && resp.StatusCode == http.StatusOK
	}, time.Minute, 100*time.Millisecond)
	t.Logf("the stopped session may play again %s after its last request", time.Since(left).Round(time.Millisecond))
	tabs[0].Go(stopped.page("film-1"))
	tabs[0].Wait("the film plays again", playing)
	assert.Len(t, s.list(), 3)
	for _, tab := range []*browser.Tab{tabs[2], tabs[3]} {
		assert.Equal(t, "Playing", tab.Text("[role=status]"), "it has played all the time")
	}
}

// skipIfSilent skips the test if the player has sent no request for a time after which its session
// may play again, which happens only on a machine that is very busy.
func (p *playback) skipIfSilent(t *testing.T, since time.Time) {
	t.Helper()
	answers := p.received(http.StatusOK, http.StatusPartialContent, http.StatusForbidden)
	for i := 1; i < len(answers); i++ {
		if gap := answers[i].at.Sub(answers[i-1].at); answers[i-1].at.After(since) && gap > 4*time.Second {
			t.Skipf("the stopped tab sent no request for %s: this machine is too busy", gap)
		}
	}
}

// compose saves an image of four tabs.
func compose(t *testing.T, tabs []*browser.Tab) {
	t.Helper()
	var all *image.RGBA
	dir := ""
	for i, tab := range tabs {
		path := tab.Screenshot(fmt.Sprint("tab-", i+1))
		dir = filepath.Dir(path)
		file, err := os.Open(path)
		require.NoError(t, err)
		shot, err := png.Decode(file)
		require.NoError(t, err)
		require.NoError(t, file.Close())
		size := shot.Bounds().Size()
		if all == nil {
			all = image.NewRGBA(image.Rectangle{Max: size.Mul(2)})
		}
		at := image.Pt(i%2*size.X, i/2*size.Y)
		draw.Draw(all, image.Rectangle{at, at.Add(size)}, shot, shot.Bounds().Min, draw.Src)
	}
	file, err := os.Create(filepath.Join(dir, "four-tabs.png"))
	require.NoError(t, err)
	require.NoError(t, (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(file, all))
	require.NoError(t, file.Close())
}

// TestChangeOfFilm plays another film in the same tab. The slot moves to it.
func TestChangeOfFilm(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3, "1s")
	p := s.playback("tab")
	tab := browser.Open(t).Tab(p.page("film-1"))
	tab.Wait("the film plays", playing)
	require.Equal(t, []string{"film-1"}, s.contents())
	for _, film := range []string{"film-2", "film-3", "film-1"} {
		browser.Eval[*struct{}](tab, fmt.Sprintf("play(%q), null", p.playlist(film)))
		tab.Wait("the other film plays", playing)
		require.Eventually(t, func() bool {
			contents := s.contents()
			require.Len(t, contents, 1, "the session has one stream")
			return contents[0] == film
		}, time.Minute, progress, "the stream moves to %s", film)
	}
	assert.Empty(t, p.received(http.StatusForbidden))
}

// contents returns the content of each stream of the user.
func (s *site) contents() []string {
	s.t.Helper()
	var contents []string
	for _, stream := range s.list() {
		contents = append(contents, stream.Content.ID)
	}
	return contents
}
