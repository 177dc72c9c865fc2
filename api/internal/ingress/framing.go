package ingress

import (
	"bytes"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync/atomic"
)

// This file guards against request smuggling (golang/go#80942). net/http removes the
// Content-Length of a request that also has a Transfer-Encoding before a handler sees it,
// and keeps the connection open. A proxy in front of the node that uses the Content-Length
// would take a part of the body for the next request of the connection, or the reverse. So
// the data of each HTTP/1.1 connection is scanned to find requests with both headers. Such a
// request is answered 400, and its connection is closed. HTTP/2 has unambiguous lengths.

// A framingListener accepts connections that scan their requests.
type framingListener struct{ net.Listener }

func (l framingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &framingConn{Conn: c}, nil
}

// A framingConn scans the heads of the requests that arrive on it.
type framingConn struct {
	net.Conn
	scan    headScanner                   // used by Read, which net/http does not call concurrently
	last    atomic.Pointer[irregularHead] // set at most once
	handled int64                         // requests passed to handlers; used by the serving goroutine
}

func (c *framingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if head := c.scan.feed(p[:n]); head != nil {
		c.last.Store(head)
	}
	return n, err
}

// An irregularHead is the first head of a connection whose length is not given by at most
// a Content-Length. Later data is not scanned, because that request is the last of its
// connection.
type irregularHead struct {
	request   int64 // its number, from 1
	ambiguous bool  // folded header lines, or both lengths
}

// ambiguousLength reports whether r, which is about to be handled, gives the length of its
// body in two ways. It must be called exactly once for each request.
func ambiguousLength(r *http.Request) bool {
	c := ConnOf(r).framing
	if c == nil {
		return false
	}
	c.handled++
	head := c.last.Load()
	if head == nil || head.request != c.handled {
		return false
	}
	// net/http ignores the Transfer-Encoding of an HTTP/1.0 request; a proxy may not.
	return head.ambiguous || !IsChunked(r)
}

// IsChunked reports whether the body of r is chunked. Such a request must be the last of its
// connection, because data after it is not scanned.
func IsChunked(r *http.Request) bool { return slices.Contains(r.TransferEncoding, "chunked") }

// A headScanner follows the requests of a connection by their lengths, in constant memory.
// It is at most as strict as net/http: when net/http rejects a head it closes the
// connection, and the result of the scan does not matter.
type headScanner struct {
	requests int64 // with a complete head
	body     int64 // missing bytes of the current body
	done     bool  // after an irregular head
	ended    bool  // the last byte was the last of a request

	// The current head:
	lines                                 int
	hasContentLength, hasTransferEncoding bool
	contentLength                         int64
	ambiguous                             bool
	// Its current line:
	size   int      // without its end
	line   [64]byte // its first bytes, without white space
	length int      // its length without white space, which may exceed len(line)
}

// atMessageBoundary reports whether the last byte ended a request. An empty line after it
// belongs to the next request, as in net/http.
func (s *headScanner) atMessageBoundary() bool { return s.ended && !s.done }

// feed scans data, and returns the first irregular head when it is complete.
func (s *headScanner) feed(p []byte) *irregularHead {
	for len(p) > 0 && !s.done {
		if s.body > 0 {
			n := min(int64(len(p)), s.body)
			s.body -= n
			s.ended = s.body == 0
			p = p[n:]
			continue
		}
		s.ended = false
		line, rest, complete := bytes.Cut(p, []byte{'\n'})
		s.addToLine(line)
		p = rest
		if !complete {
			continue
		}
		if head := s.endLine(); head != nil {
			return head
		}
	}
	return nil
}

// addToLine adds a part of a line without its white space, if the line may be one of the
// two headers.
func (s *headScanner) addToLine(part []byte) {
	for _, b := range part {
		switch {
		case b == '\r':
			continue
		case s.size == 0 && s.lines > 0 && (b == ' ' || b == '\t'):
			s.ambiguous = true // a folded line, which RFC 9112, section 5.2, allows to reject
		}
		s.size++
		if b == ' ' || b == '\t' {
			continue
		}
		if s.length < len(s.line) {
			s.line[s.length] = b
		}
		s.length++
		if s.length == 1 && b|0x20 != 'c' && b|0x20 != 't' {
			s.size += len(part) // another header: only its size matters, which is not 0
			return
		}
	}
}

func (s *headScanner) endLine() *irregularHead {
	empty := s.size == 0
	if !empty {
		s.parseHeader()
		s.lines++
	}
	s.size, s.length = 0, 0
	if !empty || s.lines == 0 { // net/http also skips empty lines before a request
		return nil
	}
	return s.endHead()
}

func (s *headScanner) parseHeader() {
	if s.lines == 0 {
		return // the request line
	}
	name, value, _ := bytes.Cut(s.line[:min(s.length, len(s.line))], []byte{':'})
	switch {
	case bytes.EqualFold(name, []byte("Transfer-Encoding")):
		s.hasTransferEncoding = true
	case bytes.EqualFold(name, []byte("Content-Length")):
		n, err := strconv.ParseInt(string(value), 10, 64)
		s.hasContentLength, s.contentLength = true, max(n, 0)
		s.ambiguous = s.ambiguous || err != nil || s.length > len(s.line)
	}
}

func (s *headScanner) endHead() *irregularHead {
	s.requests++
	if s.hasTransferEncoding || s.ambiguous {
		s.done = true
		return &irregularHead{request: s.requests, ambiguous: s.ambiguous || s.hasContentLength}
	}
	s.body = s.contentLength
	s.ended = s.body == 0
	s.lines, s.contentLength, s.hasContentLength = 0, 0, false
	return nil
}
