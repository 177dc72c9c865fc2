package config

import (
	"cmp"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"streamcount/api"
)

// edgeConfig configures how the service accepts requests. Each field is a flag.
type edgeConfig struct {
	TLSCert        string
	TLSKey         string
	TLSClientCA    string
	CORSOrigins    []string
	CORSHeaders    []string
	CORSAllowNull  bool
	HSTS           bool
	Docs           bool
	Hosts          []string
	TrustedProxies []string
	// NetworkAttribute lets nodes compute the network of viewers.
	NetworkAttribute bool
	RatePerUser      int
	RatePerAddress   int
	RatePerKey       int
}

func (c *edgeConfig) register(fs *pflag.FlagSet) {
	fs.StringVar(&c.TLSCert, "tls-cert", "", "`file` with the certificate for HTTPS (PEM), reloaded when it changes")
	fs.StringVar(&c.TLSKey, "tls-key", "", "`file` with the private key of tls-cert (PEM)")
	fs.StringVar(&c.TLSClientCA, "tls-client-ca", "",
		"`file` with the authorities that must have signed client certificates (PEM) (default no client certificates)")
	listVar(fs, &c.CORSOrigins, "cors-origins",
		"`origins` of web pages that may call the API, such as https://app.example, https://*.app.example or capacitor://localhost")
	listVar(fs, &c.CORSHeaders, "cors-headers",
		"`names` of additional headers that pages of cors-origins may send; * allows all")
	fs.BoolVar(&c.CORSAllowNull, "cors-allow-null", false,
		"allow pages with the origin null, which some packaged apps have; any web page can set this origin for itself")
	listVar(fs, &c.Hosts, "hosts",
		"`names`, addresses and networks that the Host header may contain; *.NAME includes subdomains; on a loopback "+
			"address localhost is included (default any if credentials are required, else IP addresses and the names of this machine)")
	listVar(fs, &c.TrustedProxies, "trusted-proxies",
		"`networks` of proxies, such as 10.0.0.0/8, whose X-Forwarded-For is used")
	fs.BoolVar(&c.NetworkAttribute, "network-attribute", false,
		"compute the attribute network of viewers' streams from the client's address, with a secret key; requires viewers' tokens")
	fs.BoolVar(&c.HSTS, "hsts", false, "send Strict-Transport-Security: browsers use only HTTPS for this host for one year; requires tls-cert")
	fs.BoolVar(&c.Docs, "docs", true, "serve the API's documentation at /docs and /openapi.json")
	fs.IntVar(&c.RatePerUser, "rate-per-user", 50,
		"maximum starts and stops per second of one user, with bursts of ten times as many, 0 to 1000000; 0 disables")
	fs.IntVar(&c.RatePerAddress, "rate-per-address", 0,
		"maximum requests per second from one client address, with bursts of ten times as many, 0 to 1000000; 0 disables")
	fs.IntVar(&c.RatePerKey, "rate-per-key", 0,
		"maximum requests per second with one API key, with bursts of ten times as many, 0 to 1000000; 0 disables")
}

// Ingress returns the configuration of package api for accepting requests.
func (c *Config) Ingress() api.IngressConfig {
	host, _, _ := net.SplitHostPort(c.Listen) // checked before
	e := api.IngressConfig{
		Origins: c.CORSOrigins, NullOrigin: c.CORSAllowNull, CORSHeaders: c.CORSHeaders, HSTS: c.HSTS,
		Hosts: c.Hosts, LocalHosts: isLoopback(host), IPHosts: c.onlyMachineNames(),
		NoProxies: isLoopback(host) && !c.AuthNone && !c.Access(nil).Configured(),
	}
	if e.IPHosts {
		e.Hosts = c.machineNames()
	}
	for _, text := range c.TrustedProxies {
		network, _ := parseNetwork(text) // validated
		e.Proxies = append(e.Proxies, network)
	}
	return e
}

// onlyMachineNames reports whether requests must be for an IP address or a name of this
// machine. This is so if other machines can connect, no credential is required, and no
// hosts are configured: a web page whose own name resolves to the node could otherwise call it.
func (c *Config) onlyMachineNames() bool {
	host, _, _ := net.SplitHostPort(c.Listen) // checked before
	return !isLoopback(host) && !c.Access(nil).Configured() && len(c.Hosts) == 0
}

// machineNames returns the names of this machine: the host name, its first label, its mDNS
// name, and the host to listen on.
func (c *Config) machineNames() []string {
	name, _ := os.Hostname() // "" if there is none
	short, _, _ := strings.Cut(name, ".")
	listen, _, _ := net.SplitHostPort(c.Listen) // checked before
	var names []string
	for _, name := range []string{name, short, short + ".local", listen} {
		name = strings.ToLower(name)
		if !strings.Contains(name, "*") && api.CheckHost(name) == nil && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// LogWarnings logs settings that allow more, or less, than an operator may expect.
func (c *Config) LogWarnings(log *slog.Logger) {
	c.logTokenWarnings(log)
	if c.onlyMachineNames() {
		log.Warn("no credential is required, so the Host header must contain an IP address, localhost or a name of this machine: "+
			"set hosts to allow others, such as the name of a Kubernetes Service", "names", c.machineNames())
	}
	c.logEdgeWarnings(log)
	if c.CORSAllowNull {
		log.Warn("cors-allow-null is set: any web page can set the origin null for itself and call the API", "credentials",
			c.Access(nil).Configured())
	}
}

// parseNetwork parses a network or a single address.
func parseNetwork(text string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(text)
	if a, addrErr := netip.ParseAddr(text); addrErr == nil {
		a = a.WithZone("")
		p, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err == nil && p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	if shortest := map[bool]int{true: 8, false: 7}[p.Addr().Is4()]; err == nil && p.Bits() < shortest {
		return p, errors.New("is too large, so that clients could forge their address: want the networks of your proxies")
	}
	return p, err
}

func (c *Config) checkEdge() error {
	for _, origin := range c.CORSOrigins {
		if err := api.CheckOrigin(origin); err != nil {
			return c.check(false, "cors-origins", origin, err.Error())
		}
	}
	for _, name := range c.Hosts {
		if err := api.CheckHost(name); err != nil {
			return c.check(false, "hosts", name, err.Error())
		}
	}
	for _, name := range c.CORSHeaders {
		if err := api.CheckCORSHeader(name); err != nil {
			return c.check(false, "cors-headers", name, err.Error())
		}
	}
	for _, text := range c.TrustedProxies {
		p, err := parseNetwork(text)
		if err != nil && p.IsValid() {
			return c.check(false, "trusted-proxies", text, err.Error())
		}
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
		c.check(!c.NetworkAttribute || cmp.Or(c.AuthFile, c.JWKSURL, c.JWKSFile, c.SecretFile) != "", "network-attribute", "true",
			"requires auth-file or a source of viewers' tokens: a service states the network in the body"),
		c.check(c.TLSCert == "" || c.TLSKey != "", "tls-cert", c.TLSCert, "requires tls-key"),
		c.check(c.TLSKey == "" || c.TLSCert != "", "tls-key", c.TLSKey, "requires tls-cert"),
		c.check(c.TLSClientCA == "" || c.TLSCert != "", "tls-client-ca", c.TLSClientCA,
			"requires tls-cert"),
		c.check(!c.HSTS || c.TLSCert != "", "hsts", "true",
			"requires tls-cert; if a proxy terminates TLS, let it send the header"),
		c.check(!c.Demo || c.TLSCert == "", "demo", "true", "cannot be combined with tls-cert: the simulated viewers use plain HTTP"),
	)
}
