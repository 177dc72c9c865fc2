package node

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"streamcount/access"
	"streamcount/internal/config"
	"streamcount/metrics"
)

const (
	maxAuditPending       = 16 << 20 // buffered bytes at which actions other than starts are rejected; about 60,000 lines
	maxAuditPendingStarts = 48 << 20 // buffered bytes at which starts are rejected, because a start may end other streams
	maxAuditBuffer        = 64 << 20 // buffered bytes at which lines are dropped
	auditBatchSize        = 64 << 10 // buffered bytes at which lines are written without delay
	auditFlushInterval    = 100 * time.Millisecond
	auditRetryInterval    = time.Second // after an error
	auditCloseTimeout     = 5 * time.Second
)

// An auditSink writes the audit log. It buffers lines for auditFlushInterval, and for as long
// as they cannot be written. Callers check full before an action that is recorded, so the
// line of an action is never dropped. Samples of refusals are dropped when the buffer
// holds maxAuditBuffer bytes.
type auditSink struct {
	path string    // of the file; "" if out is used
	out  io.Writer // if path is ""
	log  *slog.Logger

	mu      sync.Mutex
	queued  []byte
	size    atomic.Int64 // bytes in queued and unwritten bytes in writing
	lines   atomic.Int64
	errors  atomic.Int64
	dropped atomic.Int64 // since the number was last logged

	flushNow chan struct{}
	stop     chan struct{}
	done     chan struct{}

	// The following fields belong to run.
	file      *os.File
	checkedAt time.Time // when path was last found to refer to file
	writing   []byte
	written   int  // bytes of writing
	failed    bool // the last write failed
}

// newAuditSink returns a sink for the value of --audit-file; nil for "off".
func newAuditSink(name string, out, errOut io.Writer, log *slog.Logger) (*auditSink, error) {
	s := &auditSink{log: log, flushNow: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	switch name {
	case config.AuditOff:
		return nil, nil
	case config.AuditStderr:
		s.out = errOut
	case config.AuditStdout:
		s.out = out
	default:
		s.path = name
		if err := s.open(); err != nil {
			return nil, config.Errorf("audit-file: %w", err)
		}
	}
	return s, nil
}

func (s *auditSink) name() string { return cmp.Or(s.path, "standard stream") }

func (s *auditSink) open() error {
	f, err := os.OpenFile(s.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if s.file != nil {
		_ = s.file.Close() // all data is written
	}
	s.file, s.checkedAt = f, time.Now()
	return nil
}

// Write buffers one line.
func (s *auditSink) Write(line []byte) (int, error) {
	n := len(line)
	if s.size.Load() >= maxAuditBuffer {
		if s.dropped.Add(1) == 1 {
			s.log.Error("the audit log cannot be written and its buffer is full: lines are dropped", "file", s.name())
		}
		return n, nil
	}
	line = escapeInvisible(line)
	s.mu.Lock()
	s.queued = append(s.queued, line...)
	size := s.size.Add(int64(len(line)))
	s.mu.Unlock()
	s.lines.Add(1)
	if size >= auditBatchSize {
		select {
		case s.flushNow <- struct{}{}:
		default:
		}
	}
	return n, nil
}

// Sync implements zapcore.WriteSyncer. It does nothing: close writes all lines.
func (s *auditSink) Sync() error { return nil }

// full reports whether the buffer is too full for another action of that kind.
func (s *auditSink) full(action access.Action) bool {
	if action == access.StartStream {
		return s.size.Load() >= maxAuditPendingStarts
	}
	return s.size.Load() >= maxAuditPending
}

func (s *auditSink) measures() metrics.Audit {
	return metrics.Audit{Lines: s.lines.Load(), Errors: s.errors.Load(), Waiting: s.size.Load()}
}

// run writes lines until close is called.
func (s *auditSink) run() {
	defer close(s.done)
	for {
		delay := auditFlushInterval
		if s.failed {
			delay = auditRetryInterval
		}
		timer := time.NewTimer(delay)
		wake := s.flushNow
		if s.failed {
			wake = nil
		}
		select {
		case <-timer.C:
		case <-wake:
		case <-s.stop:
			timer.Stop()
			s.drain()
			return
		}
		timer.Stop()
		s.flush()
	}
}

// drain retries to write all lines for auditCloseTimeout.
func (s *auditSink) drain() {
	for end := time.Now().Add(auditCloseTimeout); !s.flush() && time.Now().Before(end); {
		time.Sleep(auditFlushInterval)
	}
	if s.file != nil {
		_ = s.file.Close()
	}
}

// flush writes the buffered lines, and reports whether all were written.
func (s *auditSink) flush() bool {
	s.mu.Lock()
	if len(s.writing) == 0 {
		s.writing, s.queued = s.queued, s.writing
	} else {
		s.writing = append(s.writing, s.queued...)
		s.queued = s.queued[:0]
	}
	s.mu.Unlock()
	if len(s.writing) == 0 {
		return true
	}
	w, err := s.writer()
	for err == nil && s.written < len(s.writing) {
		var n int
		n, err = w.Write(s.writing[s.written:])
		s.written += n
		s.size.Add(int64(-n))
	}
	switch {
	case err == nil && (s.failed || s.dropped.Load() > 0):
		s.log.Info("the audit log can be written again", "file", s.name(), "lines_dropped", s.dropped.Swap(0))
	case err != nil:
		s.errors.Add(1)
		if !s.failed {
			s.log.Error("the audit log cannot be written: its lines are buffered in memory", "file", s.name(), "err", err)
		}
	}
	if s.failed = err != nil; s.failed {
		return false
	}
	s.writing, s.written = s.writing[:0], 0
	if cap(s.writing) > 4*auditBatchSize { // after a backlog
		s.writing = nil
	}
	return true
}

// writer returns the destination of lines. It reopens the file if the file was renamed or
// removed, for example by logrotate.
func (s *auditSink) writer() (io.Writer, error) {
	if s.path == "" {
		return s.out, nil
	}
	if time.Since(s.checkedAt) < time.Second {
		return s.file, nil
	}
	current, err := os.Stat(s.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	open, statErr := s.file.Stat()
	if err == nil && statErr == nil && os.SameFile(current, open) {
		s.checkedAt = time.Now()
		return s.file, nil
	}
	if err := s.open(); err != nil {
		return nil, err
	}
	return s.file, nil
}

// close writes the buffered lines, and returns an error if that fails within
// auditCloseTimeout.
func (s *auditSink) close() error {
	close(s.stop)
	limit := time.NewTimer(auditCloseTimeout + time.Second)
	defer limit.Stop()
	select {
	case <-s.done:
	case <-limit.C:
	}
	if n := s.size.Load(); n > 0 {
		return fmt.Errorf("%d bytes of the audit log could not be written to %s", n, s.name())
	}
	return nil
}
