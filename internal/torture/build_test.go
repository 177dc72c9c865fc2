package torture

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// build makes the service's binary, once for all tests.
var build = sync.OnceValues(func() (string, error) { return buildWith("") })

// buildWith builds it with an overlay of sources, if there is one.
func buildWith(overlay string) (string, error) {
	dir, err := os.MkdirTemp("", "streamcount-torture-bin-")
	if err != nil {
		return "", err
	}
	binaries = append(binaries, dir)
	binary := filepath.Join(dir, "streamcount")
	args := []string{"build", "-o", binary}
	if *nodesRace {
		args = append(args, "-race")
	}
	if overlay != "" {
		args = append(args, "-overlay", overlay)
	}
	out, err := exec.Command("go", append(args, "streamcount/cmd/streamcount")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return binary, nil
}

// binaries are directories to be removed after all tests.
var binaries []string
