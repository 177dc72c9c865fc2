package main

import (
	"cmp"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"streamcount/api"
)

// edgeConfig is how the service meets the world. Each field is a flag.
type edgeConfig struct {
	TLSCert        string
	TLSKey         string
	TLSClientCA    string
	CORSOrigins    []string
	Hosts          []string
	TrustedProxies []string
	RatePerUser    int
	RatePerAddress int
	RatePerKey     int
}

func (c *edgeConfig) register(fs *pflag.FlagSet) {
	fs.StringVar(&c.TLSCert, "tls-cert", "", "`file` with the certificate to serve HTTPS with")
	fs.StringVar(&c.TLSKey, "tls-key", "", "`file` with the key of that certificate")
	fs.StringVar(&c.TLSClientCA, "tls-client-ca", "",
		"`file` with the certificates by which those of clients must be signed; without it clients need none")
	fs.StringSliceVar(&c.CORSOrigins, "cors-origins", nil,
		"`origins` whose pages may call, such as https://app.example")
	fs.StringSliceVar(&c.Hosts, "hosts", nil,
		"`names` that requests may be for; on a loopback address also localhost, elsewhere any if there are none")
	fs.StringSliceVar(&c.TrustedProxies, "trusted-proxies", nil,
		"`networks` such as 10.0.0.0/8 whose X-Forwarded-For is believed")
	fs.IntVar(&c.RatePerUser, "rate-per-user", 50,
		"starts and stops of one user a second, ten times as many at once; 0 for no bound")
	fs.IntVar(&c.RatePerAddress, "rate-per-address", 0,
		"requests of one client address a second, ten times as many at once; 0 for no bound")
	fs.IntVar(&c.RatePerKey, "rate-per-key", 0,
		"requests with one API key a second, ten times as many at once; 0 for no bound")
}

// edge is what the flags say, as package api takes it.
func (c *Config) edge() api.Edge {
	host, _, _ := net.SplitHostPort(c.Listen) // checked before
	e := api.Edge{
		Origins: c.CORSOrigins, LocalHosts: isLoopback(host),
		PerUser: float64(c.RatePerUser), PerAddress: float64(c.RatePerAddress), PerKey: float64(c.RatePerKey),
	}
	for _, name := range c.Hosts {
		e.Hosts = append(e.Hosts, strings.ToLower(name))
	}
	for _, text := range c.TrustedProxies {
		network, _ := proxies(text) // likewise
		e.Proxies = append(e.Proxies, network)
	}
	return e
}

// proxies reads a network, or one address.
func proxies(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.ParsePrefix(text)
}

func (c *Config) checkEdge() error {
	for _, origin := range c.CORSOrigins {
		if err := api.CheckOrigin(origin); err != nil {
			return c.check(false, "cors-origins", origin, err.Error())
		}
	}
	for _, name := range c.Hosts {
		if err := c.check(name != "" && !strings.ContainsAny(name, ":/ *"), "hosts", name,
			"want names without a port, such as streams.example"); err != nil {
			return err
		}
	}
	for _, text := range c.TrustedProxies {
		_, err := proxies(text)
		if err := c.check(err == nil, "trusted-proxies", text, "want networks such as 10.0.0.0/8"); err != nil {
			return err
		}
	}
	for key, rate := range map[string]int{
		"rate-per-user": c.RatePerUser, "rate-per-address": c.RatePerAddress, "rate-per-key": c.RatePerKey,
	} {
		if err := c.check(rate >= 0 && rate <= 1e6, key, strconv.Itoa(rate), "want 0 to 1000000"); err != nil {
			return err
		}
	}
	return cmp.Or(
		c.check(c.TLSCert == "" || c.TLSKey != "", "tls-cert", c.TLSCert, "needs its key: set tls-key too"),
		c.check(c.TLSKey == "" || c.TLSCert != "", "tls-key", c.TLSKey, "needs its certificate: set tls-cert too"),
		c.check(c.TLSClientCA == "" || c.TLSCert != "", "tls-client-ca", c.TLSClientCA,
			"needs a certificate of the service itself: set tls-cert too"),
		c.check(!c.Demo || c.TLSCert == "", "demo", "true", "its viewers speak plain HTTP: remove tls-cert"),
	)
}
