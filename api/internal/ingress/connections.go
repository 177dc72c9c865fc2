package ingress

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"streamcount/api/internal/overload"
)

// connections are the open connections. A new connection beyond the maximum replaces the
// oldest connection that is idle or has not sent a complete request. It is rejected only if
// all connections have requests in handlers.
type connections struct {
	registry
	log     *slog.Logger
	sampler overload.LogSampler
	closed  [numCloseReasons]atomic.Int64
}

// A closeReason is why the node closed a connection that its client would have kept.
type closeReason int

const (
	closedForTotal    closeReason = iota // replaced by a new connection, at the maximum
	closedForAddress                     // replaced by a new connection of the same address, at its maximum
	closedAllBusy                        // a new connection: all others were in use
	closedProxyHeader                    // its PROXY header was malformed or late
	numCloseReasons
)

func (r closeReason) String() string {
	return [...]string{
		overload.Connections.String(), overload.ConnectionsPerAddress.String(), "all-busy", "proxy-header",
	}[r]
}

func newConnections(log *slog.Logger, limit, limitPerAddress int, exempt func(netip.Addr) bool) *connections {
	return &connections{log: log, registry: registry{maxTotal: limit, maxPerClient: limitPerAddress, exempt: exempt}}
}

// record counts and logs a closed connection.
func (c *connections) record(why closeReason, client netip.Addr) {
	c.closed[why].Add(1)
	if suppressed, ok := c.sampler.Allow(time.Now()); ok {
		c.log.Warn("connection closed", "reason", why.String(), "client", client, "open", c.len(), "unlogged", suppressed)
	}
}

// A connListener accepts connections within the limits of connections. Its Accept only
// waits for the next connection.
type connListener struct {
	net.Listener
	conns *connections
}

func (l connListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		t := &trackedConn{Conn: c, conns: l.conns}
		if t.register(PeerAddr(c.RemoteAddr().String())) {
			return t, nil
		}
		_ = c.Close() // the error does not matter: the connection was not used
	}
}

// A trackedConn is one of the connections.
type trackedConn struct {
	net.Conn
	conns      *connections
	entry      entry
	clientAddr net.Addr // from a PROXY header; nil if there is none
	unread     []byte   // data that was read together with the PROXY header

	inHandlers atomic.Int64 // requests in handlers; negative after eviction
	used       atomic.Bool  // whether a request ended since the previous clearUsed
}

// register adds t to the connections under the client's address.
func (t *trackedConn) register(client netip.Addr) bool {
	switch t.conns.add(&t.entry, t, client, false) {
	case evictedOldest:
		t.conns.record(closedForTotal, client)
	case evictedOfClient:
		t.conns.record(closedForAddress, client)
	case registryFull, clientFull:
		t.conns.record(closedAllBusy, client)
		return false
	case added:
	}
	return true
}

// evictedMark is inHandlers of an evicted connection: far below the number of requests that
// can be in handlers.
const evictedMark = -1 << 32

func (t *trackedConn) evict(outcome) bool {
	if !t.inHandlers.CompareAndSwap(0, evictedMark) {
		return false
	}
	_ = t.Conn.Close() // pending reads and writes return an error
	return true
}

func (t *trackedConn) clearUsed() bool { return t.used.Swap(false) }

// beginRequest counts a request in a handler. It reports false if the connection was
// evicted, so that the client would not receive the response.
func (t *trackedConn) beginRequest() bool {
	if t == nil {
		return true
	}
	return t.inHandlers.Add(1) > 0
}

func (t *trackedConn) endRequest() {
	if t != nil {
		t.used.Store(true)
		t.inHandlers.Add(-1)
	}
}

// Read returns the data that was read together with the PROXY header first.
func (t *trackedConn) Read(p []byte) (int, error) {
	if len(t.unread) > 0 {
		n := copy(p, t.unread)
		t.unread = t.unread[n:]
		return n, nil
	}
	return t.Conn.Read(p)
}

// RemoteAddr returns the client's address.
func (t *trackedConn) RemoteAddr() net.Addr {
	if t.clientAddr != nil {
		return t.clientAddr
	}
	return t.Conn.RemoteAddr()
}

// Close closes the connection and removes it from the connections.
func (t *trackedConn) Close() error {
	t.conns.remove(&t.entry)
	return t.Conn.Close()
}

// trackedOf returns the tracked connection under c; nil if there is none.
func trackedOf(c net.Conn) *trackedConn {
	switch c := c.(type) {
	case *trackedConn:
		return c
	case *framingConn:
		return trackedOf(c.Conn)
	case secureFramingConn:
		return trackedOf(c.framingConn)
	case *tls.Conn:
		return trackedOf(c.NetConn())
	}
	return nil
}

// A Conn is the connection of a request. The zero Conn is one that no Ingress accepted.
type Conn struct {
	framing *framingConn // nil for HTTP/2
	tracked *trackedConn
}

type connKey struct{}

// ConnContext adds c to a context, for [ConnOf].
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	framing, _ := c.(*framingConn)
	if secure, ok := c.(secureFramingConn); ok {
		framing = secure.framingConn
	}
	return context.WithValue(ctx, connKey{}, Conn{framing, trackedOf(c)})
}

// ConnOf returns the connection of r.
func ConnOf(r *http.Request) Conn {
	c, _ := r.Context().Value(connKey{}).(Conn)
	return c
}

// BeginRequest counts a request in a handler; EndRequest ends it. A connection with a
// request in a handler is not evicted. BeginRequest reports false if the connection is
// closed.
func (c Conn) BeginRequest() bool { return c.tracked.beginRequest() }

// EndRequest ends a request.
func (c Conn) EndRequest() { c.tracked.endRequest() }

// HasUnreadBody reports whether a part of the current HTTP/1.1 request has not been read.
func (c Conn) HasUnreadBody() bool { return c.framing != nil && !c.framing.scan.atMessageBoundary() }
