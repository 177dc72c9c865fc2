package api

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// No request that net/http lets through makes a handler fail, and every refusal
// under /api is a problem.
func FuzzRequest(f *testing.F) {
	for _, seed := range []string{
		post(userBase+"/start", `{"session":"a"}`), post(userBase+"/stop",
			`{"streamId":"a"}`), bare("GET", userBase),
		post("/api/v1/streams/heartbeats", `{"heartbeats":[{"userId":"a","streamId":"b"}]}`), bare("GET", "/docs"),
		bare("DELETE", userBase+"/streams/a"), bare("GET", "/api/v1/stats"), bare("OPTIONS", "*"), bare("GET",
			"/problems/x"),
		bare("CONNECT", "a:1"), "PRI * HTTP/2.0\r\n\r\n", bare("GET", "/docs/swagger-ui.css",
			"Accept-Encoding: gzip"),
		startHead + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", bare("HEAD", "/"), bare("POST",
			"/%2e%2e//a"),
	} {
		f.Add([]byte(seed))
	}
	s := newServer(f, Config{}, &fake{count: 1})
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
		if err != nil {
			return // net/http answers this by itself
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		require.Less(t, w.Code, 500, "%s", w.Body)
		require.Equal(t, "nosniff", w.Header().Get("X-Content-Type-Options"))
		if w.Code >= 400 && strings.HasPrefix(r.URL.Path, "/api/") {
			require.Equal(t, problemType, w.Header().Get("Content-Type"))
		}
	})
}

// What counts as a plain start is one to net/http, which finds its end where it ends.
func FuzzPlainStart(f *testing.F) {
	f.Add([]byte(post(userBase+"/start", `{"session":"a"}`)))
	f.Add([]byte(bare("POST", userBase+"/start", "Connection: Keep-Alive")))
	f.Add([]byte(startHead + "Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"))
	f.Add([]byte(startHead + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !plainStart(raw) {
			return
		}
		in := bufio.NewReader(bytes.NewReader(raw))
		r, err := http.ReadRequest(in)
		require.NoError(t, err)
		require.Equal(t, http.MethodPost, r.Method)
		require.Regexp(t, `^/api/v1/streams/users/[A-Za-z0-9._~-]+/start$`, r.URL.Path)
		require.Empty(t, r.URL.RawQuery)
		require.Empty(t, r.TransferEncoding)
		require.False(t, r.Close)
		require.GreaterOrEqual(t, r.ContentLength, int64(0))
		n, err := io.Copy(io.Discard, r.Body)
		require.NoError(t, err)
		require.Equal(t, r.ContentLength, n)
		_, err = in.ReadByte()
		require.ErrorIs(t, err, io.EOF, "that is all")
		var heads headScanner
		require.Nil(t, heads.feed(raw))
		require.EqualValues(t, 1, heads.requests)
		require.True(t, heads.between())
	})
}

// The scanner of heads finds as many plain requests as net/http does, and no more is
// read from a connection after one that says its length in two ways.
func FuzzHeads(f *testing.F) {
	f.Add([]byte(post(userBase+"/stop", `{}`) + bare("GET", userBase)))
	f.Add([]byte(startHead + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n"))
	f.Add([]byte("\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\n\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var whole, pieces headScanner
		verdict := whole.feed(raw)
		for i := range raw {
			if got := pieces.feed(raw[i : i+1]); got != nil {
				require.Equal(t, verdict, got, "a byte at a time")
			}
		}
		require.Equal(t, whole.requests, pieces.requests)
		in := bufio.NewReader(bytes.NewReader(raw))
		for n := int64(1); ; n++ {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			if verdict != nil && verdict.request == n {
				return // it is the connection's last
			}
			require.False(t, r.Header.Get("Transfer-Encoding") != "" || len(r.TransferEncoding) > 0, "request %d is not plain", n)
			require.GreaterOrEqual(t, whole.requests, n, "request %d was missed", n)
			if _, err := io.CopyN(io.Discard, r.Body, r.ContentLength); err != nil && r.ContentLength > 0 {
				return
			}
		}
	})
}
