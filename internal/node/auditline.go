package node

import (
	"context"
	"log/slog"
	"strconv"
	"time"
)

// An auditHandler writes audit lines to a sink. It composes lines whose attributes are
// plain texts and integers, because there is such a line for each stop. The handler that it
// wraps encodes all other lines. Both write the same form.
type auditHandler struct {
	slog.Handler
	sink    *auditSink
	console bool // the form of a terminal, not JSON
}

// newAuditLog returns a log that writes to sink in that format.
func newAuditLog(sink *auditSink, format string) *slog.Logger {
	return slog.New(auditHandler{newLogger(sink, "info", format).slog.Handler(), sink, format != "json"})
}

// Handle implements slog.Handler.
func (h auditHandler) Handle(ctx context.Context, r slog.Record) error {
	var buf [512]byte
	if line, ok := appendAuditLine(buf[:0], &r, h.console); ok {
		_, err := h.sink.Write(line)
		return err
	}
	return h.Handler.Handle(ctx, r)
}

// consoleTimeLayout is that of zap's ISO8601TimeEncoder.
const consoleTimeLayout = "2006-01-02T15:04:05.000Z0700"

// appendAuditLine appends the line of r to b, in the form of [newLogger]. It reports false
// for a record that it cannot compose.
func appendAuditLine(b []byte, r *slog.Record, console bool) (line []byte, ok bool) {
	if r.Level != slog.LevelInfo || r.Time.IsZero() || r.NumAttrs() == 0 || !isPlain(r.Message) {
		return nil, false
	}
	colon, comma := ":", ","
	if console {
		colon, comma = ": ", ", "
		b = append(r.Time.AppendFormat(b, consoleTimeLayout), "  INFO  "...)
		b = append(append(b, r.Message...), "  {"...)
	} else {
		b = append(b, `{"level":"info","time":"`...)
		b = append(r.Time.AppendFormat(b, time.RFC3339Nano), `","msg":"`...)
		b = append(append(b, r.Message...), `",`...)
	}
	ok = true
	r.Attrs(func(a slog.Attr) bool {
		ok = a.Key != "" && isPlain(a.Key)
		b = append(append(append(append(b, '"'), a.Key...), '"'), colon...)
		switch a.Value.Kind() {
		case slog.KindString:
			text := a.Value.String()
			ok = ok && isPlain(text)
			b = append(append(append(b, '"'), text...), '"')
		case slog.KindInt64:
			b = strconv.AppendInt(b, a.Value.Int64(), 10)
		default:
			ok = false
		}
		b = append(b, comma...)
		return ok
	})
	return append(b[:len(b)-len(comma)], "}\n"...), ok
}

// isPlain reports whether text has only visible ASCII characters that JSON does not escape.
func isPlain(text string) bool {
	for i := range len(text) {
		if c := text[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			return false
		}
	}
	return true
}
