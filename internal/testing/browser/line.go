package browser

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A Line is a network path to a node that can be cut without an effect on other paths.
type Line struct {
	// URL is the node's address on this path. It is a separate origin.
	URL string

	target string
	ln     net.Listener
	all    sync.WaitGroup

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

// Line returns a new path to the node. It is closed when the test ends.
func (n *Node) Line(tb testing.TB) *Line {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	l := &Line{
		URL: "http://" + ln.Addr().String(), target: strings.TrimPrefix(n.URL, "http://"),
		ln: ln, conns: map[net.Conn]bool{},
	}
	l.all.Go(l.accept)
	tb.Cleanup(func() {
		l.Cut()
		_ = ln.Close() // ends accept
		l.all.Wait()
	})
	return l
}

// Cut closes all connections, and each new connection at once.
func (l *Line) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for c := range l.conns {
		_ = c.Close() // ends the copying
	}
}

// Restore undoes Cut for new connections.
func (l *Line) Restore() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = false
}

func (l *Line) accept() {
	for {
		in, err := l.ln.Accept()
		if err != nil {
			return
		}
		l.all.Go(func() { l.pass(in) })
	}
}

// pass forwards data in both directions until one end closes.
func (l *Line) pass(in net.Conn) {
	out, err := net.Dial("tcp", l.target)
	if err != nil {
		_ = in.Close()
		return
	}
	var ends sync.WaitGroup
	for _, way := range [][2]net.Conn{{in, out}, {out, in}} {
		if !l.keep(way[0]) {
			_ = way[0].Close()
		}
		ends.Go(func() {
			_, _ = io.Copy(way[1], way[0]) // either end may close at any time
			_ = way[0].Close()
			_ = way[1].Close()
		})
	}
	ends.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, in)
	delete(l.conns, out)
}

// keep registers a connection for Cut. It returns false if the line is cut.
func (l *Line) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = true
	return !l.cut
}
