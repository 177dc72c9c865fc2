package api

import (
	"net"
	"net/netip"
	"sync"
)

// perAddress bounds how many connections one client address may have open, so
// that none can use up all there are. More are closed as they come.
type perAddress struct {
	net.Listener
	most int

	mu   sync.Mutex
	open map[netip.Addr]int
}

func boundPerAddress(ln net.Listener, most int) *perAddress {
	return &perAddress{Listener: ln, most: most, open: make(map[netip.Addr]int)}
}

// Accept returns the next connection of an address that may have one more.
func (l *perAddress) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		at, err := netip.ParseAddrPort(c.RemoteAddr().String())
		if err != nil || l.enter(at.Addr()) {
			return &countedConn{Conn: c, leave: sync.OnceFunc(func() { l.leave(at.Addr()) })}, nil
		}
		_ = c.Close() // its client has enough others to be told on
	}
}

func (l *perAddress) enter(a netip.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[a] >= l.most {
		return false
	}
	l.open[a]++
	return true
}

func (l *perAddress) leave(a netip.Addr) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open[a]--; l.open[a] <= 0 {
		delete(l.open, a)
	}
}

type countedConn struct {
	net.Conn
	leave func()
}

// Close counts the connection out, once.
func (c *countedConn) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
