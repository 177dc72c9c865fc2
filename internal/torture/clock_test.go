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

// A clock is what a node's wall clock is off by, which nothing but this test sets.
// The monotonic clock of a node is the machine's, as it is where NTP, an operator
// or a hypervisor sets the time.
type clock struct {
	path string // see testdata/clock

	mu    sync.Mutex
	steps []clockStep
}

// A clockStep says between when a clock was set, and by how much it is off since.
type clockStep struct{ from, to, off time.Duration }

// canSetClocks: the clock in testdata is for one kind of processor.
const canSetClocks = runtime.GOARCH == "amd64"

const clockVariable = "TORTURE_CLOCK" // not one of the service's own, which it would look up

func newClock(dir, name string) (*clock, error) {
	c := &clock{path: filepath.Join(dir, name+".clock"), steps: []clockStep{{}}}
	return c, os.WriteFile(c.path, make([]byte, 8), 0o600)
}

// set has the clock go wrong by off, in whole seconds, from now on.
func (c *clock) set(off time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !canSetClocks || c.steps[len(c.steps)-1].off == off {
		return nil
	}
	f, err := os.OpenFile(c.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	seconds := binary.LittleEndian.AppendUint64(nil, uint64(off/time.Second))
	before := now()
	if _, err := f.WriteAt(seconds, 0); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	c.steps = append(c.steps, clockStep{before, now(), off})
	return nil
}

// during tells what the clock was off by from a time on until another, unless it
// was set meanwhile.
func (c *clock) during(from, to time.Duration) (off time.Duration, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.steps {
		switch {
		case s.to < from:
			off = s.off
		case s.from <= to:
			return 0, false
		}
	}
	return off, true
}

// clockOverlay are the sources that have a node's clock do that.
func clockOverlay() (map[string]string, error) {
	replace := map[string]string{}
	if !canSetClocks {
		return replace, nil // there it is what it is
	}
	for _, name := range []string{"clock.go", "clock_amd64.s"} {
		source, err := filepath.Abs(filepath.Join("testdata", "clock", name))
		if err != nil {
			return nil, err
		}
		there, err := filepath.Abs(filepath.Join("..", "..", "cmd", "streamcount", "torture_"+name))
		if err != nil {
			return nil, err
		}
		replace[there] = source
	}
	return replace, nil
}

// writeOverlay writes what go build wants to know of sources to be taken instead of
// others.
func writeOverlay(dir string, replace map[string]string) (file string, err error) {
	text, err := json.Marshal(struct{ Replace map[string]string }{replace})
	if err != nil {
		return "", err
	}
	file = filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, text, 0o600)
}

// setClock sets the clock of a node, as a machine's clock is set that was wrong,
// and back.
func setClock(t *trouble) (func() error, []int) {
	_, n := t.anyNode()
	off := [...]time.Duration{time.Second, 4 * time.Second, time.Minute, time.Hour, 30 * 24 * time.Hour}[t.rng.IntN(5)]
	if t.rng.IntN(2) == 0 {
		off = -off
	}
	err := n.clock.set(off)
	return func() error { return err }, nil // nothing may come late for it
}
