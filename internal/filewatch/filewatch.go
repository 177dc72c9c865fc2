// Package filewatch reloads files, such as certificates and keys, when their contents
// change. It compares contents, so files may be replaced in any way: written in place,
// renamed over, or reached through a symbolic link that changes.
package filewatch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"
)

// MaxSize is the maximum size of a file in bytes.
const MaxSize = 1 << 20

// Files is a set of files that are loaded together, such as a certificate and its key.
type Files struct {
	load      func(contents [][]byte) error
	paths     []string
	loaded    [sha256.Size]byte // checksum of the contents that load accepted last
	previous  [sha256.Size]byte // checksum of the contents that were read last
	lastError string            // the error of the last check; "" if it succeeded
	loggedAt  time.Time         // when lastError was logged
}

// failingSets counts the Files whose last check failed.
var failingSets atomic.Int64

// FailingCount returns how many sets of files in this process currently cannot be read
// or loaded. The contents that were loaded before remain in use.
func FailingCount() int { return int(failingSets.Load()) }

const (
	confirmDelay        = time.Second // how long a changed content must be stable before it is loaded
	repeatErrorInterval = time.Minute // how often a persistent error is logged
)

// New reads the files at paths and passes their contents to load, in that order. It
// returns an error if a file cannot be read or load fails.
func New(load func(contents [][]byte) error, paths ...string) (*Files, error) {
	f := &Files{load: load, paths: paths}
	return f, f.check(true)
}

// Run checks the files every interval until ctx ends, and calls load when their contents
// have changed. A change takes effect within the interval plus one second. If the files
// cannot be read or load rejects them, the contents that were loaded before remain in use
// and the error is logged, and logged again every minute while it persists.
func (f *Files) Run(ctx context.Context, every time.Duration, log *slog.Logger) error {
	defer f.reportError(nil, log)
	next := time.NewTimer(every)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
		}
		before := f.loaded
		err := f.check(false)
		f.reportError(err, log)
		if err == nil && f.loaded != before {
			log.Info("changed files were loaded", "files", f.paths)
		}
		if err == nil && f.previous != f.loaded { // a change that must be confirmed
			next.Reset(min(every, confirmDelay))
		} else {
			next.Reset(every)
		}
	}
}

// reportError updates the count of failing sets and logs err, unless it was logged recently.
func (f *Files) reportError(err error, log *slog.Logger) {
	if (err == nil) != (f.lastError == "") {
		if err == nil {
			failingSets.Add(-1)
		} else {
			failingSets.Add(1)
		}
	}
	switch {
	case err == nil:
		f.lastError = ""
	case err.Error() != f.lastError || time.Since(f.loggedAt) >= repeatErrorInterval:
		f.lastError, f.loggedAt = err.Error(), time.Now()
		log.Error("files cannot be read or loaded; the previous contents remain in use", "files", f.paths, "err", err)
	}
}

// check reads the files and loads changed contents. Except at the first check, two
// consecutive reads must return the same contents: a file that is being written may be
// valid although it is incomplete.
func (f *Files) check(first bool) error {
	contents := make([][]byte, len(f.paths))
	for i, path := range f.paths {
		b, err := readFile(path)
		if err != nil {
			return err
		}
		contents[i] = b
	}
	sum := sha256.Sum256(bytes.Join(contents, []byte{0}))
	if sum == f.loaded {
		f.previous = sum
		return nil
	}
	if !first && sum != f.previous { // the file may be incomplete
		f.previous = sum
		return nil
	}
	if err := f.load(contents); err != nil {
		return err
	}
	f.loaded, f.previous = sum, sum
	return nil
}

func readFile(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = file.Close() }() // it was only read
	b, err := io.ReadAll(io.LimitReader(file, MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(b) > MaxSize {
		return nil, fmt.Errorf("read %s: more than %d bytes", path, MaxSize)
	}
	return b, nil
}
