package ingress

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"streamcount/internal/retry"
)

// handshakeTimeout limits the time of a TLS handshake, and of a PROXY header before it.
const handshakeTimeout = 5 * time.Second

// A handshakeListener accepts connections after the PROXY header, if they may have one, and
// the TLS handshake, if TLS is configured. Connections are prepared concurrently, so that a
// slow one delays no other. A connection that does not use HTTP/2 is a framingConn.
type handshakeListener struct {
	net.Listener
	config *tls.Config           // nil means no TLS
	proxy  func(netip.Addr) bool // reports which peers may send a PROXY header; nil if none
	ready  chan net.Conn
	failed chan error
	ctx    context.Context // canceled by Close
	close  context.CancelFunc
	tasks  sync.WaitGroup // acceptLoop and the handshakes
}

// newHandshakeListener accepts connections of ln until ln fails or is closed.
func newHandshakeListener(ln net.Listener, config *tls.Config, proxy func(netip.Addr) bool) *handshakeListener {
	if config != nil {
		config = config.Clone()
		config.NextProtos = []string{"h2", "http/1.1"}
	}
	l := &handshakeListener{
		Listener: ln, config: config, proxy: proxy, ready: make(chan net.Conn), failed: make(chan error, 1),
	}
	l.ctx, l.close = context.WithCancel(context.Background())
	l.tasks.Go(l.acceptLoop)
	return l
}

func (l *handshakeListener) acceptLoop() {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			if temporary(err) && retry.Sleep(l.ctx, 10*time.Millisecond) == nil {
				continue
			}
			l.failed <- err
			return
		}
		l.tasks.Go(func() { l.prepareAndQueue(c) })
	}
}

// temporary reports whether Accept should be repeated, as net/http does when the process has
// too many open files.
func temporary(err error) bool {
	var timeout interface{ Temporary() bool }
	return errors.As(err, &timeout) && timeout.Temporary()
}

func (l *handshakeListener) prepareAndQueue(raw net.Conn) {
	conn := l.prepare(raw)
	if conn == nil {
		_ = raw.Close() // the error does not matter: the handshake failed
		return
	}
	select {
	case l.ready <- conn:
	case <-l.ctx.Done():
		_ = conn.Close() // the listener is closed
	}
}

// prepare returns the connection to serve; nil if the handshake failed.
func (l *handshakeListener) prepare(raw net.Conn) net.Conn {
	ctx, cancel := context.WithTimeout(l.ctx, handshakeTimeout)
	defer cancel()
	if t := trackedOf(raw); l.proxy != nil && t != nil && l.proxy(PeerAddr(t.RemoteAddr().String())) {
		stop := context.AfterFunc(ctx, func() { _ = raw.Close() }) // the read fails
		if ok := t.readProxyHeader(); !stop() || !ok {
			return nil
		}
	}
	if l.config == nil {
		return &framingConn{Conn: raw}
	}
	c := tls.Server(raw, l.config)
	if c.HandshakeContext(ctx) != nil {
		return nil
	}
	if c.ConnectionState().NegotiatedProtocol == "h2" {
		return c
	}
	return secureFramingConn{&framingConn{Conn: c}, c}
}

// A secureFramingConn is a framingConn over TLS.
type secureFramingConn struct {
	*framingConn
	conn *tls.Conn
}

// ConnectionState is what net/http sets Request.TLS to.
func (c secureFramingConn) ConnectionState() tls.ConnectionState { return c.conn.ConnectionState() }

// Accept returns the next prepared connection.
func (l *handshakeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case err := <-l.failed:
		l.failed <- err // for the next call
		return nil, err
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close also ends the handshakes in progress.
func (l *handshakeListener) Close() error {
	l.close()
	err := l.Listener.Close()
	l.tasks.Wait()
	return err
}
