package node

import (
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
)

// A reader that does not read must not block callers that log.
func TestLogWriter_NeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader, writer := io.Pipe()
		l := newLogWriter(writer)
		go l.run()
		logs := newLogger(l, "debug", "json")
		const lines = 3 * logQueue
		began := time.Now()
		for range lines {
			logs.slog.Info("x")
		}
		assert.Zero(t, time.Since(began), "Write must not wait for the reader")
		var got bytes.Buffer
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _ = io.Copy(&got, reader)
		}()
		l.close()
		require.NoError(t, writer.Close())
		<-read
		assert.Contains(t, got.String(), "log lines were dropped because stderr was not read")
		assert.LessOrEqual(t, strings.Count(got.String(), `"msg":"x"`), logQueue+1)
		logs.slog.Info("after close")
		require.NoError(t, l.Sync())
	})
}

func TestLogWriter_SyncWritesAll(t *testing.T) {
	var out bytes.Buffer
	l := newLogWriter(&out)
	go l.run()
	logs := newLogger(l, "info", "json")
	logs.slog.Info("from slog", "user", "maya\n", "err", io.EOF)
	logs.slog.Debug("below the level")
	logs.zap.Info("below the level of etcd")
	logs.zap.Warn("from zap", zap.String("k", "v"))
	require.NoError(t, l.Sync())
	l.close()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 2)
	var line map[string]any
	require.NoError(t, json.Unmarshal([]byte(lines[0]), &line))
	assert.Equal(t, "from slog", line["msg"])
	assert.Equal(t, "maya\n", line["user"])
	assert.Equal(t, "EOF", line["err"])
	require.NoError(t, json.Unmarshal([]byte(lines[1]), &line))
	assert.Equal(t, "from zap", line["msg"])
}

func TestLogs_Levels(t *testing.T) {
	for _, name := range []string{"debug", "info", "warn", "error"} {
		logs := newLogger(zapDiscard{}, name, "text")
		var want slog.Level
		require.NoError(t, want.UnmarshalText([]byte(name)))
		assert.True(t, logs.slog.Enabled(t.Context(), want))
		assert.Equal(t, name == "debug", logs.slog.Enabled(t.Context(), want-4), "the level below")
		assert.Equal(t, want <= slog.LevelWarn, logs.zap.Core().Enabled(zap.WarnLevel))
		assert.False(t, logs.zap.Core().Enabled(zap.InfoLevel))
	}
}

type zapDiscard struct{}

func (zapDiscard) Write(p []byte) (int, error) { return len(p), nil }
func (zapDiscard) Sync() error                 { return nil }
