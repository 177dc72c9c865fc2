package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func dial(t *testing.T, base string) *Conn {
	t.Helper()
	client, err := NewClient(base, 5*time.Second)
	require.NoError(t, err)
	c := client.Conn(t.Context())
	t.Cleanup(c.Close)
	return c
}

func TestConn_KeepsTheConnection(t *testing.T) {
	peers := map[string]bool{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		peers[r.RemoteAddr] = true
		body, _ := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %s %s %s %d", r.Method, r.URL.Path, body, r.Header.Get("Content-Type"), r.ContentLength)
	}))
	defer srv.Close()
	c := dial(t, srv.URL)
	for range 3 {
		a, err := c.Do("POST", []byte("/a"), nil)
		require.NoError(t, err)
		assert.Equal(t, 200, a.Status)
		assert.Equal(t, "POST /a   0", string(a.Body))
		a, err = c.Do("POST", []byte("/a"), []byte(`{"x":1}`))
		require.NoError(t, err)
		assert.Equal(t, `POST /a {"x":1} application/json 7`, string(a.Body))
		a, err = c.Do("GET", []byte("/b"), nil)
		require.NoError(t, err)
		assert.Equal(t, "GET /b   0", string(a.Body))
	}
	assert.Len(t, peers, 1)
}

func TestConn_DialsAgain(t *testing.T) {
	var calls atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		call := calls.Add(1)
		if call == 1 {
			w.Header().Set("Connection", "close")
		}
		if call == 2 {
			panic(http.ErrAbortHandler)
		}
		_, _ = io.WriteString(w, strings.Repeat("x", 5000)) // chunked
	}))
	defer srv.Close()
	c := dial(t, srv.URL)
	_, err := c.Do("GET", []byte("/"), nil)
	require.NoError(t, err)
	_, err = c.Do("GET", []byte("/"), nil)
	require.Error(t, err)
	a, err := c.Do("GET", []byte("/"), nil)
	require.NoError(t, err)
	assert.Len(t, a.Body, 5000)
}

// serveRaw answers each connection's requests with text.
func serveRaw(t *testing.T, text string) string {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			_, _ = http.ReadRequest(bufio.NewReader(c))
			_, _ = io.WriteString(c, text)
			if text == "" {
				_, _ = io.Copy(io.Discard, c) // sends nothing until the client closes the connection
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { ln.Close(); <-done })
	return "http://" + ln.Addr().String()
}

func TestConn_DataAfterTheAnswer(t *testing.T) {
	c := dial(t, serveRaw(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi there"))
	_, err := c.Do("GET", []byte("/"), nil)
	assert.ErrorIs(t, err, ErrMalformed)
}

func TestConn_TimesOut(t *testing.T) {
	client, err := NewClient(serveRaw(t, ""), 50*time.Millisecond)
	require.NoError(t, err)
	c := client.Conn(t.Context())
	defer c.Close()
	_, err = c.Do("GET", []byte("/"), nil)
	var timeout net.Error
	require.ErrorAs(t, err, &timeout)
	assert.True(t, timeout.Timeout())
}

func TestConn_EndsWithItsContext(t *testing.T) {
	client, err := NewClient(serveRaw(t, ""), time.Hour)
	require.NoError(t, err)
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	c := client.Conn(ctx)
	defer c.Close()
	time.AfterFunc(20*time.Millisecond, func() { cancel(why) })
	_, err = c.Do("GET", []byte("/"), nil)
	require.Error(t, err)
	_, err = c.Do("GET", []byte("/"), nil)
	assert.ErrorIs(t, err, why)
}

func TestNewClient_BadAddress(t *testing.T) {
	for _, base := range []string{
		"127.0.0.1:3000", "https://h:1", "http://", "http://u:secret@h:1", "http://h/x", "http://h?x", "::",
	} {
		_, err := NewClient(base, time.Second)
		require.Error(t, err, base)
		assert.Contains(t, err.Error(), "want http://HOST:PORT")
		assert.NotContains(t, err.Error(), "secret")
	}
}
