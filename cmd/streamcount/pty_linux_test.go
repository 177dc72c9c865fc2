package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"streamcount/internal/display"
	"streamcount/internal/testing/testlog"
)

// openTerminal returns both ends of a terminal: for the test and for the program.
func openTerminal(t *testing.T, width, height uint16) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = ours.Close() })
	fd := int(ours.Fd())
	require.NoError(t, unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0))
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	require.NoError(t, err)
	theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	t.Cleanup(func() { _ = theirs.Close() })
	require.NoError(t, unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width}))
	return ours, theirs
}

// A session is one run of the program in a terminal.
type session struct {
	keyboard *os.File
	seen     testlog.Buffer
	cmd      *exec.Cmd
	read     chan struct{}
}

func atTerminal(t *testing.T, width, height uint16, environ []string, args ...string) *session {
	t.Helper()
	ours, theirs := openTerminal(t, width, height)
	s := &session{keyboard: ours, read: make(chan struct{})}
	s.cmd = exec.CommandContext(t.Context(), os.Args[0], args...)
	s.cmd.Env = append([]string{asMain + "=1", "TERM=xterm-256color", "PATH=" + os.Getenv("PATH")}, environ...)
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = theirs, theirs, theirs
	s.cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(t, s.cmd.Start())
	require.NoError(t, theirs.Close())
	go func() {
		defer close(s.read)
		_, _ = io.Copy(&s.seen, ours) // ends with an error when the program has closed its end
	}()
	return s
}

// end waits for the program, and returns its output.
func (s *session) end(t *testing.T) string {
	t.Helper()
	defer time.AfterFunc(time.Minute, func() { _ = s.cmd.Process.Kill() }).Stop() // it has ended, or Wait says that it was killed
	err := s.cmd.Wait()
	<-s.read
	require.NoError(t, err, s.seen.String())
	return s.seen.String()
}

func (s *session) await(t *testing.T, text string) {
	t.Helper()
	require.Eventually(t, func() bool { return strings.Contains(s.seen.String(), text) },
		time.Minute, 10*time.Millisecond, "no %q on the terminal: %q", text, s)
}

func (s *session) String() string { return s.seen.String() }

func (s *session) press(t *testing.T, keys string) {
	t.Helper()
	_, err := s.keyboard.WriteString(keys)
	require.NoError(t, err)
}

func TestLs_Terminal(t *testing.T) {
	t.Parallel()
	_, c := serve(t, "--data-dir="+t.TempDir())
	c.run(exitOK, "start", "maya", "--device-name=A television with a very long name indeed", "--session=tab")
	out := atTerminal(t, 80, 24, c.environ, "ls", "maya").end(t)
	assert.Contains(t, out, "\x1b[1mSTREAM\x1b[0m")
	assert.Regexp(t, `\ds ago`, out)
	plain := atTerminal(t, 80, 24, append(c.environ, "NO_COLOR=1"), "ls", "maya").end(t)
	assert.NotContains(t, plain, "\x1b")
	assert.Contains(t, plain, "…")
	for line := range strings.SplitSeq(plain, "\r\n") {
		assert.LessOrEqual(t, display.Width(line), 80, line)
	}
	wide := atTerminal(t, 250, 24, append(c.environ, "NO_COLOR=1"), "ls", "maya").end(t)
	assert.Contains(t, wide, "A television with a very long name indeed  -        tab")
}

// Without a server top draws, handles keys and restores the terminal.
func TestTop_WithoutServer(t *testing.T) {
	s := atTerminal(t, 100, 30, []string{"STREAMCOUNT_SERVER=http://" + closedPort(t)}, "top", "--every=200ms")
	s.await(t, "\x1b[?1049h")
	s.await(t, "unavailable:")
	s.press(t, "?")
	s.await(t, "show users, regions, nodes, etcd members or refusals by limit")
	s.press(t, "\x03")
	assert.Contains(t, s.end(t), "\x1b[?1049l", "the terminal is restored")
}
