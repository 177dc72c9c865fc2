package etcdlog

import (
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Server returns the logger of the embedded server. It passes warnings and errors until
// closing is closed: of the same text ten per second and then every thousandth, because after
// an overload etcd logs a warning for each of thousands of leases that were revoked twice.
// Fatal and Panic panic with an etcdPanic, so that they do not exit the process and keep their
// error.
func Server(log *zap.Logger, closing <-chan struct{}) *zap.Logger {
	filter := func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(&filterCore{core, closing}, time.Second, 10, 1000)
	}
	return AtLeast(log, zap.WarnLevel).Named("etcd").WithOptions(zap.WrapCore(filter),
		zap.WithFatalHook(panicHook{}), zap.WithPanicHook(panicHook{}))
}

// A filterCore drops warnings about settings that are intended.
type filterCore struct {
	zapcore.Core
	closing <-chan struct{}
}

// With implements zapcore.Core.
func (c *filterCore) With(fields []zapcore.Field) zapcore.Core {
	return &filterCore{c.Core.With(fields), c.closing}
}

// Check implements zapcore.Core.
func (c *filterCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if e.Level < zap.DPanicLevel && (c.isClosing() || isExpected(e.Message)) {
		return ce
	}
	if reportsStorageVersion(e.Message) && c.Enabled(e.Level) {
		return ce.AddCore(e, firstTermCore{c.Core})
	}
	return c.Core.Check(e, ce)
}

// reportsStorageVersion reports whether a message is about the version of etcd's storage. A
// new member logs it as an error if it looks for the version before its first term is stored.
// It looks again ten seconds later.
func reportsStorageVersion(message string) bool {
	return message == "Failed to detect schema version" || message == "failed to update storage version"
}

// A firstTermCore drops entries whose error is the missing first term.
type firstTermCore struct{ zapcore.Core }

// Write implements zapcore.Core.
func (c firstTermCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && strings.Contains(err.Error(), "missing term information") {
			return nil
		}
	}
	return c.Core.Write(e, fields)
}

// isClosing reports whether the server is being closed; then etcd logs its closed listeners as
// errors.
func (c *filterCore) isClosing() bool {
	select {
	case <-c.closing:
		return true
	default:
		return false
	}
}

// isExpected reports whether a warning is about an intended setting of the embedded etcd: it
// serves one process, without users.
func isExpected(message string) bool {
	switch message {
	case "Running http and grpc server on single port. This is not recommended for production.",
		"simple token is not cryptographically signed":
		return true
	}
	return false
}

// Client returns the logger of etcd's client. It passes only errors, because the client
// logs a warning for every attempt that it repeats.
func Client(log *zap.Logger) *zap.Logger {
	return AtLeast(log, zap.ErrorLevel).Named("etcd-client")
}

// AtLeast returns log without entries below level. A nil log discards all entries.
func AtLeast(log *zap.Logger, level zapcore.Level) *zap.Logger {
	if log == nil {
		return zap.NewNop()
	}
	if !log.Core().Enabled(level) { // zap logs an error if a level is lowered
		return log
	}
	return log.WithOptions(zap.IncreaseLevel(level))
}

// An etcdPanic is the panic or fatal error of an etcd server.
type etcdPanic struct {
	message string
	err     error // nil if etcd logged none
}

func (p *etcdPanic) Error() string {
	if p.err == nil {
		return p.message
	}
	return p.message + ": " + p.err.Error()
}

// Unwrap returns the error that etcd logged.
func (p *etcdPanic) Unwrap() error { return p.err }

// panicHook panics with a log entry and the error among its fields.
type panicHook struct{}

// OnWrite implements zapcore.CheckWriteHook.
func (panicHook) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	p := &etcdPanic{message: entry.Message}
	for _, f := range fields {
		if err, ok := f.Interface.(error); ok && f.Type == zapcore.ErrorType {
			p.err = err
		}
	}
	panic(p)
}
