package api

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"time"
)

// handshakeTimeout is how long a client may take to agree on TLS.
const handshakeTimeout = 5 * time.Second

// A tlsListener accepts connections that have agreed on TLS. Each does so on its
// own, so that a slow one holds nobody up. Those that speak HTTP/1.1 are read
// along with, as all are without TLS; HTTP/2 says plainly where a body ends.
type tlsListener struct {
	net.Listener
	config *tls.Config
	early  *early
	ready  chan net.Conn
	failed chan error
	ctx    context.Context // ends with Close
	close  context.CancelFunc
	work   sync.WaitGroup // run and the handshakes
}

// newTLSListener accepts from ln until it fails or is closed.
func newTLSListener(ln net.Listener, config *tls.Config, early *early) *tlsListener {
	config = config.Clone()
	config.NextProtos = []string{"h2", "http/1.1"}
	l := &tlsListener{Listener: ln, config: config, early: early, ready: make(chan net.Conn), failed: make(chan error, 1)}
	l.ctx, l.close = context.WithCancel(context.Background())
	l.work.Go(l.run)
	return l
}

func (l *tlsListener) run() {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			if temporary(err) && pauseUntil(l.ctx, 10*time.Millisecond) {
				continue
			}
			l.failed <- err
			return
		}
		l.work.Go(func() { l.shake(c) })
	}
}

// temporary reports whether to accept again later, as net/http does when the
// process has too many files open.
func temporary(err error) bool {
	var timeout interface{ Temporary() bool }
	return errors.As(err, &timeout) && timeout.Temporary()
}

func pauseUntil(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (l *tlsListener) shake(raw net.Conn) {
	ctx, cancel := context.WithTimeout(l.ctx, handshakeTimeout)
	defer cancel()
	c := tls.Server(raw, l.config)
	if c.HandshakeContext(ctx) != nil {
		_ = raw.Close() // whoever cannot agree need not be told more than TLS has told him
		return
	}
	var conn net.Conn = c
	if c.ConnectionState().NegotiatedProtocol != "h2" {
		conn = &tapConn{Conn: c, early: l.early}
	}
	select {
	case l.ready <- conn:
	case <-l.ctx.Done():
		_ = c.Close() // nobody will serve it
	}
}

// Accept returns the next connection that has agreed.
func (l *tlsListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.ready:
		return c, nil
	case err := <-l.failed:
		l.failed <- err // for whoever asks again
		return nil, err
	case <-l.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close ends the handshakes under way as well.
func (l *tlsListener) Close() error {
	l.close()
	err := l.Listener.Close()
	l.work.Wait()
	return err
}
