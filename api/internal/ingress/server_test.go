package ingress

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const wait = time.Minute

// A remoteListener gives a client at 127.0.0.N the address 192.0.2.N, which is not exempt.
type remoteListener struct{ net.Listener }

type remoteConn struct{ net.Conn }

func (l remoteListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return remoteConn{c}, err
}

func (c remoteConn) RemoteAddr() net.Addr {
	at := *c.Conn.RemoteAddr().(*net.TCPAddr)
	at.IP = net.IPv4(192, 0, 2, at.IP.To4()[3])
	return &at
}

// serve runs a server that receives the body of each request and answers 200, or the status
// of the error. The header Privileged makes a client privileged.
func serve(t *testing.T) (in *Ingress, addr string) {
	t.Helper()
	in, err := New(Config{MaxConnections: 1000, MaxConnectionsPerAddress: 1000, BodyTimeout: wait})
	require.NoError(t, err)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	srv := &http.Server{ConnContext: ConnContext, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn := ConnOf(r)
		if !conn.BeginRequest() {
			panic(http.ErrAbortHandler)
		}
		defer conn.EndRequest()
		body, _, err := in.Receive(w, r, 512<<10, PeerAddr(r.RemoteAddr), r.Header.Get("Privileged") != "")
		defer body.Release()
		body.Validate(func() {})
		if err == nil {
			return
		}
		w.Header().Set("Connection", "close")
		var rejected *BodyError
		var slow net.Error
		switch {
		case errors.As(err, &rejected):
			w.Header().Set("Bound", rejected.Bound.String())
			w.WriteHeader(http.StatusServiceUnavailable)
		case errors.As(err, &slow) && slow.Timeout():
			w.WriteHeader(http.StatusRequestTimeout)
		default:
			w.WriteHeader(http.StatusBadRequest)
		}
	})}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(in.Listen(remoteListener{ln})) }()
	t.Cleanup(func() {
		require.NoError(t, srv.Close())
		require.ErrorIs(t, <-served, http.ErrServerClosed)
	})
	return in, ln.Addr().String()
}

// dialFrom connects from 127.0.0.n.
func dialFrom(t *testing.T, addr string, n int) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(n))}, Timeout: wait}
	c, err := d.DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(wait)))
	return c
}

func write(t *testing.T, c net.Conn, raw string) {
	t.Helper()
	_, err := io.WriteString(c, raw)
	require.NoError(t, err)
}

func read(t *testing.T, c net.Conn) *http.Response {
	t.Helper()
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	return res
}

// post is a request whose body has length bytes, without the body.
func post(length int, headers string) string {
	return fmt.Sprintf("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n", length, headers)
}
