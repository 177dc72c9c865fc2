package filewatch

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/testlog"
)

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
	log := &testlog.Buffer{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx, 20*time.Millisecond, slog.New(slog.NewTextHandler(log, nil))) }()
	// A file that is written in place is empty for a moment, which is loaded too if the writer
	// is slow.
	requireLoaded := func(want string) {
		t.Helper()
		require.Eventually(t, func() bool { return loaded()[len(loaded())-1] == want }, time.Minute, time.Millisecond)
	}
	requireLoaded("a+x")
	write(real1, "c") // in place
	requireLoaded("c+x")
	require.NoError(t, os.Symlink(real2, link+".new"))
	require.NoError(t, os.Rename(link+".new", link)) // as Kubernetes replaces files
	requireLoaded("b+x")
	write(real2, "bad")
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "it is bad") }, time.Minute, time.Millisecond)
	assert.Equal(t, 1, FailingCount())
	require.NoError(t, os.Remove(other))
	require.Eventually(t, func() bool { return strings.Contains(log.String(), "no such file") }, time.Minute, time.Millisecond)
	write(other, "y")
	write(real2, "d")
	requireLoaded("d+y")
	require.Eventually(t, func() bool { return FailingCount() == 0 }, time.Minute, time.Millisecond)
	require.Eventually(t, func() bool { return strings.Count(log.String(), "changed files were loaded") >= 3 }, time.Minute, time.Millisecond)
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

// A change takes effect within the interval plus one second, and a persistent error is
// logged each minute.
func TestFiles_Times(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, os.WriteFile(path, []byte("a"), 0o600))
	synctest.Test(t, func(t *testing.T) {
		var got atomic.Value
		f, err := New(func(c [][]byte) error { got.Store(string(c[0])); return nil }, path)
		require.NoError(t, err)
		log := &testlog.Buffer{}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- f.Run(ctx, 3*time.Second, slog.New(slog.NewTextHandler(log, nil))) }()
		time.Sleep(7 * time.Second)
		require.NoError(t, os.WriteFile(path, []byte("b"), 0o600))
		time.Sleep(4 * time.Second)
		synctest.Wait()
		assert.Equal(t, "b", got.Load())
		require.NoError(t, os.Remove(path))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		assert.Equal(t, "b", got.Load(), "the contents stay in use when the file is deleted")
		assert.Equal(t, 1, FailingCount())
		assert.InDelta(t, 10, strings.Count(log.String(), "level=ERROR"), 1)
		cancel()
		require.NoError(t, <-done)
		assert.Zero(t, FailingCount())
	})
}
