package main

import (
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"
)

// logs are the two faces of one sink: slog for our code, zap for etcd's.
type logs struct {
	slog *slog.Logger
	zap  *zap.Logger // warnings and worse
}

func newLogs(w zapcore.WriteSyncer, levelName, format string) logs {
	cfg := zap.NewProductionEncoderConfig()
	cfg.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	cfg.TimeKey, cfg.MessageKey = "time", "msg"
	var enc zapcore.Encoder
	if format == "json" {
		enc = zapcore.NewJSONEncoder(cfg)
	} else {
		cfg.EncodeLevel = zapcore.CapitalLevelEncoder
		cfg.EncodeTime = zapcore.ISO8601TimeEncoder
		cfg.ConsoleSeparator = "  "
		enc = zapcore.NewConsoleEncoder(cfg)
	}
	core := zapcore.NewCore(enc, w, zapLevel(levelName))
	above := zap.New(core)
	if core.Enabled(zap.WarnLevel) {
		above = above.WithOptions(zap.IncreaseLevel(zap.WarnLevel))
	}
	return logs{slog: slog.New(zapslog.NewHandler(core, zapslog.AddStacktraceAt(slog.LevelError+1))), zap: above}
}

func zapLevel(name string) zapcore.Level {
	l, err := zapcore.ParseLevel(name)
	if err != nil { // a checked Config has none of those
		return zapcore.InfoLevel
	}
	return l
}

const (
	logQueue     = 1024
	logFlushTime = time.Second
)

// A logWriter hands lines on without ever waiting for their reader: etcd writes
// its log while it holds locks, and a terminal or pipe that nobody reads would
// stop it for good. Lines that find the queue full are counted and dropped.
type logWriter struct {
	w       io.Writer
	lines   chan []byte
	flush   chan chan struct{}
	done    chan struct{}
	dropped atomic.Int64

	mu     sync.RWMutex // held shared by Write, so that close finds no writer
	closed bool
}

func newLogWriter(w io.Writer) *logWriter {
	return &logWriter{
		w:     w,
		lines: make(chan []byte, logQueue),
		flush: make(chan chan struct{}),
		done:  make(chan struct{}),
	}
}

// Write queues a copy of p, which zap uses again.
func (l *logWriter) Write(p []byte) (int, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return len(p), nil
	}
	select {
	case l.lines <- append([]byte(nil), p...):
	default:
		l.dropped.Add(1)
	}
	return len(p), nil
}

// Sync waits until what was queued before has been written, or a second.
func (l *logWriter) Sync() error {
	timeout := time.NewTimer(logFlushTime)
	defer timeout.Stop()
	written := make(chan struct{})
	select {
	case l.flush <- written:
	case <-l.done:
		return nil
	case <-timeout.C:
		return nil
	}
	select {
	case <-written:
	case <-timeout.C:
	}
	return nil
}

// run writes lines until close.
func (l *logWriter) run() {
	defer close(l.done)
	for {
		select {
		case line, ok := <-l.lines:
			if !ok {
				return
			}
			l.put(line)
		case written := <-l.flush:
			for range len(l.lines) {
				l.put(<-l.lines)
			}
			close(written)
		}
	}
}

func (l *logWriter) put(line []byte) {
	if line == nil {
		return // closed meanwhile
	}
	if n := l.dropped.Swap(0); n > 0 {
		line = append(fmt.Appendf(nil, "streamcount: %d log lines dropped: stderr was not read\n", n), line...)
	}
	// A log that cannot be written has nowhere to say so.
	_, _ = l.w.Write(line)
}

// close writes what is queued, as far as the reader takes it within a second.
func (l *logWriter) close() {
	l.mu.Lock()
	l.closed = true
	close(l.lines)
	l.mu.Unlock()
	timeout := time.NewTimer(logFlushTime)
	defer timeout.Stop()
	select {
	case <-l.done:
	case <-timeout.C:
	}
}
