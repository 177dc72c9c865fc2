package api

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/testlog"
)

// A remoteListener gives a client at 127.0.0.N the address 192.0.2.N, which is not exempt
// from limits.
type remoteListener struct{ net.Listener }

type remoteConn struct{ net.Conn }

func (s remoteListener) Accept() (net.Conn, error) {
	c, err := s.Listener.Accept()
	return remoteConn{c}, err
}

func (s remoteConn) RemoteAddr() net.Addr {
	at := *s.Conn.RemoteAddr().(*net.TCPAddr)
	at.IP = net.IPv4(192, 0, 2, at.IP.To4()[3])
	return &at
}

func runRemote(t *testing.T, s *Server) (addr string, stop func() error) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return runOn(t, s, remoteListener{ln})
}

// dialFrom connects from 127.0.0.n.
func dialFrom(t *testing.T, addr string, n int) net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, byte(n))}, Timeout: patience}
	c, err := d.DialContext(t.Context(), "tcp", addr)
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	return c
}

// waitClosed waits until the peer closes c.
func waitClosed(t *testing.T, c net.Conn) {
	t.Helper()
	require.NoError(t, c.SetReadDeadline(time.Now().Add(patience)))
	_, err := io.Copy(io.Discard, c)
	var late net.Error
	if errors.As(err, &late) {
		require.False(t, late.Timeout(), "it is open")
	}
}

// checkServes checks that the server answers on c.
func checkServes(t *testing.T, c net.Conn) {
	t.Helper()
	_, err := io.WriteString(c, bare("GET", "/healthz"))
	require.NoError(t, err)
	res := answerOn(t, c)
	require.Equal(t, 200, res.StatusCode)
	_, err = io.Copy(io.Discard, res.Body)
	require.NoError(t, err)
}

// A client with too many connections, in any state, does not keep out other clients: its own
// oldest connections are closed for its new ones.
func TestConnections_PerAddress(t *testing.T) {
	for _, c := range []struct{ name, sends string }{
		{"new", ""}, {"idle", bare("GET", "/healthz")}, {"in a head", "GET /healthz HTTP/1.1\r\nHost: x\r\nX: "},
		{"in a body", startHead + "Content-Length: 50\r\n\r\n{"},
		{"in a body that is ignored", "DELETE " + userBase + "/streams/x HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newServer(t, Config{MaxConns: 100, MaxConnsPerAddress: 10}, &fake{count: 1})
			addr, _ := runRemote(t, s)
			other := dialFrom(t, addr, 3)
			checkServes(t, other)
			first := dialFrom(t, addr, 2)
			_, err := io.WriteString(first, c.sends)
			require.NoError(t, err)
			for range 30 {
				_, err := io.WriteString(dialFrom(t, addr, 2), c.sends)
				require.NoError(t, err)
			}
			waitClosed(t, first)
			checkServes(t, dialFrom(t, addr, 2))
			checkServes(t, other)
			assert.LessOrEqual(t, s.ingress.Connections(), 11)
			assert.GreaterOrEqual(t, s.ingress.ClosedConnections()["max-connections-per-address"], int64(20))
			assert.Zero(t, s.ingress.ClosedConnections()["all-busy"])
		})
	}
}

// At the limit of all connections the oldest are closed, first those of clients with a limit
// per address, so that connections of proxies stay open.
func TestConnections_EvictsOldest(t *testing.T) {
	s := newServer(t, Config{MaxConns: 20, MaxConnsPerAddress: 5, Ingress: IngressConfig{
		Proxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.100/32")},
	}}, &fake{})
	addr, _ := runRemote(t, s)
	proxy := dialFrom(t, addr, 100)
	checkServes(t, proxy)
	var all []net.Conn
	for i := range 40 {
		c := dialFrom(t, addr, 2+i)
		checkServes(t, c)
		all = append(all, c)
	}
	waitClosed(t, all[0])
	checkServes(t, all[39])
	checkServes(t, proxy)
	require.Eventually(t, func() bool { return s.ingress.Connections() == 20 }, patience, time.Millisecond)
	for range 30 { // the limit per address does not apply to a proxy
		checkServes(t, dialFrom(t, addr, 100))
	}
	waitClosed(t, proxy)
}

// A connection with a request in a handler is not closed for a new one.
func TestConnections_InUse(t *testing.T) {
	g := newBlockingFake()
	defer g.release()
	s := newServer(t, Config{MaxConns: 3, MaxConnsPerAddress: 3}, &g.fake)
	addr, _ := runRemote(t, s)
	var busy []net.Conn
	for i := range 3 {
		c := dialFrom(t, addr, 2+i)
		_, err := io.WriteString(c, bare("GET", userBase))
		require.NoError(t, err)
		busy = append(busy, c)
	}
	g.waitBlocked(t, 3)
	waitClosed(t, dialFrom(t, addr, 9))
	require.Eventually(t, func() bool { return s.ingress.ClosedConnections()["all-busy"] == 1 }, patience, time.Millisecond)
	g.release()
	for _, c := range busy {
		answer := make([]byte, len("HTTP/1.1 200"))
		_, err := io.ReadFull(c, answer)
		require.NoError(t, err)
		assert.Equal(t, "HTTP/1.1 200", string(answer))
	}
	checkServes(t, dialFrom(t, addr, 9))
}

// Closed connections are counted, and a sample is logged.
func TestConnections_LogAndMetrics(t *testing.T) {
	log := &testlog.Buffer{}
	s := newServer(t, Config{MaxConns: 50, MaxConnsPerAddress: 2, Log: slog.New(slog.NewJSONHandler(log, nil))}, &fake{})
	addr, _ := runRemote(t, s)
	for range 40 {
		dialFrom(t, addr, 2)
	}
	checkServes(t, dialFrom(t, addr, 3))
	text := scrape(t, s)
	assert.Contains(t, text, `streamcount_http_connections_closed_total{reason="max-connections-per-address"} 38`)
	assert.Contains(t, text, "\nstreamcount_http_connections 3\n")
	assert.Contains(t, log.Take(), `"msg":"connection closed","reason":"max-connections-per-address","client":"192.0.2.2"`)
}
