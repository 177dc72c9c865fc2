package api

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"strconv"
	"sync"
	"time"

	"streamcount/metrics"
)

// An early refuses starts on a connection before net/http makes requests of them. Under
// an overload most starts are refused, and what that takes is missing for those that are
// not: this way it is a fraction. What is odd about a request, or asks for more than an
// answer, goes the usual way, and is refused there.
type early struct {
	s      *Server
	starts *metrics.Route
	head   []byte // of the answer, but for two headers
	body   []byte
	outs   sync.Pool
}

// earlyDeadlines is how old the deadlines of a connection may be that refusals leave as
// they are: to set them costs as much as to find that a request can be refused.
const earlyDeadlines = time.Second

func (s *Server) newEarly() *early {
	w := newUnsent()
	commonHeaders(w.Header())
	if len(s.edge.Origins) > 0 {
		w.Header().Add("Vary", "Origin")
	}
	tooMuch().write(w)
	w.Header().Set("Content-Length", strconv.Itoa(w.body.Len()))
	w.Header().Del("Retry-After")
	var head bytes.Buffer
	head.WriteString("HTTP/1.1 " + strconv.Itoa(w.status) + " " + http.StatusText(w.status) + "\r\n")
	_ = w.Header().Write(&head) // to a buffer
	return &early{
		s: s, starts: s.metrics.Route(http.MethodPost, base+"/start"), head: head.Bytes(), body: w.body.Bytes(),
		outs: sync.Pool{New: func() any { return new([]byte) }},
	}
}

// An unsent answer is a ResponseWriter that keeps what it is told.
type unsent struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func newUnsent() *unsent { return &unsent{header: http.Header{}} }

func (a *unsent) Header() http.Header         { return a.header }
func (a *unsent) WriteHeader(status int)      { a.status = status }
func (a *unsent) Write(p []byte) (int, error) { return a.body.Write(p) }

// refuse answers what arrived on c between two requests, if it is a start, the whole of
// it and nothing else, and no more starts are let in. It reports whether it did, and why
// it could not answer.
func (e *early) refuse(c *tapConn, arrived []byte) (refused bool, err error) {
	if !plainStart(arrived) {
		return false, nil
	}
	now := time.Now()
	if !e.s.shed.refuses(now) {
		return false, nil
	}
	if now.Sub(c.deadlines) > earlyDeadlines {
		_ = c.SetReadDeadline(now.Add(idleTimeout)) // of a connection that is closed: Write says so
		_ = c.SetWriteDeadline(now.Add(writeTimeout))
		c.deadlines = now
	}
	e.s.turnedAway.slow.Add(1)
	e.s.turnedAway.early.Add(1)
	out := e.outs.Get().(*[]byte) // nothing else is put there
	*out = e.render((*out)[:0], now)
	_, err = c.Write(*out)
	e.outs.Put(out)
	took := time.Since(now)
	e.starts.Done(http.StatusServiceUnavailable, took)
	e.s.latency.note(timedStart, took)
	e.note(c, took)
	return true, err
}

func (e *early) render(to []byte, now time.Time) []byte {
	to = append(to, e.head...)
	to = now.UTC().AppendFormat(append(to, "Date: "...), http.TimeFormat)
	to = append(append(to, "\r\nRetry-After: "...), soon()...)
	return append(append(to, "\r\n\r\n"...), e.body...)
}

// note is the line in the log, in which there is nobody's name.
func (e *early) note(c *tapConn, took time.Duration) {
	ctx := context.Background()
	if !e.s.log.Enabled(ctx, slog.LevelWarn) {
		return
	}
	kept, ok := e.s.shedLines.pass(time.Now())
	if !ok {
		return
	}
	attrs := []slog.Attr{
		slog.String("route", base+"/start"), slog.String("method", http.MethodPost),
		slog.Int("status", http.StatusServiceUnavailable), slog.Duration("duration", took),
	}
	if at := peerAt(c.RemoteAddr().String()); !e.s.edge.trusts(at) { // a proxy would say who it is for
		attrs = append(attrs, slog.String("client", at.String()))
	}
	if kept > 0 {
		attrs = append(attrs, slog.Int64("unlogged", kept)) // like it, since the last
	}
	e.s.log.LogAttrs(ctx, slog.LevelWarn, "request", attrs...)
}

var (
	startBegins = []byte("POST /api/v1/streams/users/")
	startEnds   = []byte("/start HTTP/1.1\r\n")
)

// plainStart reports whether p is one start, from its first byte to its last, that says
// plainly where it ends and has nothing in it that a refusal would have to look at.
func plainStart(p []byte) bool {
	p, ok := bytes.CutPrefix(p, startBegins)
	if !ok {
		return false
	}
	slash := bytes.IndexByte(p, '/')
	if slash <= 0 || p[0] == '.' || !plainID(string(p[:min(slash, 200)])) {
		return false
	}
	if p, ok = bytes.CutPrefix(p[slash:], startEnds); !ok {
		return false
	}
	length, hosts := -1, 0
	for {
		end := bytes.IndexByte(p, '\n')
		if end < 1 || p[end-1] != '\r' {
			return false
		}
		line := p[:end-1]
		p = p[end+1:]
		if len(line) == 0 {
			return hosts == 1 && len(p) == max(length, 0)
		}
		colon := bytes.IndexByte(line, ':')
		if colon < 1 || !isText(line[colon+1:]) {
			return false
		}
		name, value := line[:colon], bytes.Trim(line[colon+1:], " \t")
		switch known, ok := plainHeader(name); {
		case !ok:
			return false
		case known == "host":
			hosts++
		case known == "content-length":
			n, err := strconv.ParseUint(string(value), 10, 16)
			if length >= 0 || err != nil {
				return false
			}
			length = int(n)
		case known == "connection" && !bytes.EqualFold(value, []byte("keep-alive")):
			return false
		}
	}
}

// plainHeader reports whether a header may be in a plain start, and which it is, if that
// matters.
func plainHeader(name []byte) (known string, plain bool) {
	for _, b := range name {
		if l := b | 0x20; (l < 'a' || l > 'z') && (b < '0' || b > '9') && b != '-' {
			return "", false
		}
	}
	for _, known := range []string{"host", "content-length", "connection"} {
		if bytes.EqualFold(name, []byte(known)) {
			return known, true
		}
	}
	// One says otherwise where the body ends, or wants to be asked for it; to the page
	// of another origin only the usual way says what it may read; and a caller who
	// traces wants a span.
	for _, odd := range []string{"transfer-encoding", "trailer", "expect", "upgrade", "origin", "traceparent"} {
		if bytes.EqualFold(name, []byte(odd)) {
			return "", false
		}
	}
	return "", true
}

// isText reports whether a header's value has no control characters but tabs.
func isText(p []byte) bool {
	for _, b := range p {
		if b < ' ' && b != '\t' || b == 0x7f {
			return false
		}
	}
	return true
}
