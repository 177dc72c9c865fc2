package api

import (
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/internal/ingress"
	"streamcount/internal/testing/longtest"
)

const startHead = "POST " + userBase + "/start HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"

// badFraming returns requests with an ambiguous or wrong length.
func badFraming() []invalidRequest {
	chunkedHead := startHead + "Transfer-Encoding: chunked\r\n\r\n"
	var out []invalidRequest
	for name, header := range map[string]string{
		"length_and_chunked":      "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n",
		"chunked_and_length":      "Transfer-Encoding: chunked\r\nContent-Length: 2\r\n",
		"chunked_and_long":        "Transfer-Encoding: chunked\r\ncontent-length: 5000\r\n",
		"chunked_and_zero":        "transfer-encoding: Chunked\r\nCONTENT-LENGTH:0\r\n",
		"chunked_and_zeros":       "Transfer-Encoding: chunked\r\nContent-Length: " + strings.Repeat("0", 100) + "2\r\n",
		"folded":                  "X: a\r\n b\r\n",
		"folded_with_tab":         "X: a\r\n\tb\r\n",
		"folded_length":           "Transfer-Encoding: chunked\r\nContent-Length:\r\n 2\r\n",
		"chunked_and_two_lengths": "Transfer-Encoding: chunked\r\nContent-Length: 2\r\nContent-Length: 2\r\n",
	} {
		out = append(out, invalidRequest{"framing_" + name, startHead + header + "\r\n2\r\n{}\r\n0\r\n\r\n", is(400), false})
	}
	for name, header := range map[string]string{
		"two_lengths": "Content-Length: 2\r\nContent-Length: 3\r\n", "plus": "Content-Length: +2\r\n",
		"minus": "Content-Length: -1\r\n", "hex": "Content-Length: 0x2\r\n", "list": "Content-Length: 2, 2\r\n",
		"digits": "Content-Length: 99999999999999999999\r\n", "empty": "Content-Length:\r\n",
		"space_before_colon":        "Transfer-Encoding : chunked\r\n",
		"length_space_before_colon": "Content-Length : 2\r\n",
	} {
		out = append(out, invalidRequest{"framing_" + name, startHead + header + "\r\n{}", is(400), true})
	}
	for name, coding := range map[string]string{
		"identity": "identity", "gzip_chunked": "gzip, chunked", "xchunked": "xchunked",
		"chunked_identity": "chunked, identity",
		"twice":            "chunked\r\nTransfer-Encoding: chunked", "empty_coding": "", "vertical_tab": "\x0bchunked",
	} {
		want := is(501)
		if name == "vertical_tab" {
			want = is(400, 501)
		}
		out = append(out, invalidRequest{"framing_te_" + name, startHead + "Transfer-Encoding: " + coding + "\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
			want, true})
	}
	for name, chunks := range map[string]string{
		"hex": "0x2\r\n{}\r\n0\r\n\r\n", "17_digits": "00000000000000002\r\n{}\r\n0\r\n\r\n",
		"word":  "two\r\n{}\r\n0\r\n\r\n",
		"minus": "-2\r\n{}\r\n0\r\n\r\n", "too_short": "3\r\n{}\r\n0\r\n\r\n", "no_end": "2\r\n{}X\r\n0\r\n\r\n",
		"bare_lf": "2\n{}\n0\n\n", "extension_lf": "2;\nx\r\n{}\r\n0\r\n\r\n",
	} {
		out = append(out, invalidRequest{"framing_chunk_" + name, chunkedHead + chunks, is(400), false})
	}
	return append(out,
		invalidRequest{"framing_chunked_too_large", chunkedHead + "5000\r\n" + strings.Repeat("x", 0x5000) + "\r\n0\r\n\r\n", is(413), false},
		invalidRequest{"framing_old_http", "POST " + userBase + "/start HTTP/1.0\r\nContent-Type: application/json\r\n" +
			"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n{}", is(400), false},
		invalidRequest{"framing_old_http_no_length",
			"POST " + userBase + "/stop HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n" +
				"2\r\n{}\r\n0\r\n\r\n", is(400), false},
		invalidRequest{"framing_length_short", startHead + "Content-Length: 5\r\n\r\n" +
			`{"session":"a"}`, is(400), false})
}

// The smuggled request of golang/go#80942 is not executed, at any position of the ambiguous
// request on its connection.
func TestFraming_Smuggling(t *testing.T) {
	f := &fake{count: 1}
	addr, _ := run(t, newServer(t, Config{}, f))
	smuggled := bare("DELETE", "/api/v1/streams/users/victim")
	ambiguous := startHead + fmt.Sprintf("Content-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
		12+len(smuggled)) + smuggled
	innocent := map[string]string{
		"first": "", "after_get": bare("GET", userBase), "after_post": post(userBase+"/start", `{"session":"a"}`),
		"after_three":       strings.Repeat(post(userBase+"/stop", `{}`), 3),
		"after_empty_lines": post(userBase+"/stop", `{}`) + "\r\n",
	}
	for name, before := range innocent {
		t.Run(name, func(t *testing.T) {
			out := everything(t, addr, before+ambiguous)
			assert.Equal(t, strings.Count(before, "HTTP/1.1"), strings.Count(out, "HTTP/1.1 200"), out)
			assert.Equal(t, 1, strings.Count(out, "HTTP/1.1 400"), out)
			assert.NotContains(t, strings.Join(f.taken(), "\n"), "victim")
		})
	}
}

// A chunked request is served, and is the last of its connection.
func TestFraming_ChunkedCloses(t *testing.T) {
	f := &fake{count: 1}
	addr, _ := run(t, newServer(t, Config{}, f))
	raw := startHead + "Transfer-Encoding: chunked\r\n\r\n3\r\n{\"s\r\nc\r\nession\":\"a\"}\r\n0\r\n\r\n"
	out := everything(t, addr, raw+bare("DELETE", "/api/v1/streams/users/victim"))
	assert.Contains(t, out, "HTTP/1.1 200")
	assert.Contains(t, out, "Connection: close")
	assert.Equal(t, 1, strings.Count(out, "HTTP/1.1"), out)
	calls := f.taken()
	require.Len(t, calls, 1)
	assert.Contains(t, calls[0], "start maya {Session:a")
}

// A body that does not arrive completely is answered 408.
func TestFraming_SlowBody(t *testing.T) {
	longtest.Require(t)
	addr, _ := run(t, newServer(t, Config{}, &fake{}))
	started := time.Now()
	a := send(t, addr, startHead+"Content-Length: 50\r\n\r\n{}", readTimeout+patience)
	assert.Equal(t, 408, a.status)
	assert.Greater(t, time.Since(started), ingress.DefaultBodyTimeout-time.Second)
	checkProblem(t, a)
}

// A request whose body ends early is rejected and not executed.
func TestFraming_IncompleteBody(t *testing.T) {
	f := &fake{}
	addr, _ := run(t, newServer(t, Config{}, f))
	out := everything(t, addr, startHead+"Content-Length: 50\r\n\r\n{}")
	assert.Contains(t, out, "HTTP/1.1 400")
	assert.Empty(t, f.taken())
}

// everything writes raw, closes its side of the connection, and returns all responses.
func everything(t *testing.T, addr, raw string) string {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.SetDeadline(time.Now().Add(10*time.Second)))
	_, err = io.WriteString(c, raw)
	require.NoError(t, err)
	require.NoError(t, c.(*net.TCPConn).CloseWrite())
	out, err := io.ReadAll(c)
	require.NoError(t, err)
	return string(out)
}
