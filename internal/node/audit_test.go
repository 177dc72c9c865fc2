package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/access"
	"streamcount/internal/config"
	"streamcount/internal/testing/longtest"
)

func newSink(t *testing.T, name string, out io.Writer) *auditSink {
	t.Helper()
	s, err := newAuditSink(name, out, out, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	go s.run()
	return s
}

// writeLines writes lines from several goroutines, as concurrent handlers do.
func writeLines(t *testing.T, s *auditSink, from, to int) {
	t.Helper()
	var wg sync.WaitGroup
	for i := from; i < to; i++ {
		wg.Go(func() { _, _ = fmt.Fprintf(s, "line %d\n", i) })
	}
	wg.Wait()
}

func countLines(t *testing.T, paths ...string) map[string]int {
	t.Helper()
	seen := map[string]int{}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		for line := range strings.Lines(string(b)) {
			seen[line]++
		}
	}
	return seen
}

// requireLines checks that each of n lines was written once.
func requireLines(t *testing.T, seen map[string]int, n int) {
	t.Helper()
	require.Len(t, seen, n)
	for i := range n {
		require.Equal(t, 1, seen[fmt.Sprintf("line %d\n", i)], "line %d", i)
	}
}

// No line is lost when the file is renamed, removed or truncated.
func TestAuditSink_Rotation(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	s := newSink(t, path, nil)
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.Zero(t, info.Mode().Perm()&0o077, "it has personal data")
	writeLines(t, s, 0, 1000)
	require.NoError(t, os.Rename(path, path+".1"))
	require.Eventually(t, func() bool {
		writeLines(t, s, 1000, 1001)
		_, err := os.Stat(path)
		return err == nil
	}, time.Minute, 50*time.Millisecond, "the file is there again")
	writeLines(t, s, 1001, 2000)
	require.NoError(t, s.close())
	seen := countLines(t, path, path+".1")
	seen["line 1000\n"] = 1
	requireLines(t, seen, 2000)
}

func TestAuditSink_AppendsToFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	for i := range 3 {
		s := newSink(t, path, nil)
		writeLines(t, s, i, i+1)
		require.NoError(t, s.close())
	}
	requireLines(t, countLines(t, path), 3)
	_, err := newAuditSink(filepath.Join(t.TempDir(), "no", "such"), nil, nil, nil)
	require.Error(t, err)
	assert.ErrorAs(t, err, new(config.Error))
	s, err := newAuditSink(config.AuditOff, nil, nil, nil)
	require.NoError(t, err)
	assert.Nil(t, s)
}

// A brokenPipe accepts a few bytes of each write while it is broken.
type brokenPipe struct {
	mu     sync.Mutex
	broken bool
	b      bytes.Buffer
}

func (p *brokenPipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.broken {
		n, _ := p.b.Write(b[:min(3, len(b))])
		return n, errors.New("no space left on device")
	}
	return p.b.Write(b)
}

// Lines that cannot be written are buffered in order. At maxAuditPending the sink reports that
// it is full, but still buffers lines.
func TestAuditSink_Buffer(t *testing.T) {
	out := &brokenPipe{broken: true}
	s := newSink(t, config.AuditStdout, out)
	writeLines(t, s, 0, 100)
	require.Eventually(t, func() bool { return s.measures().Errors > 0 }, time.Minute, time.Millisecond)
	assert.False(t, s.full(access.StopStream))
	big := bytes.Repeat([]byte("x"), maxAuditPending-1)
	big = append(big, '\n')
	_, _ = s.Write(big)
	assert.True(t, s.full(access.StopStream))
	assert.False(t, s.full(access.StartStream))
	writeLines(t, s, 100, 200)
	out.mu.Lock()
	out.broken = false
	out.mu.Unlock()
	require.Eventually(t, func() bool { return s.measures().Waiting == 0 }, time.Minute, time.Millisecond)
	assert.False(t, s.full(access.StopStream))
	require.NoError(t, s.close())
	assert.Equal(t, int64(201), s.measures().Lines)
	seen := map[string]int{}
	for line := range strings.Lines(out.b.String()) {
		if len(line) < 100 {
			seen[line]++
		}
	}
	requireLines(t, seen, 200)
}

// The buffer is bounded: dropped lines are counted and logged.
func TestAuditSink_BufferLimit(t *testing.T) {
	out, log := &brokenPipe{broken: true}, &strings.Builder{}
	s, err := newAuditSink(config.AuditStdout, out, out, slog.New(slog.NewTextHandler(log, nil)))
	require.NoError(t, err)
	line := bytes.Repeat([]byte("x"), 1<<20)
	const kept = maxAuditBuffer >> 20
	for range kept + 10 {
		_, _ = s.Write(line)
	}
	assert.EqualValues(t, maxAuditBuffer, s.measures().Waiting)
	assert.EqualValues(t, kept, s.measures().Lines)
	assert.Equal(t, 1, strings.Count(log.String(), "lines are dropped"))
	out.broken = false
	require.True(t, s.flush())
	assert.Contains(t, log.String(), "lines_dropped=10")
	_, _ = s.Write(line)
	assert.EqualValues(t, len(line), s.measures().Waiting)
}

func TestAuditSink_CloseReportsLostLines(t *testing.T) {
	longtest.Require(t)
	s := newSink(t, config.AuditStdout, &brokenPipe{broken: true})
	_, _ = s.Write(bytes.Repeat([]byte("x"), 1<<10))
	require.ErrorContains(t, s.close(), "could not be written")
}

func TestEscapeInvisible(t *testing.T) {
	for in, want := range map[string]string{
		"plain\n": "plain\n", "Müller \U0001F4FA 日本": "Müller \U0001F4FA 日本", "a\u202eb": `a\u202eb`, "\u2066x\u2069": `\u2066x\u2069`,
		"zero\u200bwidth\ufeff": `zero\u200bwidth\ufeff`, "del\x7f": `del\u007f`, "c1\u0085": `c1\u0085`,
		"line\u2028sep": `line\u2028sep`, "tag\U000E0041": `tag\udb40\udc41`, "bad\xffbyte": `bad\ufffdbyte`, "\ufffd": "\ufffd",
	} {
		assert.Equal(t, want, string(escapeInvisible([]byte(in))), "%q", in)
	}
	text, err := json.Marshal("a\u202e\U000E0041b")
	require.NoError(t, err)
	var back string
	require.NoError(t, json.Unmarshal(escapeInvisible(text), &back))
	assert.Equal(t, "a\u202e\U000E0041b", back, "the JSON represents the same text")
}

// BenchmarkAuditLine measures the cost of one line for the caller.
func BenchmarkAuditLine(b *testing.B) {
	path := filepath.Join(b.TempDir(), "audit.log")
	s, err := newAuditSink(path, nil, nil, slog.New(slog.DiscardHandler))
	require.NoError(b, err)
	go s.run()
	log := newAuditLog(s, "json").Handler()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			line := slog.NewRecord(time.Now(), slog.LevelInfo, "audit", 0)
			line.AddAttrs(slog.String("what", "stop"), slog.String("user", "maya"), slog.String("caller", "service backend"),
				slog.String("client", "203.0.113.7"), slog.String("stream", "h_ABCDEFGHIJKLMNOPQRST"))
			_ = log.Handle(b.Context(), line)
		}
	})
	b.StopTimer()
	require.NoError(b, s.close())
	info, err := os.Stat(path)
	require.NoError(b, err)
	b.ReportMetric(float64(info.Size())/float64(b.N), "bytes/line")
}
