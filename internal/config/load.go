package config

import (
	"cmp"
	"strconv"
	"time"

	"github.com/spf13/pflag"
)

// loadConfig limits connections. Each field is a flag.
type loadConfig struct {
	MaxConnections           int
	MaxConnectionsPerAddress int
	IdleTimeout              time.Duration
	ProxyProtocol            bool
}

func (c *loadConfig) register(fs *pflag.FlagSet) {
	fs.IntVar(&c.MaxConnections, "max-connections", 20_000,
		"maximum number of open connections, 10 to 1000000; at the limit the longest idle connection is closed")
	fs.IntVar(&c.MaxConnectionsPerAddress, "max-connections-per-address", 2_000,
		"maximum number of open connections from one client address or IPv6 /64, 1 to 1000000; trusted proxies and this machine are exempt")
	fs.DurationVar(&c.IdleTimeout, "idle-timeout", 620*time.Second,
		"how long a connection may be idle, 1s to 24h; must be longer than the idle timeout of a load balancer")
	fs.BoolVar(&c.ProxyProtocol, "proxy-protocol", false,
		"read the address of the client from the PROXY protocol header on connections from trusted-proxies")
}

func (c *Config) checkLoad() error {
	return cmp.Or(
		c.check(c.MaxConnections >= 10 && c.MaxConnections <= 1e6, "max-connections", strconv.Itoa(c.MaxConnections),
			"want 10 to 1000000"),
		c.check(c.MaxConnectionsPerAddress >= 1 && c.MaxConnectionsPerAddress <= 1e6, "max-connections-per-address",
			strconv.Itoa(c.MaxConnectionsPerAddress), "want 1 to 1000000"),
		c.check(c.IdleTimeout >= time.Second && c.IdleTimeout <= 24*time.Hour, "idle-timeout", c.IdleTimeout.String(),
			"want 1s to 24h"),
		c.check(!c.ProxyProtocol || len(c.TrustedProxies) > 0, "proxy-protocol", "true",
			"requires trusted-proxies"),
	)
}
