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
	limit := maxConnections(openFileLimit())
	if n.cfg.EdgeListen != "" {
		limit -= min(edgeShare(limit), n.cfg.EdgeMaxConnections)
	}
	c.MaxConns = n.capConnections("max-connections", n.cfg.MaxConnections, limit)
	c.MaxConnsPerAddress = min(n.cfg.MaxConnectionsPerAddress, c.MaxConns)
}

// edgeShare returns how many of the connections that a process may have are for proxies.
func edgeShare(connections int) int { return connections / 3 }

// edgeConnections returns the maximum number of connections of the listener for proxies.
func (n *service) edgeConnections() int {
	return n.capConnections("edge-max-connections", n.cfg.EdgeMaxConnections, edgeShare(maxConnections(openFileLimit())))
}

// capConnections returns the value of a setting, or limit if the process may not open as many
// files.
func (n *service) capConnections(setting string, value, limit int) int {
	if value <= limit {
		return value
	}
	level := slog.LevelWarn
	if n.cfg.Source(setting) == config.FromDefault && limit >= value/2 {
		level = slog.LevelDebug // the operator did not set the value
	}
	n.logs.slog.Log(context.Background(), level,
		"connections are limited to fewer than "+setting+" by the limit of open files: raise it (ulimit -n)",
		"setting", value, "open_files", openFileLimit(), "connections", limit)
	return limit
}

// maxConnections returns how many client connections may be open in a process that may open
// that many files.
func maxConnections(files int) int { return max(10, files-min(reservedFiles, files/2)) }
