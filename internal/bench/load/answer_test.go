package load

import (
	"bufio"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func parse(text string) (Answer, bool, error) {
	return readAnswer(bufio.NewReaderSize(strings.NewReader(text), 8<<10), nil)
}

func TestReadAnswer(t *testing.T) {
	for name, tc := range map[string]struct {
		text, body string
		status     int
		last       bool
	}{
		"length":   {"HTTP/1.1 200 OK\r\nContent-Type: x\r\nContent-Length: 2\r\n\r\nhi", "hi", 200, false},
		"case":     {"HTTP/1.1 403 \r\ncontent-LENGTH:2\r\n\r\nno", "no", 403, false},
		"no_words": {"HTTP/1.1 503\r\nContent-Length: 0\r\n\r\n", "", 503, false},
		"close":    {"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 0\r\n\r\n", "", 200, true},
		"empty":    {"HTTP/1.1 204 No Content\r\n\r\n", "", 204, false},
		"chunked": {
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\nA\r\n0123456789\r\n0\r\n\r\n",
			"ab0123456789", 200, false,
		},
		"twice_the_same": {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx", "x", 200, false},
	} {
		t.Run(name, func(t *testing.T) {
			a, last, err := parse(tc.text)
			require.NoError(t, err)
			assert.Equal(t, tc.status, a.Status)
			assert.Equal(t, tc.body, string(a.Body))
			assert.Equal(t, tc.last, last)
		})
	}
}

func TestReadAnswer_Malformed(t *testing.T) {
	for name, text := range map[string]string{
		"http_1_0":       "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
		"no_status":      "HTTP/1.1 OK\r\nContent-Length: 0\r\n\r\n",
		"long_status":    "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
		"interim":        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"no_length":      "HTTP/1.1 200 OK\r\nContent-Type: x\r\n\r\nhi",
		"two_lengths":    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nhi",
		"both":           "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"signed":         "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nhi",
		"huge":           "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nhi",
		"gzip":           "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\nhi",
		"gzip_transfer":  "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"folded":         "HTTP/1.1 200 OK\r\nA: b\r\n c: d\r\nContent-Length: 0\r\n\r\n",
		"no_colon":       "HTTP/1.1 200 OK\r\nContent-Length 2\r\n\r\nhi",
		"bare_lf":        "HTTP/1.1 200 OK\nContent-Length: 2\n\nhi",
		"long_line":      "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", 9<<10) + "\r\n\r\n",
		"many_headers":   "HTTP/1.1 200 OK\r\n" + strings.Repeat("A: b\r\n", 100) + "\r\n",
		"chunk_size":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n",
		"chunk_huge":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n7fffffff\r\n",
		"chunk_overlong": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
		"trailer":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nA: b\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := parse(text)
			assert.ErrorIs(t, err, ErrMalformed)
		})
	}
	whole := "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
	for n := range len(whole) {
		_, _, err := parse(whole[:n])
		require.Error(t, err, "cut off after %d bytes", n)
		assert.NotErrorIs(t, err, ErrMalformed, "cut off after %d bytes: the connection's fault", n)
	}
}

// Of any input, only the bytes of the answer are read, and nothing panics.
func TestReadAnswer_AnyInput(t *testing.T) {
	piece := rapid.SampledFrom([]string{
		"HTTP/1.1 ", "200", " OK", "\r\n", "\n", "Content-Length: ", "3", "abc", "Transfer-Encoding: chunked", "0",
		"\r\n\r\n", ":", " ", "-", "Connection: close", "\x00", "ffffffff",
	})
	rapid.Check(t, func(t *rapid.T) {
		text := strings.Join(rapid.SliceOfN(piece, 0, 20).Draw(t, "pieces"), "")
		r := bufio.NewReader(strings.NewReader(text))
		a, _, err := readAnswer(r, nil)
		if err != nil {
			return
		}
		rest, _ := io.ReadAll(r)
		assert.True(t, strings.HasPrefix(text, "HTTP/1.1 "))
		assert.GreaterOrEqual(t, len(text), len(a.Body)+len(rest))
		assert.True(t, strings.HasSuffix(text, string(rest)))
	})
}

func FuzzReadAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		a, _, err := parse(string(text))
		if err == nil && (a.Status < 200 || a.Status > 599 || len(a.Body) > len(text)) {
			t.Errorf("%q became %d with %d bytes", text, a.Status, len(a.Body))
		}
		Text(text, `"id":`)
		Number(text, `"streams":`)
	})
}

func TestFields(t *testing.T) {
	doc := []byte(`{"userId":"maya","streams":2,"limit":3,"stream":{"id":"AbC-_1","ttlSeconds":90,"x":"a\"b"},"neg":-1}`)
	id, ok := Text(doc, `"id":`)
	require.True(t, ok)
	assert.Equal(t, "AbC-_1", string(id))
	n, ok := Number(doc, `"streams":`)
	require.True(t, ok)
	assert.Equal(t, 2, n)
	for _, key := range []string{`"none":`, `"limit":`, `"x":`} {
		_, ok = Text(doc, key)
		assert.False(t, ok, key)
	}
	for _, key := range []string{`"none":`, `"id":`, `"neg":`} {
		_, ok = Number(doc, key)
		assert.False(t, ok, key)
	}
	_, ok = Text([]byte(`{"id":"abc`), `"id":`)
	assert.False(t, ok, "cut off")
}
