package web

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/browser"
	"streamcount/internal/testing/freeport"
)

// The console shows which streams were started by a profile of the edge.
func TestConsole_Via(t *testing.T) {
	port, err := freeport.Find()
	require.NoError(t, err)
	edge := fmt.Sprintf("127.0.0.1:%d", port)
	file := filepath.Join(t.TempDir(), "edge.yaml")
	require.NoError(t, os.WriteFile(file, []byte(
		`profiles: {vod: {from: request, paths: ["/{content}/{file...}"], user: ["header:X-User"], session: [derive]}}`), 0o600))
	n := browser.StartNode(t, "--ttl=10m", "--edge-listen="+edge, "--edge-file="+file)
	profile := browser.Open(t)
	overview, user := console(profile, n, ""), console(profile, n, "maya")
	follows(overview)
	begin(t, n, "maya", "Laptop", "Sunrise")
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+edge+"/edge/v1/vod/uri/metropolis/1.ts", nil)
	require.NoError(t, err)
	r.Header.Set("X-User", "maya")
	resp, err := http.DefaultClient.Do(r)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, http.StatusOK, resp.StatusCode)

	rows(overview, "start maya, start maya")
	overview.WaitText("#feed tbody tr:first-child", "via edge:vod")
	overview.WaitText("body", "1 region, 1 via edge")
	waitStreams(user, 2)
	user.Wait("one of the streams has the profile", `[...document.querySelectorAll(".streams tbody tr")].filter(r => r.innerText.includes("edge:vod")).length === 1`)
	user.Screenshot("console-via")
	overview.Screenshot("overview-via")
}
