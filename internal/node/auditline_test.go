package node

import (
	"bytes"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zapcore"
)

// FuzzAuditLine compares the lines that are composed with those of the encoder.
func FuzzAuditLine(f *testing.F) {
	f.Add("audit", "user", "maya", int64(3), int64(1_800_000_000_123), false)
	f.Add("audit", "device", "TV\n\x1b[31m\u202e\"\\", int64(-1), int64(1), true)
	f.Add("", "", "Müller", int64(0), int64(-1), true)
	f.Fuzz(func(t *testing.T, message, key, text string, number, at int64, console bool) {
		format := "json"
		if console {
			format = "console"
		}
		line := slog.NewRecord(time.UnixMicro(at), slog.LevelInfo, message, 0)
		line.AddAttrs(slog.String("what", "stop"), slog.String(key, text), slog.Int64("streams", number))
		var usual bytes.Buffer
		require.NoError(t, newLogger(zapcore.AddSync(&usual), "info", format).slog.Handler().Handle(t.Context(), line))
		composed, ok := appendAuditLine(nil, &line, console)
		if ok {
			require.Equal(t, usual.String(), string(composed))
		}
		if key != "" {
			require.Equal(t, isPlain(message) && isPlain(key) && isPlain(text), ok)
		}
	})
}

// Lines of every kind reach the sink, composed or not.
func TestAuditHandler(t *testing.T) {
	for _, format := range []string{"json", "console"} {
		var want bytes.Buffer
		general := newLogger(zapcore.AddSync(&want), "info", format).slog.Handler()
		var got bytes.Buffer
		s := newSink(t, "stdout", &got)
		for _, attrs := range [][]slog.Attr{
			{slog.String("what", "stop"), slog.Int("limit", 3)}, {slog.String("user", "Müller")}, {slog.Any("old", map[string]int{"limit": 3})}, {},
			{slog.Group("g", slog.Int("a", 1))}, {slog.Bool("b", true)},
		} {
			line := slog.NewRecord(time.Now(), slog.LevelInfo, "audit", 0)
			line.AddAttrs(attrs...)
			require.NoError(t, newAuditLog(s, format).Handler().Handle(t.Context(), line))
			require.NoError(t, general.Handle(t.Context(), line))
		}
		require.NoError(t, s.close())
		assert.Equal(t, want.String(), got.String())
	}
}
