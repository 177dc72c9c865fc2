package follow

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// safeBuffer is a log that may be read while it is written.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestFiles(t *testing.T) {
	dir := t.TempDir()
	real1, real2, link, other := filepath.Join(dir, "1"), filepath.Join(dir, "2"), filepath.Join(dir, "key"), filepath.Join(dir, "cert")
	write := func(path, text string) { require.NoError(t, os.WriteFile(path, []byte(text), 0o600)) }
	write(real1, "a")
	write(real2, "b")
	write(other, "x")
	require.NoError(t, os.Symlink(real1, link))

	var mu sync.Mutex
	var got []string
	loaded := func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), got...)
	}
	f, err := New(func(c [][]byte) error {
		if bytes.Contains(c[0], []byte("bad")) {
			return errors.New("it is bad")
		}
		mu.Lock()
		defer mu.Unlock()
		got = append(got, string(bytes.Join(c, []byte("+"))))
		return nil
	}, link, other)
	require.NoError(t, err)
	log := &safeBuffer{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, 20*time.Millisecond, slog.New(slog.NewTextHandler(log, nil))) }()
	soon := func(want ...string) {
		t.Helper()
		require.Eventually(t, func() bool { return assert.ObjectsAreEqual(want, loaded()) }, time.Minute, time.Millisecond, "%v", loaded())
	}
	soon("a+x")
	write(real1, "c") // in place
	soon("a+x", "c+x")
	require.NoError(t, os.Symlink(real2, link+".new"))
	require.NoError(t, os.Rename(link+".new", link)) // as Kubernetes does it
	soon("a+x", "c+x", "b+x")
	write(real2, "bad")
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "it is bad") }, time.Minute, time.Millisecond)
	require.NoError(t, os.Remove(other))
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "no such file") }, time.Minute, time.Millisecond)
	write(other, "y")
	write(real2, "d")
	soon("a+x", "c+x", "b+x", "d+y")
	cancel()
	require.NoError(t, <-done)
	assert.LessOrEqual(t, strings.Count(log.String(), "level=ERROR"), 3, "once for each state of the files:\n%s", log.String())
}

func TestFiles_AtStart(t *testing.T) {
	dir := t.TempDir()
	_, err := New(func([][]byte) error { return nil }, filepath.Join(dir, "none"))
	require.ErrorIs(t, err, os.ErrNotExist)
	large := filepath.Join(dir, "large")
	require.NoError(t, os.WriteFile(large, make([]byte, MaxSize+1), 0o600))
	_, err = New(func([][]byte) error { return nil }, large)
	require.ErrorContains(t, err, "more than")
	refused := errors.New("refused")
	small := filepath.Join(dir, "small")
	require.NoError(t, os.WriteFile(small, nil, 0o600))
	_, err = New(func([][]byte) error { return refused }, small)
	require.ErrorIs(t, err, refused)
}
