package containers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestCompose_Edge runs the commands of the section "The edge" of docs/compose.md and checks that
// they print what the page shows.
func TestCompose_Edge(t *testing.T) {
	need(t, "bash", "curl", "openssl", "awk")
	d := prepare(t, edgeImages(t))
	d.file = append(d.file, patientEdge(t))

	page, err := os.ReadFile(filepath.Join(root, "docs/compose.md"))
	require.NoError(t, err)
	_, section, found := strings.Cut(string(page), "\n## The edge\n")
	require.True(t, found)
	section, _, _ = strings.Cut(section, "\n## ")
	// The commands run in one shell. A line after each block separates the outputs.
	const end = "<end of the block>\n"
	script := "set -e\ndocker() { shift; command " + strings.Join(composeCommand(), " ") + " \"$@\"; }\n"
	var want []string
	for _, block := range regexp.MustCompile("(?ms)^```([^\n]*)\n(.*?)^```$").FindAllStringSubmatch(section, -1) {
		switch kind, text := block[1], block[2]; kind {
		case "sh":
			script += text + "printf '" + strings.TrimSpace(end) + "\\n'\n"
			want = append(want, "")
		case "text":
			want[len(want)-1] = text
		}
	}
	require.Len(t, want, 4)

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-c", strings.ReplaceAll(script, "localhost:8080", d.at["edge"]))
	cmd.Dir = root
	cmd.Env = append(d.environ(), "STREAMCOUNT_TTL=1h") // no stream expires before the fourth start
	got := strings.Split(command(t, cmd), end)
	require.Len(t, got, len(want)+1)
	for i := range want {
		assert.Equal(t, normal(want[i]), normal(got[i]), "block %d", i+1)
	}
}

// patientEdge returns a file for Docker Compose that lets nginx wait longer for a node, so that
// it does not allow a viewer without a check on a slow machine.
func patientEdge(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy/edge/nginx.conf"))
	require.NoError(t, err)
	patient := string(text)
	for _, timeout := range []string{"proxy_read_timeout", "proxy_next_upstream_timeout"} {
		require.Contains(t, patient, timeout+" 2s;")
		patient = strings.Replace(patient, timeout+" 2s;", timeout+" 60s;", 1)
	}
	dir := t.TempDir()
	template, file := filepath.Join(dir, "nginx.conf"), filepath.Join(dir, "edge.yml")
	require.NoError(t, os.WriteFile(template, []byte(patient), 0o644)) //nolint:gosec // the container reads it
	override := fmt.Sprintf("services:\n  edge:\n    volumes: [\"%s:/etc/nginx/templates/streamcount.conf.template:ro\"]\n", template)
	require.NoError(t, os.WriteFile(file, []byte(override), 0o600))
	return file
}

// normal replaces what differs from run to run.
func normal(text string) string {
	for _, each := range []struct{ pattern, with string }{
		{`AQ[\w-]{50}`, "ID"}, {`\d{4}-\d\d-\d\d [\d:]+`, "TIME"}, {`\b(\d+[hms])+\b`, "DURATION"}, {`curl/\S+`, "CURL"}, {` +`, " "},
	} {
		text = regexp.MustCompile(each.pattern).ReplaceAllString(text, each.with)
	}
	return strings.TrimSpace(text)
}
