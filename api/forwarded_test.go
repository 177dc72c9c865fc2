package api

import (
	"bytes"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// Each client behind a proxy has its own rate, in any form in which the proxy writes it.
func TestForwarded_RatePerAddress(t *testing.T) {
	var log bytes.Buffer
	s := newServer(t, Config{
		Ingress:        IngressConfig{Proxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}},
		RatePerAddress: 1,
		Log:            slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, &fake{})
	setLoad(s)
	start := func(forwarded string) int {
		return call(s, "POST", u+"/start", "", "X-Forwarded-For", forwarded).Code // from 192.0.2.1
	}
	for range 15 {
		start("203.0.113.9:51008")
	}
	assert.Equal(t, 429, start("203.0.113.9:51009"), "another port is the same client")
	assert.Equal(t, 200, start("198.51.100.7:40000"))
	assert.Contains(t, log.String(), "client=203.0.113.9\n")
	assert.NotContains(t, log.String(), "invalid client address")
	for range 15 {
		start("unknown")
	}
	assert.Equal(t, 429, start("unknown"))
	assert.Equal(t, 200, start("_token2"))
	assert.Equal(t, 200, start("192.0.2.1"), "the proxy itself")
	assert.Contains(t, log.String(), "client=192.0.2.1 hop=unknown")
	assert.Equal(t, 1, strings.Count(log.String(), "invalid client address"))
}
