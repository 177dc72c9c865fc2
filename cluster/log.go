package cluster

import (
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// serverLog is what the embedded server may say: warnings and worse, of the same text
// ten a second and then every thousandth, until closing is closed: after an overload it warns of each of thousands of
// leases that were revoked twice. Its Fatal would end the process, its Panic say less than
// it knows; both panic with an etcdPanic instead.
func serverLog(log *zap.Logger, closing <-chan struct{}) *zap.Logger {
	filter := func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(&filterCore{core, closing}, time.Second, 10, 1000)
	}
	return atLeast(log, zap.WarnLevel).Named("etcd").WithOptions(zap.WrapCore(filter),
		zap.WithFatalHook(panicHook{}), zap.WithPanicHook(panicHook{}))
}

// filterCore drops what etcd warns of although we meant it.
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
	return c.Core.Check(e, ce)
}

// isClosing is when etcd calls its own closed listeners errors.
func (c *filterCore) isClosing() bool {
	select {
	case <-c.closing:
		return true
	default:
		return false
	}
}

// isExpected knows the warnings about how we run etcd: on loopback, for one
// process, without users.
func isExpected(message string) bool {
	switch message {
	case "Running http and grpc server on single port. This is not recommended for production.",
		"simple token is not cryptographically signed":
		return true
	}
	return false
}

// clientLog is what etcd's client may say. It warns about every attempt that
// it repeats by itself, so only errors are let through.
func clientLog(log *zap.Logger) *zap.Logger {
	return atLeast(log, zap.ErrorLevel).Named("etcd-client")
}

func atLeast(log *zap.Logger, level zapcore.Level) *zap.Logger {
	if log == nil {
		return zap.NewNop()
	}
	if !log.Core().Enabled(level) { // zap complains when a level is lowered
		return log
	}
	return log.WithOptions(zap.IncreaseLevel(level))
}

// An etcdPanic is the last word of an etcd server.
type etcdPanic struct {
	message string
	err     error // nil unless etcd gave one
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
