package api

import (
	"bytes"
	"crypto/tls"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"streamcount/api/internal/overload"
)

// Clients that do not read their responses hold a limited number of them, and the calls of
// other clients are served.
func TestPendingResponses(t *testing.T) {
	cert, pool := selfSigned(t)
	s := newServer(t, Config{Ingress: IngressConfig{TLS: tlsWith(cert)}}, &fake{count: 1})
	addr, _ := run(t, s)
	const streams = 100
	maxPending := overload.PendingResponses.Max()
	conns := maxPending/streams + 5
	for range conns {
		c, err := tls.Dial("tcp", addr, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", NextProtos: []string{"h2"}})
		require.NoError(t, err)
		t.Cleanup(func() { c.Close() })
		_, err = io.WriteString(c, http2.ClientPreface)
		require.NoError(t, err)
		f := http2.NewFramer(c, c)
		require.NoError(t, f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}))
		go func() { _, _ = io.Copy(io.Discard, c) }() // until the test closes c
		var block bytes.Buffer
		fields := hpack.NewEncoder(&block)
		for i := range uint32(streams) {
			block.Reset()
			for name, value := range map[string]string{
				":method": "GET", ":path": userBase, ":scheme": "https", ":authority": addr,
			} {
				require.NoError(t, fields.WriteField(hpack.HeaderField{Name: name, Value: value}))
			}
			require.NoError(t, f.WriteHeaders(http2.HeadersFrameParam{
				StreamID: 2*i + 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true,
			}))
		}
	}
	require.Eventually(t, func() bool { return s.ingress.PendingResponses() >= maxPending }, time.Minute, time.Millisecond)
	require.Eventually(t, func() bool { return s.ingress.PendingResponses() == maxPending }, time.Minute, time.Millisecond,
		"the answers beyond the maximum are given up")
	require.Eventually(t, func() bool { return s.load.InFlight() == 0 }, time.Minute, time.Millisecond, "they hold no slots")
	res, err := tlsClient(t, pool, true).Post("https://"+addr+userBase+"/start", "application/json", nil)
	require.NoError(t, err)
	defer res.Body.Close()
	assert.Equal(t, 200, res.StatusCode)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	assert.Contains(t, string(body), `"streams"`)
}
