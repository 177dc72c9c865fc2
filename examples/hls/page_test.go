package main

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/browser"
)

func TestMain(m *testing.M) { os.Exit(browser.Main(m)) }

// In a browser: a viewer logs in and plays. A second tab shows the stream of the first tab
// and takes its place, and the first tab shows that.
func TestPage(t *testing.T) {
	server := httptest.NewUnstartedServer(nil)
	origin := "http://" + server.Listener.Addr().String()
	secret := strings.Repeat("s", 32)
	file := filepath.Join(t.TempDir(), "viewers.secret")
	require.NoError(t, os.WriteFile(file, []byte(secret), 0o600))
	node := browser.StartNode(t, "--limit=1", "--ttl=15s", "--auth-secret-file="+file, "--auth-issuer=film-site",
		"--auth-audience=streamcount", "--cors-origins="+origin)
	site := newSite(node.URL, t.TempDir(), []byte(secret)).handler()
	over, end := context.WithCancel(t.Context())
	asked := make(chan string, 10)
	server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch _, film, _ := strings.Cut(r.URL.Path, "/watch/"); {
		case film == "":
			site.ServeHTTP(w, r)
		case strings.HasSuffix(film, "/film.m3u8"):
			asked <- film
			_, _ = io.WriteString(w, "#EXTM3U\n#EXT-X-MAP:URI=\"init.mp4\"\n") // an error would fail the test by a missing request
		default: // the segment never arrives, so the test needs no film
			<-over.Done()
		}
	})
	server.Start()
	defer server.Close()
	defer end()

	viewer := browser.Open(t)
	first := viewer.Tab(origin)
	first.Fill(`#login input`, "maya")
	first.Click(`#login button`)
	first.Click("#play")
	first.WaitText("#say", "Playing.")
	id, _, _ := strings.Cut(<-asked, "/")
	assert.Greater(t, len(id), 20, "the film is fetched under the id of a stream: %q", id)

	second := viewer.Tab(origin)
	second.Click("#play")
	second.WaitText("#say", "You are watching a film already.")
	second.WaitText("#others", "Browser, opened")
	second.Click("#others button")
	second.WaitText("#say", "Playing.")
	first.WaitText("#say", "Ended (replaced) by Browser, opened")
	second.Click("#stop")
	second.WaitText("#say", "Stopped.")
	first.Click("#play")
	first.WaitText("#say", "Playing.")
}
