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
	return binary, runGo(append(args, "streamcount/cmd/streamcount")...)
}

// buildSimulations builds the test binary of package lease with sources in place of the files
// at their paths.
func buildSimulations(dir string, sources map[string]string) (string, error) {
	overlay, err := writeOverlay(dir, sources)
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, "lease.test")
	return binary, runGo("test", "-c", "-o", binary, "-overlay", overlay, "streamcount/lease")
}

func runGo(args ...string) error {
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", args[0], err, out)
	}
	return nil
}

// binaries are the directories of the built binaries. TestMain removes them.
var binaries []string
