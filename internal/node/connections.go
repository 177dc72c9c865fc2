package node

import (
	"context"
	"log/slog"

	"streamcount/api"
	"streamcount/internal/config"
)

// reservedFiles is the number of files that the node may open in addition to client
// connections: connections to etcd, files of the embedded etcd, and files that are read briefly.
const reservedFiles = 512

// setLimits sets the limits of rates and connections in c. The number of connections is
// limited by the number of files that the process may open, because a listener that cannot
// open a file rejects all clients.
func (n *service) setLimits(c *api.Config) {
	c.RatePerUser, c.RatePerAddress, c.RatePerKey =
		float64(n.cfg.RatePerUser), float64(n.cfg.RatePerAddress), float64(n.cfg.RatePerKey)
	c.IdleTimeout, c.ProxyProtocol = n.cfg.IdleTimeout, n.cfg.ProxyProtocol
	c.MaxConns, c.MaxConnsPerAddress = n.cfg.MaxConnections, n.cfg.MaxConnectionsPerAddress
	files := openFileLimit()
	if limit := maxConnections(files); limit < c.MaxConns {
		level := slog.LevelWarn
		if n.cfg.Source("max-connections") == config.FromDefault && limit >= c.MaxConns/2 {
			level = slog.LevelDebug // the operator did not set the value
		}
		n.logs.slog.Log(context.Background(), level,
			"connections are limited to fewer than max-connections by the limit of open files: raise it (ulimit -n)",
			"max_connections", c.MaxConns, "open_files", files, "connections", limit)
		c.MaxConns = limit
	}
	c.MaxConnsPerAddress = min(c.MaxConnsPerAddress, c.MaxConns)
}

// maxConnections returns how many client connections may be open in a process that may open
// that many files.
func maxConnections(files int) int { return max(10, files-min(reservedFiles, files/2)) }
