package ingress

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	get       = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
	stop      = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"
	startHead = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
)

// The scanner finds the request in pieces of any size.
func TestFraming_InPieces(t *testing.T) {
	raw := []byte(stop + get + "\r\n" +
		startHead + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n")
	for size := 1; size < len(raw); size++ {
		var s headScanner
		var got *irregularHead
		for rest := raw; len(rest) > 0; rest = rest[min(size, len(rest)):] {
			if v := s.feed(rest[:min(size, len(rest))]); v != nil {
				require.Nil(t, got)
				got = v
			}
		}
		require.Equal(t, &irregularHead{request: 3, ambiguous: true}, got, "in pieces of %d", size)
	}
}

// An empty line between two requests belongs to the next.
func TestFraming_EmptyLine(t *testing.T) {
	var scan headScanner
	scan.feed([]byte(get))
	assert.True(t, scan.atMessageBoundary())
	scan.feed([]byte("\r\n"))
	assert.False(t, scan.atMessageBoundary())
}

// The scanner finds as many regular requests as net/http does, and the irregular one ends
// the connection.
func FuzzHeads(f *testing.F) {
	f.Add([]byte(stop + get))
	f.Add([]byte(startHead + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n"))
	f.Add([]byte("\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var whole, pieces headScanner
		irregular := whole.feed(raw)
		for i := range raw {
			if got := pieces.feed(raw[i : i+1]); got != nil {
				require.Equal(t, irregular, got, "a byte at a time")
			}
		}
		require.Equal(t, whole.requests, pieces.requests)
		in := bufio.NewReader(bytes.NewReader(raw))
		for n := int64(1); ; n++ {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if irregular != nil && irregular.request == n {
				return // it is the last of the connection
			}
			require.False(t, r.Header.Get("Transfer-Encoding") != "" || len(r.TransferEncoding) > 0, "request %d is not regular", n)
			require.GreaterOrEqual(t, whole.requests, n, "request %d was missed", n)
			if _, err := io.CopyN(io.Discard, r.Body, r.ContentLength); err != nil && r.ContentLength > 0 {
				return
			}
		}
	})
}
