//go:build linux

package torture

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// build builds the binary of the service, once for all tests.
var build = sync.OnceValues(func() (string, error) { return buildWith(nil) })

// buildWith builds the service with a settable clock, and with sources in place of the files
// at their paths.
func buildWith(sources map[string]string) (string, error) {
	dir, err := os.MkdirTemp("", "streamcount-torture-bin-")
	if err != nil {
		return "", err
	}
	binaries = append(binaries, dir)
	replace, err := clockOverlay()
	if err != nil {
		return "", err
	}
	maps.Copy(replace, sources)
	overlay, err := writeOverlay(dir, replace)
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "streamcount")
	args := []string{"build", "-o", binary, "-overlay", overlay}
	if *nodesRace {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, "streamcount/cmd/streamcount")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return binary, nil
}

// binaries are the directories of the built binaries. TestMain removes them.
var binaries []string
