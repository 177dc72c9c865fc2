package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// nodePackage is the package of the streamcount binary.
const nodePackage = "streamcount/cmd/streamcount"

var errNoBinary = errors.New("there is no streamcount binary beside streamcount-bench or in PATH: " +
	`build both with "go build -o bin/ ./cmd/streamcount ./cmd/streamcount-bench", or pass --binary PATH`)

// findNode returns the path of the streamcount binary: the one that --binary names,
// else the one in the directory of self, the path of this program, else the one in
// PATH. If "go run" started this program, findNode builds the binary, and remove
// deletes it.
func findNode(ctx context.Context, binary, self string) (path string, remove func(), err error) {
	remove = func() {}
	if binary != "" {
		if path, err = exec.LookPath(binary); err != nil {
			return "", remove, usageError{fmt.Errorf("--binary: %w", err)}
		}
		return path, remove, nil
	}
	name := "streamcount"
	if runtime.GOOS == "windows" {
		name += ".exe"
	}
	beside := filepath.Join(filepath.Dir(self), name)
	if info, err := os.Stat(beside); err == nil && info.Mode().IsRegular() {
		return beside, remove, nil
	}
	if strings.Contains(self, string(filepath.Separator)+"go-build") {
		return buildNode(ctx, name)
	}
	if path, err = exec.LookPath(name); err != nil {
		return "", remove, usageError{errNoBinary}
	}
	return path, remove, nil
}

// buildNode builds the streamcount binary into a new directory, which remove deletes.
func buildNode(ctx context.Context, name string) (path string, remove func(), err error) {
	dir, err := os.MkdirTemp("", "streamcount-bench-")
	if err != nil {
		return "", func() {}, fmt.Errorf("create a directory for the streamcount binary: %w", err)
	}
	remove = func() { _ = os.RemoveAll(dir) } // it is in the directory for temporary files
	path = filepath.Join(dir, name)
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", path, nodePackage).CombinedOutput(); err != nil {
		remove()
		return "", func() {}, fmt.Errorf("build %s: %w: %s", nodePackage, err, out)
	}
	return path, remove, nil
}

// nodeVersion returns the version that the streamcount binary at path prints.
func nodeVersion(ctx context.Context, path string) (string, error) {
	out, err := exec.CommandContext(ctx, path, "version").Output()
	if err != nil {
		return "", fmt.Errorf("run %s version: %w", path, err)
	}
	return strings.TrimSpace(string(out)), nil
}
