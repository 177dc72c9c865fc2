package ingress

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// hosts are the names and addresses that requests may be for.
type hosts struct {
	all      bool
	local    bool // localhost, names below it, and loopback addresses
	ip       bool // localhost, and all IP addresses
	names    []string
	suffixes []string // ".example.com" for *.example.com
	networks []netip.Prefix
}

func newHosts(c Config) (hosts, error) {
	h := hosts{local: c.LocalHosts, ip: c.IPHosts, all: !c.LocalHosts && !c.IPHosts && len(c.Hosts) == 0}
	for _, text := range c.Hosts {
		if err := CheckHost(text); err != nil {
			return h, err
		}
		text = normalizeHost(text)
		suffix, wildcard := strings.CutPrefix(text, "*")
		network, isNetwork := parseNetwork(text)
		switch {
		case isNetwork:
			h.networks = append(h.networks, network)
		case wildcard:
			h.suffixes = append(h.suffixes, suffix)
		default:
			h.names = append(h.names, text)
		}
	}
	return h, nil
}

var hostPattern = regexp.MustCompile(`^(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?$`)

// CheckHost returns an error unless text is a host name, a name with a wildcard for its
// first labels, an IP address, or a network of IP addresses.
func CheckHost(text string) error {
	if _, ok := parseNetwork(normalizeHost(text)); ok || hostPattern.MatchString(normalizeHost(text)) && !strings.Contains(text, "..") {
		return nil
	}
	return errors.New("want names without a port, such as streams.example or *.streams.example, or addresses such as " +
		"10.0.0.7, fd00::7 or 10.0.0.0/8; a name with other letters as browsers send it, as in xn--bcher-kva.example")
}

// normalizeHost returns a host in lower case, without the brackets of an IPv6 address and
// without a final dot.
func normalizeHost(host string) string {
	if inner, ok := strings.CutPrefix(host, "["); ok && strings.HasSuffix(inner, "]") {
		host = strings.TrimSuffix(inner, "]")
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

// parseNetwork parses a network of IP addresses, or one address.
func parseNetwork(text string) (netip.Prefix, bool) {
	if a, err := netip.ParseAddr(text); err == nil {
		a = a.Unmap().WithZone("")
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	p, err := netip.ParsePrefix(text)
	if err == nil && p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p, err == nil
}

// StripPort returns the host of a Host header, normalized.
func StripPort(header string) string {
	if name, _, err := net.SplitHostPort(header); err == nil {
		header = name
	}
	return normalizeHost(header)
}

// allows reports whether a request may be for the host of a header. Without this check, the
// DNS name of an attacker's page could resolve to this node, so that the page has the same
// origin as the service. An IP address cannot be redirected in this way.
func (h *hosts) allows(header string) bool {
	if h.all || header == "" { // browsers always send a Host
		return true
	}
	host := StripPort(header)
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.Unmap().WithZone("")
		return h.ip || h.local && ip.IsLoopback() ||
			slices.ContainsFunc(h.networks, func(p netip.Prefix) bool { return p.Contains(ip) })
	}
	return slices.Contains(h.names, host) ||
		slices.ContainsFunc(h.suffixes, func(s string) bool { return strings.HasSuffix(host, s) && host != s }) ||
		(h.local || h.ip) && (host == "localhost" || strings.HasSuffix(host, ".localhost"))
}

// IsIPHost reports whether a Host header is an IP address.
func IsIPHost(header string) bool {
	_, err := netip.ParseAddr(StripPort(header))
	return err == nil
}

// CheckHost checks whether r is for this service.
func (i *Ingress) CheckHost(r *http.Request) Refusal {
	switch {
	case !i.hosts.allows(r.Host):
		return WrongHost
	case i.config.NoProxies && cameThroughProxy(r):
		return ThroughProxy
	}
	return Accepted
}

// Headers that proxies set have one of the names in proxyHeaders, or begin with one of
// proxyHeaderPrefixes.
var (
	proxyHeaders = []string{"Forwarded", "Via", "Client-Ip", "X-Real-Ip", "X-Real-Port", "X-Client-Ip", "X-Cluster-Client-Ip",
		"X-Proxyuser-Ip", "X-Remote-Ip", "X-Remote-Addr", "X-Scheme", "X-Nginx-Proxy", "X-Varnish", "X-Amz-Cf-Id", "X-Azure-Clientip",
		"X-Azure-Socketip", "X-Azure-Fdid", "X-Appengine-User-Ip", "True-Client-Ip", "Cdn-Loop", "Fastly-Client-Ip", "Fly-Client-Ip",
		"Ali-Cdn-Real-Ip", "Akamai-Origin-Hop", "Surrogate-Capability", "Wl-Proxy-Client-Ip", "Proxy-Client-Ip"}
	proxyHeaderPrefixes = []string{"X-Forwarded", "X-Original-", "X-Envoy-", "X-Arr-", "Cf-", "Tailscale-"}
)

// cameThroughProxy reports whether the headers of r show that it came through a proxy.
func cameThroughProxy(r *http.Request) bool {
	for name := range r.Header {
		prefix := slices.ContainsFunc(proxyHeaderPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
		if prefix || slices.Contains(proxyHeaders, name) {
			return true
		}
	}
	return false
}
