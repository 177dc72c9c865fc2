package api

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/longtest"
	"streamcount/internal/testing/testlog"
)

// proxyServer returns a server that trusts 192.0.2.100 and logs the clients of its requests.
func proxyServer(t *testing.T, cfg Config) (s *Server, addr string, log *testlog.Buffer) {
	t.Helper()
	log = &testlog.Buffer{}
	cfg.ProxyProtocol = true
	cfg.Ingress.Proxies = []netip.Prefix{netip.MustParsePrefix("192.0.2.100/32")}
	cfg.Log = slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	s = newServer(t, cfg, &fake{count: 1})
	addr, _ = runRemote(t, s)
	return s, addr, log
}

// version2 returns a header of version 2 with some bytes after the addresses.
func version2(t *testing.T, source, destination net.Addr, tlvs ...proxyproto.TLV) string {
	t.Helper()
	header := proxyproto.HeaderProxyFromAddrs(2, source, destination)
	require.NoError(t, header.SetTLVs(tlvs))
	b, err := header.Format()
	require.NoError(t, err)
	return string(b)
}

func tcpAt(ip string) *net.TCPAddr { return &net.TCPAddr{IP: net.ParseIP(ip), Port: 4000} }

const local2 = "\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00"

func TestProxyHeader(t *testing.T) {
	_, addr, log := proxyServer(t, Config{})
	large := proxyproto.TLV{Type: 0xe0, Value: bytes.Repeat([]byte{1}, 3000)}
	for name, c := range map[string]struct{ header, client string }{
		"version 1":          {"PROXY TCP4 203.0.113.9 10.0.0.1 51008 3000\r\n", "203.0.113.9"},
		"version 1, IPv6":    {"PROXY TCP6 2001:db8::9 2001:db8::1 51008 3000\r\n", "2001:db8::9"},
		"version 1, unknown": {"PROXY UNKNOWN ffff::1 ffff::2 65535 65535\r\n", "192.0.2.100"},
		"version 2":          {version2(t, tcpAt("203.0.113.8"), tcpAt("10.0.0.1")), "203.0.113.8"},
		"version 2, IPv6":    {version2(t, tcpAt("2001:db8::8"), tcpAt("2001:db8::1")), "2001:db8::8"},
		"version 2, more":    {version2(t, tcpAt("203.0.113.7"), tcpAt("10.0.0.1"), large), "203.0.113.7"},
		"version 2, a Unix socket": {version2(t, &net.UnixAddr{Net: "unix", Name: "/a"}, &net.UnixAddr{Net: "unix", Name: "/b"}),
			"192.0.2.100"},
		"version 2, local": {local2, "192.0.2.100"},
		"none":             {"", "192.0.2.100"},
	} {
		for _, size := range []int{1, 1 << 16} {
			t.Run(fmt.Sprint(name, " in pieces of ", size), func(t *testing.T) {
				c1 := dialFrom(t, addr, 100)
				for rest := c.header + bare("GET", userBase); rest != ""; rest = rest[min(size, len(rest)):] {
					_, err := io.WriteString(c1, rest[:min(size, len(rest))])
					require.NoError(t, err)
				}
				assert.Equal(t, 200, answerOn(t, c1).StatusCode)
				var seen string
				require.Eventually(t, func() bool {
					seen += log.Take()
					return strings.Contains(seen, fmt.Sprintf(`"client":%q`, c.client))
				}, patience, time.Millisecond, seen)
				checkServes(t, c1)
			})
		}
	}
}

// A malformed header closes the connection. Clients that are not trusted cannot send one.
func TestProxyHeader_Bad(t *testing.T) {
	s, addr, _ := proxyServer(t, Config{})
	for name, header := range map[string]string{
		"no addresses": "PROXY TCP4\r\n", "no address": "PROXY TCP4 a b 1 2\r\n", "a port": "PROXY TCP4 1.2.3.4 1.2.3.4 1 70000\r\n",
		"too long": "PROXY " + strings.Repeat("x", 200), "no line": "PROXYjunk\r\n",
		"version 2, too long": "\r\n\r\n\x00\r\nQUIT\n\x21\x11\xff\xff", "version 3": "\r\n\r\n\x00\r\nQUIT\n\x31\x11\x00\x0c" + strings.Repeat("\x00", 12),
		"version 2, too short": "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x02ab",
	} {
		t.Run(name, func(t *testing.T) {
			before := s.ingress.ClosedConnections()["proxy-header"]
			c := dialFrom(t, addr, 100)
			_, err := io.WriteString(c, header+bare("GET", "/healthz"))
			require.NoError(t, err)
			b, _ := io.ReadAll(c) // it may be reset
			assert.Empty(t, b)
			assert.Equal(t, before+1, s.ingress.ClosedConnections()["proxy-header"])
		})
	}
	c := dialFrom(t, addr, 7)
	_, err := io.WriteString(c, "PROXY TCP4 203.0.113.9 10.0.0.1 51008 3000\r\n"+bare("GET", "/healthz"))
	require.NoError(t, err)
	assert.Equal(t, 400, answerOn(t, c).StatusCode)
}

// A header that does not arrive delays no other client, and closes its connection.
func TestProxyHeader_Slow(t *testing.T) {
	longtest.Require(t)
	t.Parallel()
	_, addr, _ := proxyServer(t, Config{})
	var slow []net.Conn
	for _, begin := range []string{"", "P", "PROXY TCP4 203", local2[:14]} {
		c := dialFrom(t, addr, 100)
		_, err := io.WriteString(c, begin)
		require.NoError(t, err)
		slow = append(slow, c)
	}
	checkServes(t, dialFrom(t, addr, 100))
	for _, c := range slow {
		waitClosed(t, c)
	}
}

// Limits apply to the client in the header, also with TLS after it.
func TestProxyHeader_LimitsAndTLS(t *testing.T) {
	cert, pool := selfSigned(t)
	s, addr, _ := proxyServer(t, Config{MaxConns: 100, MaxConnsPerAddress: 3, Ingress: IngressConfig{TLS: tlsWith(cert)}})
	ask := func(client string) (*tls.Conn, error) {
		raw := dialFrom(t, addr, 100)
		if _, err := fmt.Fprintf(raw, "PROXY TCP4 %s 10.0.0.1 51008 3000\r\n", client); err != nil {
			return nil, err
		}
		c := tls.Client(raw, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"})
		if _, err := io.WriteString(c, bare("GET", "/healthz")); err != nil {
			return nil, err
		}
		_, err := http.ReadResponse(bufio.NewReader(c), nil)
		return c, err
	}
	other, err := ask("203.0.113.1")
	require.NoError(t, err)
	for range 10 {
		_, err := ask("203.0.113.2")
		require.NoError(t, err)
	}
	assert.Equal(t, int64(7), s.ingress.ClosedConnections()["max-connections-per-address"])
	_, err = io.WriteString(other, bare("GET", "/healthz"))
	require.NoError(t, err)
	_, err = http.ReadResponse(bufio.NewReader(other), nil)
	assert.NoError(t, err)
}
