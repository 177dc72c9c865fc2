package cluster

import (
	"context"
	"errors"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// handshakes are credentials that read the certificate files for every connection, so that
// files may be renewed in place, and track the connections so that they can be closed.
type handshakes struct {
	credentials.TransportCredentials // of one connection, for all methods except ClientHandshake
	cfg                              ClientConfig
	secure                           bool
}

func newHandshakes(cfg ClientConfig, secure bool) credentials.TransportCredentials {
	h := &handshakes{TransportCredentials: insecure.NewCredentials(), cfg: cfg, secure: secure}
	if secure {
		h.TransportCredentials = credentials.NewTLS(nil) // for its protocol info
	}
	return h
}

// ClientHandshake implements credentials.TransportCredentials.
func (h *handshakes) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (
	net.Conn, credentials.AuthInfo, error,
) {
	by := h.TransportCredentials
	if h.secure {
		tc, err := h.cfg.tlsConfig(true)
		if err != nil {
			return nil, nil, err
		}
		by = credentials.NewTLS(tc)
	}
	conn, info, err := by.ClientHandshake(ctx, authority, raw)
	if err != nil || h.cfg.conns == nil {
		return conn, info, err
	}
	return h.cfg.conns.track(conn), info, nil
}

// ServerHandshake implements credentials.TransportCredentials.
func (h *handshakes) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these credentials are for clients")
}

// Clone implements credentials.TransportCredentials.
func (h *handshakes) Clone() credentials.TransportCredentials { return newHandshakes(h.cfg, h.secure) }

// connections are the open connections of one client.
type connections struct {
	mu   sync.Mutex
	open map[*trackedConn]bool
}

// A trackedConn is removed from connections when it is closed.
type trackedConn struct {
	net.Conn
	of *connections
}

func (c *connections) track(conn net.Conn) net.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = make(map[*trackedConn]bool)
	}
	noted := &trackedConn{conn, c}
	c.open[noted] = true
	return noted
}

// Close implements net.Conn.
func (n *trackedConn) Close() error {
	n.of.mu.Lock()
	delete(n.of.open, n)
	n.of.mu.Unlock()
	return n.Conn.Close()
}

// closeAll closes all connections. The client then makes new ones.
func (c *connections) closeAll() {
	c.mu.Lock()
	open := make([]*trackedConn, 0, len(c.open))
	for n := range c.open {
		open = append(open, n)
	}
	c.mu.Unlock()
	for _, n := range open {
		_ = n.Close() // its reader gets the error
	}
}
