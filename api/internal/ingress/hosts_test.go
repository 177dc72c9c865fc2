package ingress

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestHosts_Allows(t *testing.T) {
	h, err := newHosts(Config{Hosts: []string{"streams.example", "*.Preview.example", "10.1.0.0/16", "fd00::/8", "[2001:db8::7]", "192.0.2.1",
		"my_service", "xn--bcher-kva.example.", "::ffff:172.16.0.0/108"}})
	require.NoError(t, err)
	for host, want := range map[string]bool{
		"streams.example": true, "streams.example.": true, "STREAMS.EXAMPLE.:443": true, "streams.example:": true, "my_service": true,
		"a.preview.example": true, "a.b.preview.example:80": true, "preview.example": false, ".preview.example": false,
		"evilpreview.example": false, "10.1.2.3": true, "10.1.2.3:3000": true, "10.2.2.3": false, "[fd00::5]:3000": true,
		"[fd00::5]": true, "fd00::5": true, "[::ffff:10.1.2.3]:3000": true, "[2001:db8::7]": true, "[2001:db8::8]": false,
		"172.16.9.9": true, "172.32.0.1": false, "192.0.2.1.": true, "192.0.2.2": false, "[fd00::5%25eth0]:1": true, "localhost": false, "127.0.0.1": false,
		"xn--bcher-kva.example": true, "streams.example.evil.example": false, "": true,
	} {
		assert.Equal(t, want, h.allows(host), host)
	}
	for _, bad := range []string{"*", "*.", "a:80", "a/b", "https://a", "a..b", "-", "a b", "bücher.example", "a.*.example", "*a.example",
		"10.0.0.0/40", "[::1", "[a", "a@b", ""} {
		assert.Error(t, CheckHost(bad), bad)
	}
}
