package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// ErrMalformed means that an answer is not in the part of HTTP/1.1 that this package
// supports. The connection cannot be used again.
var ErrMalformed = errors.New("malformed answer")

const (
	maxHeaders = 64
	maxBody    = 4 << 20
)

// An Answer is the answer to a request.
type Answer struct {
	Status int
	Body   []byte
}

// framing describes the end of a body.
type framing struct {
	length  int64 // -1 without a Content-Length
	chunked bool
	closes  bool // the server closes the connection afterwards
}

// readAnswer reads one answer. It reads the body into buf, and reports whether the
// server closes the connection. The returned body shares buf's memory even on error.
func readAnswer(r *bufio.Reader, buf []byte) (a Answer, last bool, err error) {
	a.Body = buf[:0]
	if a.Status, err = readStatus(r); err != nil {
		return a, false, err
	}
	h, err := readHeaders(r)
	if err != nil {
		return a, false, err
	}
	switch {
	case h.chunked:
		a.Body, err = readChunks(r, a.Body)
	case h.length >= 0:
		a.Body, err = readExactly(r, a.Body, h.length)
	case a.Status != 204 && a.Status != 304:
		err = fmt.Errorf("%w: no length of the body", ErrMalformed)
	}
	return a, h.closes, err
}

func readStatus(r *bufio.Reader) (int, error) {
	line, err := readLine(r)
	if err != nil {
		return 0, err
	}
	rest, ok := bytes.CutPrefix(line, []byte("HTTP/1.1 "))
	if !ok || len(rest) < 3 || len(rest) > 3 && rest[3] != ' ' {
		return 0, fmt.Errorf("%w: status line %.60q", ErrMalformed, line)
	}
	status, ok := digits(rest[:3])
	if !ok || status < 200 || status > 599 {
		return 0, fmt.Errorf("%w: status line %.60q", ErrMalformed, line)
	}
	return int(status), nil
}

func readHeaders(r *bufio.Reader) (framing, error) {
	h := framing{length: -1}
	for range maxHeaders {
		line, err := readLine(r)
		if err != nil {
			return h, err
		}
		if len(line) == 0 {
			if h.chunked && h.length >= 0 {
				return h, fmt.Errorf("%w: both Content-Length and Transfer-Encoding", ErrMalformed)
			}
			return h, nil
		}
		name, value, ok := bytes.Cut(line, []byte(":"))
		if !ok || len(name) == 0 || bytes.ContainsAny(name, " \t") {
			return h, fmt.Errorf("%w: header line %.60q", ErrMalformed, line)
		}
		if err := h.readHeader(name, bytes.TrimSpace(value)); err != nil {
			return h, err
		}
	}
	return h, fmt.Errorf("%w: more than %d headers", ErrMalformed, maxHeaders)
}

// readHeader reads a header if it describes the end of the body.
func (h *framing) readHeader(name, value []byte) error {
	switch {
	case equalFold(name, "content-length"):
		n, ok := digits(value)
		if !ok || n > maxBody || h.length >= 0 && h.length != n {
			return fmt.Errorf("%w: Content-Length %.60q", ErrMalformed, value)
		}
		h.length = n
	case equalFold(name, "transfer-encoding"):
		if !equalFold(value, "chunked") || h.chunked {
			return fmt.Errorf("%w: Transfer-Encoding %.60q", ErrMalformed, value)
		}
		h.chunked = true
	case equalFold(name, "content-encoding"):
		return fmt.Errorf("%w: Content-Encoding %.60q, which was not requested", ErrMalformed, value)
	case equalFold(name, "connection"):
		h.closes = h.closes || equalFold(value, "close")
	}
	return nil
}

func equalFold(text []byte, lower string) bool {
	return len(text) == len(lower) && bytes.EqualFold(text, []byte(lower))
}

func readChunks(r *bufio.Reader, body []byte) ([]byte, error) {
	for {
		line, err := readLine(r)
		if err != nil {
			return body, err
		}
		n, err := strconv.ParseUint(string(line), 16, 31)
		if err != nil || len(body)+int(n) > maxBody {
			return body, fmt.Errorf("%w: chunk of size %.60q", ErrMalformed, line)
		}
		if n > 0 {
			if body, err = readExactly(r, body, int64(n)); err != nil {
				return body, err
			}
		}
		end, err := readLine(r) // after the last chunk, the end of the empty trailer section
		if err != nil {
			return body, err
		}
		if len(end) > 0 {
			return body, fmt.Errorf("%w: %.60q after a chunk", ErrMalformed, end)
		}
		if n == 0 {
			return body, nil
		}
	}
}

// readExactly appends n bytes to body.
func readExactly(r *bufio.Reader, body []byte, n int64) ([]byte, error) {
	at := len(body)
	if need := at + int(n); need > cap(body) {
		grown := make([]byte, at, max(need, 2*cap(body), 1024))
		copy(grown, body)
		body = grown
	}
	body = body[:at+int(n)]
	if _, err := io.ReadFull(r, body[at:]); err != nil {
		return body, fmt.Errorf("read a body of %d bytes: %w", n, err)
	}
	return body, nil
}

// readLine returns a line without its CRLF, valid until the next read.
func readLine(r *bufio.Reader) ([]byte, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, fmt.Errorf("%w: a line of more than %d bytes", ErrMalformed, r.Size())
	}
	if err != nil {
		return nil, fmt.Errorf("read an answer: %w", err)
	}
	line, ok := bytes.CutSuffix(line, []byte("\r\n"))
	if !ok {
		return nil, fmt.Errorf("%w: a line that does not end in CRLF", ErrMalformed)
	}
	return line, nil
}

// digits parses a number that consists of digits only.
func digits(text []byte) (int64, bool) {
	if len(text) == 0 || len(text) > 15 {
		return 0, false
	}
	var n int64
	for _, d := range text {
		if d < '0' || d > '9' {
			return 0, false
		}
		n = n*10 + int64(d-'0')
	}
	return n, true
}

// Text returns the string after the first occurrence of key in a JSON document. key
// includes the quotes and the colon, as in `"id":`. Text does not parse the rest of the
// document, and does not accept a string with an escape.
func Text(doc []byte, key string) ([]byte, bool) {
	rest, ok := after(doc, key)
	if !ok || len(rest) == 0 || rest[0] != '"' {
		return nil, false
	}
	rest = rest[1:]
	end := bytes.IndexByte(rest, '"')
	if end < 0 || bytes.IndexByte(rest[:end], '\\') >= 0 {
		return nil, false
	}
	return rest[:end], true
}

// Number is like Text for a non-negative integer.
func Number(doc []byte, key string) (int, bool) {
	rest, ok := after(doc, key)
	if !ok {
		return 0, false
	}
	end := 0
	for end < len(rest) && rest[end] >= '0' && rest[end] <= '9' {
		end++
	}
	n, ok := digits(rest[:end])
	return int(n), ok
}

func after(doc []byte, key string) ([]byte, bool) {
	i := bytes.Index(doc, []byte(key))
	if i < 0 {
		return nil, false
	}
	return doc[i+len(key):], true
}
