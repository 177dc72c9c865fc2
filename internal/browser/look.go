package browser

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/chromedp/cdproto/page"
	"github.com/stretchr/testify/require"
)

// Screenshot keeps a picture of the whole page as name.png: in the folder that
// STREAMCOUNT_SCREENSHOTS names, or among the test's artefacts.
func (t *Tab) Screenshot(name string) {
	t.tb.Helper()
	dir := os.Getenv("STREAMCOUNT_SCREENSHOTS")
	if dir == "" {
		dir = t.tb.ArtifactDir()
	}
	require.NoError(t.tb, os.MkdirAll(dir, 0o755))
	shot := call(t, page.CaptureScreenshot, page.CaptureScreenshotParams{
		Format: "png", CaptureBeyondViewport: new(true),
	})
	require.NoError(t.tb, os.WriteFile(filepath.Join(dir, name+".png"), shot.Data, 0o644))
}

// Looks takes pictures of the page in both themes at the width of a desk and of a
// phone, as name-light-desktop.png and so on. It runs [Tab.Accessible] in each theme
// and at each width, and wants nothing to be wider than the screen.
func (t *Tab) Looks(name string) {
	t.tb.Helper()
	for _, theme := range []string{"light", "dark"} {
		t.Theme(theme)
		for _, screen := range []struct {
			name          string
			width, height int
		}{{"desktop", 1280, 800}, {"phone", 390, 844}} {
			t.Size(screen.width, screen.height)
			t.Screenshot(name + "-" + theme + "-" + screen.name)
			if (theme == "light") == (screen.name == "desktop") { // it takes a while: each theme and width once
				t.Accessible()
			}
			wide := Eval[int](t, `document.documentElement.scrollWidth`)
			require.LessOrEqual(t.tb, wide, screen.width, "%s scrolls sideways at %d", name, screen.width)
		}
	}
}

// axePath is where axe-core is: where STREAMCOUNT_AXE says, or beside the
// checkout; "" where it is not.
func axePath() string {
	if path := os.Getenv("STREAMCOUNT_AXE"); path != "" {
		return path
	}
	path := filepath.Join(root(), "..", "shared", "axe", "axe.min.js")
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}

// A finding is what axe has against a page.
type finding struct {
	ID, Impact, Help string
	Nodes            []struct{ HTML, FailureSummary string }
}

// Accessible fails the test where axe-core finds something serious or critical
// about the page as it is. Without axe-core it does nothing but say so.
func (t *Tab) Accessible() {
	t.tb.Helper()
	path := axePath()
	if path == "" {
		t.tb.Log("accessibility was not checked: STREAMCOUNT_AXE names no axe.min.js")
		return
	}
	axe, err := os.ReadFile(path)
	require.NoError(t.tb, err)
	// Evaluated by the browser itself, so the page's policy does not apply.
	Eval[*struct{}](t, "window.axe ? null : (() => {"+string(axe)+"\n})(), null")
	raw := Eval[string](t, `axe.run(document, {resultTypes: ["violations"]}).then(r => JSON.stringify(r.violations))`)
	var found []finding
	require.NoError(t.tb, json.Unmarshal([]byte(raw), &found))
	var grave []string
	for _, f := range found {
		if f.Impact != "serious" && f.Impact != "critical" {
			t.tb.Logf("axe: %s: %s (%s)", f.Impact, f.Help, f.ID)
			continue
		}
		for _, n := range f.Nodes {
			grave = append(grave, fmt.Sprintf("%s: %s (%s): %s\n%s", f.Impact, f.Help, f.ID, n.HTML, n.FailureSummary))
		}
	}
	require.Empty(t.tb, grave, "axe: %s", strings.Join(grave, "\n"))
}
