package ingress

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestNetwork(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1/32", "::ffff:192.0.2.1": "192.0.2.1/32", "2001:db8:1:2:3::4": "2001:db8:1:2::/64",
		"fe80::1%eth0": "fe80::/64",
	} {
		assert.Equal(t, want, Network(netip.MustParseAddr(in)).String())
	}
	assert.False(t, Network(netip.Addr{}).IsValid())
}
