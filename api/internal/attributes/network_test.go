package attributes

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"streamcount/lease/policy"
)

func TestNetworkKey(t *testing.T) {
	key := NetworkKey("0123456789abcdef0123456789abcdef")
	of := func(text string) string { return key.Of("maya", netip.MustParseAddr(text)) }
	home := of("203.0.113.7")
	assert.Equal(t, "S8AdJnDSHi12jqJn", home, "a change of the computation changes the networks of running streams")
	assert.Equal(t, home, of("::ffff:203.0.113.7"))
	assert.NotEqual(t, home, of("203.0.113.8"))
	assert.NotEqual(t, home, key.Of("ben", netip.MustParseAddr("203.0.113.7")))
	assert.NotEqual(t, home, NetworkKey("another").Of("maya", netip.MustParseAddr("203.0.113.7")))

	six := of("2001:db8:1:2200::1")
	assert.Equal(t, six, of("2001:db8:1:22ff:ffff:ffff:ffff:ffff"))
	assert.Equal(t, six, of("2001:db8:1:2201::1%eth0"))
	assert.NotEqual(t, six, of("2001:db8:1:2300::1"))

	assert.Empty(t, key.Of("maya", netip.Addr{}))
	assert.Empty(t, NetworkKey(nil).Of("maya", netip.MustParseAddr("203.0.113.7")))
	require.NoError(t, (&policy.StartAttributes{Network: home}).Validate())
}

func TestNetworkKey_Different(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := NetworkKey(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "key"))
		draw := func(label string) netip.Addr {
			var b [16]byte
			binary.BigEndian.PutUint64(b[:], rapid.Uint64().Draw(t, label))
			if rapid.Bool().Draw(t, label+" is IPv4") {
				return netip.AddrFrom4([4]byte(b[:4]))
			}
			return netip.AddrFrom16(b)
		}
		one, other := draw("one"), draw("other")
		bits := map[bool]int{true: 32, false: 56}[one.Is4()]
		p, err := one.Prefix(bits)
		require.NoError(t, err)
		require.Equal(t, p.Contains(other), key.Of("maya", one) == key.Of("maya", other))
		require.Len(t, key.Of("maya", one), 16)
	})
}
