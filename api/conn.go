package api

import (
	"bytes"
	"context"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
	"time"
)

// net/http deletes the Content-Length of a request that is also chunked before
// any handler sees it, and keeps the connection. A proxy in front of us that
// goes by the length would then take the rest of the body for our client's next
// request, or the other way round. So each connection is read along with, just
// closely enough to know which request had both.

// A tapListener accepts connections that read along with their server. It
// wraps the listener from outside, so that withTap finds its connections.
type tapListener struct {
	net.Listener
	early *early
}

func (l tapListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &tapConn{Conn: c, early: l.early}, nil
}

// A tapConn watches the heads of the requests that arrive on it, and refuses early what
// can be.
type tapConn struct {
	net.Conn
	scan    headScanner             // used by Read alone, and net/http reads one at a time
	verdict atomic.Pointer[verdict] // set at most once
	taken   int64                   // requests handed to handlers; used by the serving goroutine alone

	early     *early    // refuses what may be; nil for nothing
	deadlines time.Time // when it last set them; used by Read alone
}

// Read reads what net/http has to handle. It handles one request after the other, and
// reads no more than a byte while it does: whatever comes whole comes between them.
func (c *tapConn) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err == nil && c.early != nil && c.scan.between() {
			refused, err := c.early.refuse(c, p[:n])
			if err != nil {
				return 0, err
			}
			if refused {
				continue
			}
		}
		if v := c.scan.feed(p[:n]); v != nil {
			c.verdict.Store(v)
		}
		c.deadlines = time.Time{} // net/http sets its own
		return n, err
	}
}

// A verdict is about the first request of a connection that does not plainly
// say its length. Nothing after it is watched, since that request is the
// connection's last.
type verdict struct {
	request int64 // counted from 1
	odd     bool  // folded lines, or both lengths
}

type tapKey struct{}

func withTap(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, tapKey{}, c)
}

// ambiguous reports whether the request that is about to be handled says in two
// ways where its body ends. It must be called once for each request.
func ambiguous(r *http.Request) bool {
	c, ok := r.Context().Value(tapKey{}).(*tapConn)
	if !ok {
		return false // not served by Run
	}
	c.taken++
	v := c.verdict.Load()
	if v == nil || v.request != c.taken {
		return false
	}
	// net/http ignores the transfer encoding of an HTTP/1.0 request; others
	// may not.
	return v.odd || !chunked(r)
}

func chunked(r *http.Request) bool { return slices.Contains(r.TransferEncoding, "chunked") }

// A headScanner follows the requests on a connection by their lengths, in
// constant memory. It is as strict as net/http or less so: where net/http
// refuses a head it closes the connection, and what is scanned then is moot.
type headScanner struct {
	requests int64 // whose head is complete
	body     int64 // bytes of the current body still to come
	done     bool  // nothing more to learn
	ended    bool  // the last byte was the last of a request

	lines  int // of the current head
	size   int // of the current line, without its end
	line   [64]byte
	kept   int   // bytes of line in use
	length int64 // the current head's Content-Length
	hasLen bool
	hasTE  bool
	odd    bool
}

// between reports whether a request has been read to its end, and nothing after it, be
// it an empty line: that is a beginning to net/http.
func (s *headScanner) between() bool { return s.ended && !s.done }

func (s *headScanner) feed(p []byte) *verdict {
	for len(p) > 0 && !s.done {
		if s.body > 0 {
			n := min(int64(len(p)), s.body)
			s.body -= n
			s.ended = s.body == 0
			p = p[n:]
			continue
		}
		s.ended = false
		line, rest, whole := bytes.Cut(p, []byte{'\n'})
		s.keep(line)
		p = rest
		if !whole {
			continue
		}
		if v := s.endLine(); v != nil {
			return v
		}
	}
	return nil
}

// keep collects a line's bytes without its white space, if it may be one of the
// two headers that matter.
func (s *headScanner) keep(part []byte) {
	for _, b := range part {
		switch {
		case b == '\r':
			continue
		case s.size == 0 && s.lines > 0 && (b == ' ' || b == '\t'):
			s.odd = true // a folded line: RFC 9112, section 5.2, lets us refuse it
		}
		s.size++
		if b == ' ' || b == '\t' {
			continue
		}
		if s.kept < len(s.line) {
			s.line[s.kept] = b
		}
		s.kept++
		if s.kept == 1 && b|0x20 != 'c' && b|0x20 != 't' {
			s.size += len(part) // not empty, and of no interest
			return
		}
	}
}

func (s *headScanner) endLine() *verdict {
	empty := s.size == 0
	if !empty {
		s.header()
		s.lines++
	}
	s.size, s.kept = 0, 0
	if !empty || s.lines == 0 { // net/http skips empty lines before a request too
		return nil
	}
	return s.endHead()
}

func (s *headScanner) header() {
	if s.lines == 0 {
		return // the request line
	}
	name, value, _ := bytes.Cut(s.line[:min(s.kept, len(s.line))], []byte{':'})
	switch {
	case bytes.EqualFold(name, []byte("Transfer-Encoding")):
		s.hasTE = true
	case bytes.EqualFold(name, []byte("Content-Length")):
		n, err := strconv.ParseInt(string(value), 10, 64)
		s.hasLen, s.length = true, max(n, 0)
		s.odd = s.odd || err != nil || s.kept > len(s.line)
	}
}

func (s *headScanner) endHead() *verdict {
	s.requests++
	if s.hasTE || s.odd {
		s.done = true
		return &verdict{request: s.requests, odd: s.odd || s.hasLen}
	}
	s.body = s.length
	s.ended = s.body == 0
	s.lines, s.length, s.hasLen = 0, 0, false
	return nil
}
