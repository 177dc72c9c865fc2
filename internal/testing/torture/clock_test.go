//go:build linux

package torture

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"
)

// A clock is the wall clock of a node, which this test sets. The monotonic clock of the node
// remains that of the machine, as when NTP, an operator or a hypervisor sets the time.
type clock struct {
	path string // of the file with the offset, which testdata/clock reads

	mu    sync.Mutex
	steps []clockStep
}

// A clockStep has the time between from and to at which a clock was set, and its offset since.
type clockStep struct{ from, to, offset time.Duration }

// canSetClocks is false where testdata/clock has no assembly code for the processor.
const canSetClocks = runtime.GOARCH == "amd64"

const clockVariable = "TORTURE_CLOCK" // without the prefix of the service's own variables, which it would reject

func newClock(dir, name string) (*clock, error) {
	c := &clock{path: filepath.Join(dir, name+".clock"), steps: []clockStep{{}}}
	return c, os.WriteFile(c.path, make([]byte, 8), 0o600)
}

// set sets the offset of the clock, in whole seconds.
func (c *clock) set(offset time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !canSetClocks || c.steps[len(c.steps)-1].offset == offset {
		return nil
	}
	f, err := os.OpenFile(c.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	seconds := binary.LittleEndian.AppendUint64(nil, uint64(offset/time.Second))
	before := now()
	if _, err := f.WriteAt(seconds, 0); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	c.steps = append(c.steps, clockStep{before, now(), offset})
	return nil
}

// offsetDuring returns the offset of the clock between two times. ok is false if the clock
// was set between them.
func (c *clock) offsetDuring(from, to time.Duration) (offset time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.steps {
		switch {
		case s.to < from:
			offset = s.offset
		case s.from <= to:
			return 0, false
		}
	}
	return offset, true
}

// clockOverlay returns the source files that make the clock of a node settable, by the path
// at which the build shall find them.
func clockOverlay() (map[string]string, error) {
	replace := map[string]string{}
	if !canSetClocks {
		return replace, nil
	}
	for _, name := range []string{"clock.go", "clock_amd64.s"} {
		source, err := filepath.Abs(filepath.Join("testdata", "clock", name))
		if err != nil {
			return nil, err
		}
		target, err := filepath.Abs(filepath.Join("..", "..", "..", "cmd", "streamcount", "torture_"+name))
		if err != nil {
			return nil, err
		}
		replace[target] = source
	}
	return replace, nil
}

// writeOverlay writes a file for go build -overlay, which replaces source files by others.
func writeOverlay(dir string, replace map[string]string) (file string, err error) {
	text, err := json.Marshal(struct{ Replace map[string]string }{replace})
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, text, 0o600)
}

// setClock sets the clock of a node forward or back. Healing sets it right again.
func setClock(t *injection) (func() error, []int) {
	_, n := t.anyNode()
	offset := [...]time.Duration{time.Second, 4 * time.Second, time.Minute, time.Hour, 30 * 24 * time.Hour}[t.rng.IntN(5)]
	if t.rng.IntN(2) == 0 {
		offset = -offset
	}
	err := n.clock.set(offset)
	return func() error { return err }, nil // no node may be late because of it
}
