package api

import (
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// One address opens more connections than it may and says nothing on them. Others
// go on, and it may come back when it has closed some.
func TestConns_OneAddressCannotHaveThemAll(t *testing.T) {
	const most = 60
	addr, _ := run(t, newServer(t, Config{MaxConns: 2 * most}, &fake{}))
	dialFrom := func(ip string) net.Dialer {
		return net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}, Timeout: 5 * time.Second}
	}
	greedy := dialFrom("127.0.0.2")
	var held []net.Conn
	for range 3 * most {
		c, err := greedy.DialContext(t.Context(), "tcp", addr)
		require.NoError(t, err)
		defer c.Close()
		held = append(held, c)
	}
	get := func(ip string) error {
		d := dialFrom(ip)
		c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: d.DialContext, DisableKeepAlives: true}}
		resp, err := c.Get("http://" + addr + "/healthz")
		if err == nil {
			resp.Body.Close()
		}
		return err
	}
	require.NoError(t, get("127.0.0.3"))
	require.Error(t, get("127.0.0.2"))
	for _, c := range held {
		require.NoError(t, c.Close())
	}
	assert.Eventually(t, func() bool { return get("127.0.0.2") == nil }, time.Minute, 10*time.Millisecond)
}
