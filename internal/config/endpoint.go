package config

import (
	"errors"
	"net"
	"strconv"
	"strings"
)

// normalizeEndpoints writes etcd addresses in a canonical form, so that they can be compared:
// with the scheme in lower case and no trailing slash.
func (c *Config) normalizeEndpoints() {
	lists := [][]string{c.EtcdEndpoints, c.EtcdNear}
	for _, s := range c.Shards {
		lists = append(lists, s.Endpoints)
	}
	for _, list := range lists {
		for i, e := range list {
			if scheme, rest, ok := strings.Cut(e, "://"); ok {
				list[i] = strings.ToLower(scheme) + "://" + strings.TrimSuffix(rest, "/")
			}
		}
	}
}

// checkAddresses validates etcd addresses. Its errors contain no password.
func (c *Config) checkAddresses(key string, addresses []string) error {
	for _, e := range addresses {
		if err := checkEndpoint(e); err != nil {
			return c.check(false, key, redactAddress(e), err.Error())
		}
	}
	return nil
}

// checkEndpoint validates the address of an etcd member.
func checkEndpoint(endpoint string) error {
	const want = "want addresses such as 10.0.0.1:2379 or https://etcd1:2379"
	scheme, address, found := strings.Cut(endpoint, "://")
	if !found {
		scheme, address = "", endpoint
	}
	host, port, err := net.SplitHostPort(address)
	n, portErr := strconv.ParseUint(port, 10, 16)
	switch {
	case strings.Contains(endpoint, "@"):
		return errors.New("want addresses without a user: use etcd-user and etcd-password-file")
	case strings.HasPrefix(scheme, "unix"):
		return errors.New("a Unix socket is not supported: " + want)
	case strings.HasPrefix(scheme, "srv") || strings.Contains(scheme, "+"):
		return errors.New("DNS SRV records are not supported: " + want)
	case scheme != "" && scheme != "http" && scheme != "https":
		return errors.New(want + ", with http or https")
	case strings.ContainsAny(address, "/?#"):
		return errors.New(want + ", without a path or query")
	case err != nil && strings.Count(address, ":") > 1 && !strings.Contains(address, "]:"):
		return errors.New(want + ", and an IPv6 address in brackets with a port, as in [fd00::1]:2379")
	case err != nil || port == "":
		return errors.New(want + ": the port is missing, usually 2379")
	case host == "" || portErr != nil || n == 0:
		return errors.New(want)
	}
	return nil
}
