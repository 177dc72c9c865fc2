package node

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

// logger is one log with two interfaces: slog for this program and zap for etcd.
type logger struct {
	slog *slog.Logger
	zap  *zap.Logger // at level warn or higher
}

func newLogger(w zapcore.WriteSyncer, levelName, format string) logger {
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
	etcdLog := zap.New(core)
	if core.Enabled(zap.WarnLevel) {
		etcdLog = etcdLog.WithOptions(zap.IncreaseLevel(zap.WarnLevel))
	}
	return logger{slog: slog.New(zapslog.NewHandler(core, zapslog.AddStacktraceAt(slog.LevelError+1))), zap: etcdLog}
}

func zapLevel(name string) zapcore.Level {
	l, err := zapcore.ParseLevel(name)
	if err != nil { // the configuration has been validated
		return zapcore.InfoLevel
	}
	return l
}

const (
	logQueue        = 1024
	logFlushTimeout = time.Second
)

// A logWriter writes lines in the background and never blocks its callers: etcd logs while
// it holds locks, and would stop if a terminal or pipe is not read. Lines are counted and
// dropped while the queue is full.
type logWriter struct {
	w       io.Writer
	lines   chan []byte
	flush   chan chan struct{}
	done    chan struct{}
	dropped atomic.Int64

	mu     sync.RWMutex // read-locked by Write, so that no line is queued after close
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

// Write queues a copy of p, because zap reuses its buffer.
func (l *logWriter) Write(p []byte) (int, error) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		return len(p), nil
	}
	select {
	case l.lines <- append([]byte(nil), escapeInvisible(p)...):
	default:
		l.dropped.Add(1)
	}
	return len(p), nil
}

// Sync waits until the lines queued before it are written, at most for logFlushTimeout.
func (l *logWriter) Sync() error {
	timeout := time.NewTimer(logFlushTimeout)
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

// run writes lines until close is called.
func (l *logWriter) run() {
	defer close(l.done)
	for {
		select {
		case line, ok := <-l.lines:
			if !ok {
				return
			}
			l.writeLine(line)
		case written := <-l.flush:
			for range len(l.lines) {
				l.writeLine(<-l.lines)
			}
			close(written)
		}
	}
}

func (l *logWriter) writeLine(line []byte) {
	if line == nil {
		return // the queue is closed
	}
	if n := l.dropped.Swap(0); n > 0 {
		line = append(fmt.Appendf(nil, "streamcount: %d log lines were dropped because stderr was not read\n", n), line...)
	}
	// There is no other place to report an error of the log.
	_, _ = l.w.Write(line)
}

// close writes the queued lines, and returns after logFlushTimeout at the latest.
func (l *logWriter) close() {
	l.mu.Lock()
	l.closed = true
	close(l.lines)
	l.mu.Unlock()
	timeout := time.NewTimer(logFlushTimeout)
	defer timeout.Stop()
	select {
	case <-l.done:
	case <-timeout.C:
	}
}
