package browser

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A Line is another way to a node, which can be cut without the node or anybody
// else noticing: the network of one home.
type Line struct {
	// URL is the node's address by this line. It is an origin of its own.
	URL string

	target string
	ln     net.Listener
	all    sync.WaitGroup

	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
}

// Line returns a new way to the node. It ends with the test.
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

// Cut ends all connections, and each new one before it says anything.
func (l *Line) Cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cut = true
	for c := range l.conns {
		_ = c.Close() // wakes whoever copies
	}
}

// Mend undoes Cut, for new connections.
func (l *Line) Mend() {
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

// pass passes on what either end sends until one closes.
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
			_, _ = io.Copy(way[1], way[0]) // either end may go at any time
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

// keep notes a connection to be cut; false if the line is cut already.
func (l *Line) keep(c net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns[c] = true
	return !l.cut
}
