package docs

import (
	"bytes"
	"io"
	"os/exec"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A terminal is a shell with its output.
type terminal struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	ended chan error

	mu  sync.Mutex
	out bytes.Buffer
}

// open runs a shell command until the test ends.
func open(t *testing.T, dir string, environ []string, command string) *terminal {
	t.Helper()
	term := &terminal{t: t, cmd: exec.Command("bash", "-c", command), ended: make(chan error, 1)}
	term.cmd.Dir, term.cmd.Env = dir, environ
	term.cmd.Stdout, term.cmd.Stderr = term, term
	in, err := term.cmd.StdinPipe()
	require.NoError(t, err)
	term.in = in
	require.NoError(t, term.cmd.Start())
	go func() { term.ended <- term.cmd.Wait() }()
	t.Cleanup(func() { _ = term.end(syscall.SIGTERM) }) // the error is the signal
	return term
}

// Write appends output.
func (term *terminal) Write(p []byte) (int, error) {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.out.Write(p)
}

func (term *terminal) printed() string {
	term.mu.Lock()
	defer term.mu.Unlock()
	return term.out.String()
}

// String returns the output. Failure messages use it, so that they show the output at the time
// of the failure.
func (term *terminal) String() string { return term.printed() }

func (term *terminal) clear() {
	term.mu.Lock()
	defer term.mu.Unlock()
	term.out.Reset()
}

func (term *terminal) send(line string) {
	term.t.Helper()
	_, err := io.WriteString(term.in, line+"\n")
	require.NoError(term.t, err)
}

// end closes the terminal's input, signals its program and waits until it has ended.
func (term *terminal) end(sig syscall.Signal) error {
	_ = term.in.Close() // fails if the program has exited
	_ = term.cmd.Process.Signal(sig)
	select {
	case err := <-term.ended:
		term.ended <- err // for the next call
		return err
	case <-time.After(patience):
		_ = term.cmd.Process.Kill()
		assert.Fail(term.t, "the program does not exit", "%s", term.printed())
		return nil
	}
}
