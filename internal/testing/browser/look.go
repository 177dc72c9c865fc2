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

// Screenshot saves an image of the whole page as name.png in the directory
// STREAMCOUNT_SCREENSHOTS, or in the test's artifact directory. It returns the path of the file.
func (t *Tab) Screenshot(name string) string {
	t.tb.Helper()
	dir := os.Getenv("STREAMCOUNT_SCREENSHOTS")
	if dir == "" {
		dir = t.tb.ArtifactDir()
	}
	require.NoError(t.tb, os.MkdirAll(dir, 0o755))
	shot := call(t, page.CaptureScreenshot, page.CaptureScreenshotParams{
		Format: "png", CaptureBeyondViewport: new(true),
	})
	path := filepath.Join(dir, name+".png")
	require.NoError(t.tb, os.WriteFile(path, shot.Data, 0o644))
	return path
}

// CheckLayout saves images of the page in both themes at the widths of a desktop and of a
// phone, as name-light-desktop.png and so on. It runs [Tab.Accessible] in each theme and at
// each width, and requires that nothing is wider than the screen.
func (t *Tab) CheckLayout(name string) {
	t.tb.Helper()
	for _, theme := range []string{"light", "dark"} {
		t.Theme(theme)
		for _, screen := range []struct {
			name          string
			width, height int
		}{{"desktop", 1280, 800}, {"phone", 390, 844}} {
			t.Size(screen.width, screen.height)
			t.Screenshot(name + "-" + theme + "-" + screen.name)
			if (theme == "light") == (screen.name == "desktop") { // each theme and each width once, because the check is slow
				t.Accessible()
			}
			wide := Eval[int](t, `document.documentElement.scrollWidth`)
			require.LessOrEqual(t.tb, wide, screen.width, "%s scrolls sideways at %d", name, screen.width)
		}
	}
}

// axePath returns the path of axe-core: STREAMCOUNT_AXE, or a file beside the checkout, or
// "" if there is none.
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

// A finding is a violation that axe reports.
type finding struct {
	ID, Impact, Help string
	Nodes            []struct{ HTML, FailureSummary string }
}

// Accessible fails the test if axe-core finds serious or critical violations in the page.
// Without axe-core it only logs that.
func (t *Tab) Accessible() {
	t.tb.Helper()
	path := axePath()
	if path == "" {
		t.tb.Log("accessibility was not checked: STREAMCOUNT_AXE names no axe.min.js")
		return
	}
	axe, err := os.ReadFile(path)
	require.NoError(t.tb, err)
	// The page's policy does not apply to an evaluation by the debugger.
	Eval[*struct{}](t, "window.axe ? null : (() => {"+string(axe)+"\n})(), null")
	raw := Eval[string](t, `axe.run(document, {resultTypes: ["violations"]}).then(r => JSON.stringify(r.violations))`)
	var found []finding
	require.NoError(t.tb, json.Unmarshal([]byte(raw), &found))
	var serious []string
	for _, f := range found {
		if f.Impact != "serious" && f.Impact != "critical" {
			t.tb.Logf("axe: %s: %s (%s)", f.Impact, f.Help, f.ID)
			continue
		}
		for _, n := range f.Nodes {
			serious = append(serious, fmt.Sprintf("%s: %s (%s): %s\n%s", f.Impact, f.Help, f.ID, n.HTML, n.FailureSummary))
		}
	}
	require.Empty(t.tb, serious, "axe: %s", strings.Join(serious, "\n"))
}
