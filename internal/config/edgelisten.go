package config

import (
	"cmp"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// edgeListenConfig configures the listener for proxies. Each field is a flag.
type edgeListenConfig struct {
	EdgeListen   string
	EdgeFile     string
	EdgeAllow    []string
	EdgeStale    time.Duration
	EdgeTLSCert  string
	EdgeTLSKey   string
	EdgeClientCA string
	// EdgeMaxConnections is the maximum number of open connections.
	EdgeMaxConnections int
}

func (c *edgeListenConfig) register(fs *pflag.FlagSet) {
	fs.StringVar(&c.EdgeListen, "edge-listen", "",
		"`address` (HOST:PORT) on which proxies in front of media check the requests of players; requires edge-file (default off)")
	fs.StringVar(&c.EdgeFile, "edge-file", "", "YAML `file` with the profiles of edge-listen, reloaded when it changes")
	listVar(fs, &c.EdgeAllow, "edge-allow",
		"`networks` of proxies that may use edge-listen without an API key of scope edge (default loopback addresses)")
	fs.DurationVar(&c.EdgeStale, "edge-stale", time.Minute,
		"how long etcd may be unavailable before edge-listen answers 503 if other nodes are registered, 5s to 24h")
	fs.StringVar(&c.EdgeTLSCert, "edge-tls-cert", "", "`file` with the certificate of edge-listen (PEM), reloaded when it changes")
	fs.StringVar(&c.EdgeTLSKey, "edge-tls-key", "", "`file` with the private key of edge-tls-cert (PEM)")
	fs.StringVar(&c.EdgeClientCA, "edge-client-ca", "",
		"`file` with authorities of client certificates (PEM); a proxy with a certificate that they have signed may use edge-listen")
	fs.IntVar(&c.EdgeMaxConnections, "edge-max-connections", 10_000,
		"maximum number of open connections of edge-listen, 10 to 1000000; an address outside of edge-allow may have half of them")
}

// EdgeNetworks returns the networks of edge-allow.
func (c *Config) EdgeNetworks() []netip.Prefix {
	if len(c.EdgeAllow) == 0 {
		return []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	}
	out := make([]netip.Prefix, len(c.EdgeAllow))
	for i, text := range c.EdgeAllow {
		out[i], _ = parseNetwork(text) // validated
	}
	return out
}

// logEdgeWarnings logs settings with which no proxy can use the edge.
func (c *Config) logEdgeWarnings(log *slog.Logger) {
	host, _, _ := net.SplitHostPort(c.EdgeListen) // checked before
	if c.EdgeListen != "" && !isLoopback(host) && len(c.EdgeAllow) == 0 && c.KeysFile == "" && c.EdgeClientCA == "" {
		log.Warn("only this machine may use edge-listen: set edge-allow, auth-keys-file with a key of scope edge, or edge-client-ca",
			"address", c.EdgeListen)
	}
}

func (c *Config) checkEdgeListen() error {
	for _, text := range c.EdgeAllow {
		p, err := parseNetwork(text)
		if err != nil && p.IsValid() {
			return c.check(false, "edge-allow", text, err.Error())
		}
		if err := c.check(err == nil, "edge-allow", text, "want networks such as 10.0.0.0/8"); err != nil {
			return err
		}
	}
	_, port, addressErr := net.SplitHostPort(c.EdgeListen)
	_, portErr := strconv.ParseUint(port, 10, 16)
	on := c.EdgeListen != ""
	return cmp.Or(
		c.check(!on || addressErr == nil && portErr == nil, "edge-listen", c.EdgeListen, "want HOST:PORT, such as 127.0.0.1:3001"),
		c.check(!on || c.EdgeFile != "", "edge-listen", c.EdgeListen, "requires edge-file"),
		c.check(on || c.EdgeFile == "", "edge-file", c.EdgeFile, "requires edge-listen"),
		c.check(on || len(c.EdgeAllow) == 0, "edge-allow", strings.Join(c.EdgeAllow, ","), "requires edge-listen"),
		c.check(c.EdgeStale >= 5*time.Second && c.EdgeStale <= 24*time.Hour, "edge-stale", c.EdgeStale.String(), "want 5s to 24h"),
		c.check(c.EdgeMaxConnections >= 10 && c.EdgeMaxConnections <= 1e6, "edge-max-connections", strconv.Itoa(c.EdgeMaxConnections),
			"want 10 to 1000000"),
		c.check(c.EdgeTLSCert == "" || on, "edge-tls-cert", c.EdgeTLSCert, "requires edge-listen"),
		c.check(c.EdgeTLSCert == "" || c.EdgeTLSKey != "", "edge-tls-cert", c.EdgeTLSCert, "requires edge-tls-key"),
		c.check(c.EdgeTLSKey == "" || c.EdgeTLSCert != "", "edge-tls-key", c.EdgeTLSKey, "requires edge-tls-cert"),
		c.check(c.EdgeClientCA == "" || c.EdgeTLSCert != "", "edge-client-ca", c.EdgeClientCA, "requires edge-tls-cert"),
	)
}
