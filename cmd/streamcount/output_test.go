package main

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

	"streamcount/api/apitype"
)

func TestPrintStreams_Aligned(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out}
	require.NoError(t, a.printStreams([]apitype.Stream{
		{ID: "s1", Region: "eu", Device: &apitype.Device{Name: "TV\x1b]0;x\a", Type: "tv"},
			Content: &apitype.Content{Title: "Küche"}},
		{ID: "longer-id"},
	}))
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 3)
	assert.Contains(t, lines[1], `TV\x1b]0;x\x07 (tv)`)
	assert.NotContains(t, out.String(), "\x1b")
	at := strings.Index(lines[0], "REGION")
	assert.Equal(t, "eu", strings.Fields(lines[1][at:])[0])
	assert.Equal(t, "-", strings.Fields(lines[2][at:])[0])
}

func TestJoinEvery(t *testing.T) {
	for in, want := range map[string]string{
		"heartbeat u id --every 10s":    "heartbeat u id --every=10s",
		"heartbeat u id --every":        "heartbeat u id --every",
		"heartbeat --every 10s u id":    "heartbeat --every=10s u id",
		"heartbeat --every u id":        "heartbeat --every u id",
		"heartbeat u id --every --json": "heartbeat u id --every --json",
		"heartbeat --every=3s u id":     "heartbeat --every=3s u id",
		"heartbeat u -- --every 10s":    "heartbeat u -- --every 10s",
	} {
		assert.Equal(t, strings.Fields(want), joinEvery(strings.Fields(in)))
	}
}

// A reader that never reads must not stop those who log.
func TestLogWriter_NeverBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader, writer := io.Pipe()
		l := newLogWriter(writer)
		go l.run()
		logs := newLogs(l, "debug", "json")
		const lines = 3 * logQueue
		began := time.Now()
		for range lines {
			logs.slog.Info("x")
		}
		assert.Zero(t, time.Since(began), "waited for the reader")
		var got bytes.Buffer
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _ = io.Copy(&got, reader)
		}()
		l.close()
		require.NoError(t, writer.Close())
		<-read
		assert.Contains(t, got.String(), "log lines dropped: stderr was not read")
		assert.LessOrEqual(t, strings.Count(got.String(), `"msg":"x"`), logQueue+1)
		logs.slog.Info("too late, and harmless")
		require.NoError(t, l.Sync())
	})
}

func TestLogWriter_SyncWritesAll(t *testing.T) {
	var out bytes.Buffer
	l := newLogWriter(&out)
	go l.run()
	logs := newLogs(l, "info", "json")
	logs.slog.Info("ours", "user", "maya\n", "err", io.EOF)
	logs.slog.Debug("not said")
	logs.zap.Info("not said either")
	logs.zap.Warn("etcd's", zap.String("k", "v"))
	require.NoError(t, l.Sync())
	l.close()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 2)
	var line map[string]any
	require.NoError(t, json.Unmarshal([]byte(lines[0]), &line))
	assert.Equal(t, "ours", line["msg"])
	assert.Equal(t, "maya\n", line["user"])
	assert.Equal(t, "EOF", line["err"])
	require.NoError(t, json.Unmarshal([]byte(lines[1]), &line))
	assert.Equal(t, "etcd's", line["msg"])
}

func TestLogs_Levels(t *testing.T) {
	for _, name := range []string{"debug", "info", "warn", "error"} {
		logs := newLogs(zapDiscard{}, name, "text")
		want := *level(name)
		assert.True(t, logs.slog.Enabled(t.Context(), want))
		assert.Equal(t, name == "debug", logs.slog.Enabled(t.Context(), want-4), "the level below")
		assert.Equal(t, want <= slog.LevelWarn, logs.zap.Core().Enabled(zap.WarnLevel))
		assert.False(t, logs.zap.Core().Enabled(zap.InfoLevel))
	}
}

type zapDiscard struct{}

func (zapDiscard) Write(p []byte) (int, error) { return len(p), nil }
func (zapDiscard) Sync() error                 { return nil }
