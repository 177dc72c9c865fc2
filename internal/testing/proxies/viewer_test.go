package proxies

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A response is what a viewer receives.
type response struct {
	status int
	header http.Header
	body   string
}

func (r response) String() string {
	text := fmt.Sprint(r.status)
	for _, name := range []string{"X-Streamcount-Reason", "Retry-After", "Www-Authenticate", "Set-Cookie", "Content-Range"} {
		if v := r.header.Values(name); v != nil {
			text += fmt.Sprintf(" %s=%s", name, strings.Join(v, ","))
		}
	}
	body := r.body
	if len(body) > 60 {
		body = body[:60] + "..."
	}
	return text + fmt.Sprintf(" %q", body)
}

// A viewer sends requests on one connection, whose targets it does not change.
type viewer struct {
	t    *testing.T
	host string
	conn net.Conn
	in   *bufio.Reader
}

func newViewer(t *testing.T, proxy string) *viewer {
	t.Helper()
	v := &viewer{t: t, host: strings.TrimPrefix(proxy, "http://")}
	v.dial()
	t.Cleanup(func() { _ = v.conn.Close() })
	return v
}

func (v *viewer) dial() {
	v.t.Helper()
	conn, err := net.Dial("tcp", v.host)
	require.NoError(v.t, err)
	v.conn, v.in = conn, bufio.NewReader(conn)
}

func (v *viewer) get(target string, headers ...string) response {
	v.t.Helper()
	return v.send(http.MethodGet, target, headers...)
}

// send sends a request. The headers are lines.
func (v *viewer) send(method, target string, headers ...string) response {
	v.t.Helper()
	require.NoError(v.t, v.conn.SetDeadline(time.Now().Add(time.Minute)))
	lines := append([]string{method + " " + target + " HTTP/1.1", "Host: " + v.host, "User-Agent: player"}, headers...)
	_, err := io.WriteString(v.conn, strings.Join(lines, "\r\n")+"\r\n\r\n")
	require.NoError(v.t, err)
	resp, err := http.ReadResponse(v.in, &http.Request{Method: method})
	require.NoError(v.t, err, "%s %s", method, target)
	body, err := io.ReadAll(resp.Body)
	require.NoError(v.t, err)
	require.NoError(v.t, resp.Body.Close())
	if resp.Close {
		require.NoError(v.t, v.conn.Close())
		v.dial()
	}
	return response{status: resp.StatusCode, header: resp.Header, body: string(body)}
}
