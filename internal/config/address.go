package config

import (
	"net"
	"slices"
	"strings"
)

// LocalAddress returns the URL at which this machine reaches a node that is configured by
// environ alone, and a host name that the node accepts; "" for the host of the URL.
func LocalAddress(environ []string) (server, host string, err error) {
	var c Config
	from, err := Resolve(c.Flags(), environ)
	if err != nil {
		return "", "", err
	}
	c.from = from
	if err := c.checkListen(); err != nil {
		return "", "", err
	}
	// A node accepts every host name for health checks, but a proxy may not.
	if i := slices.IndexFunc(c.Hosts, func(h string) bool { return !strings.ContainsAny(h, "*/:") }); i >= 0 {
		host = c.Hosts[i]
	}
	scheme := "http"
	if c.TLSCert != "" {
		scheme = "https"
	}
	listenHost, port, _ := net.SplitHostPort(c.Listen) // validated above
	if listenHost == "" {
		return scheme + "://" + net.JoinHostPort("localhost", port), host, nil
	}
	return scheme + "://" + DialAddress(c.Listen), host, nil
}

// DialAddress returns an address at which this machine reaches a listener on addr.
func DialAddress(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("localhost", port)
	}
	return addr
}
