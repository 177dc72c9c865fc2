// Package follow keeps what was read from files up to date while they change, as
// certificates and keys do. It looks at contents, so that files may be replaced
// in any way: written in place, renamed over, or behind a link that moves.
package follow

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"
)

// MaxSize is how many bytes a file may have.
const MaxSize = 1 << 20

// Files are some files whose contents belong together.
type Files struct {
	load  func(contents [][]byte) error
	paths []string
	seen  [sha256.Size]byte // what load was called with last
	last  [sha256.Size]byte // what was read last
	bad   string            // the last error that was logged
}

// New reads the files at paths and hands them to load, in that order. Its error
// is that of a file which cannot be read, or load's.
func New(load func(contents [][]byte) error, paths ...string) (*Files, error) {
	f := &Files{load: load, paths: paths}
	return f, f.look(true)
}

// Run looks every interval whether the files have changed, and hands them to load
// if so, until ctx ends. Files that load refuses stay without effect, and are
// logged once.
func (f *Files) Run(ctx context.Context, every time.Duration, log *slog.Logger) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := f.look(false)
		switch {
		case err == nil:
			f.bad = ""
		case err.Error() != f.bad:
			f.bad = err.Error()
			log.Error("a changed file is not used; what was read before stays in force", "files", f.paths, "err", err)
		}
	}
}

// look loads what has changed. Unless it is the first time, it has to find the same
// twice: a file that is cut short by its writer may make sense, and another one.
func (f *Files) look(first bool) error {
	contents := make([][]byte, len(f.paths))
	for i, path := range f.paths {
		b, err := read(path)
		if err != nil {
			return err
		}
		contents[i] = b
	}
	sum := sha256.Sum256(bytes.Join(contents, []byte{0}))
	if sum == f.seen {
		return nil
	}
	if !first && sum != f.last { // it may be in the middle of being written
		f.last = sum
		return nil
	}
	if err := f.load(contents); err != nil {
		return err
	}
	f.seen = sum
	return nil
}

func read(path string) ([]byte, error) {
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
