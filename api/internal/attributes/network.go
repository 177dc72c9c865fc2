package attributes

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
)

// A NetworkKey is the secret with which the nodes of a service compute the network of
// viewers. Without one there are no networks.
type NetworkKey []byte

// The parts of an address that are one network: an IPv4 address, and what providers assign to
// a household with IPv6.
const (
	networkBitsIPv4 = 32
	networkBitsIPv6 = 56
)

// networkSize is the size of a network in bytes, before its encoding as text.
const networkSize = 12

// Of returns a short text for the network of a user's client at an address. It is the same
// for all addresses of the network, and different for other users, so that it does not show
// who shares a network. It is "" without a key or an address. An IPv4 address that is mapped to IPv6
// counts as IPv4.
func (k NetworkKey) Of(user string, a netip.Addr) string {
	a = a.Unmap().WithZone("")
	if len(k) == 0 || !a.IsValid() {
		return ""
	}
	bits := networkBitsIPv4
	if a.Is6() {
		bits = networkBitsIPv6
	}
	network, err := a.Prefix(bits)
	if err != nil {
		return ""
	}
	mac := hmac.New(sha256.New, k)
	mac.Write(network.Addr().AsSlice()) // of fixed length for each version of IP
	mac.Write([]byte{byte(bits)})
	mac.Write([]byte(user))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil)[:networkSize])
}
