package etcdtest

import (
	"net"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A Relay forwards TCP connections to a server. A frozen relay keeps its connections and
// accepts new ones, but forwards nothing, as if the server or the network hung. All methods
// are safe for concurrent use.
type Relay struct {
	listener net.Listener
	wg       sync.WaitGroup // of the goroutines that accept and forward

	mu     sync.Mutex // guards the fields below
	target string
	open   chan struct{} // closed while the relay is not frozen
	conns  map[net.Conn]bool
	active int // connections that are connected to the target
	closed bool
}

// NewRelay starts a relay on loopback. To sets its target. It is closed when the test ends.
func NewRelay(tb testing.TB) *Relay {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err, "start a relay")
	r := &Relay{listener: l, open: make(chan struct{}), conns: map[net.Conn]bool{}}
	close(r.open)
	r.wg.Go(r.accept)
	tb.Cleanup(r.close)
	return r
}

// Address returns host:port of the relay's listener.
func (r *Relay) Address() string { return r.listener.Addr().String() }

// To sets the target of new connections, as host:port or a URL.
func (r *Relay) To(target string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target = target
}

// Conns returns the number of connections through the relay.
func (r *Relay) Conns() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.active
}

// Freeze stops forwarding in both directions.
func (r *Relay) Freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.open:
		r.open = make(chan struct{})
	default: // frozen already
	}
}

// Thaw continues forwarding, and begins with the data received while frozen.
func (r *Relay) Thaw() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.open:
	default:
		close(r.open)
	}
}

func (r *Relay) accept() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return // closed
		}
		r.wg.Go(func() { r.serve(in) })
	}
}

// serve forwards one connection until either end closes it.
func (r *Relay) serve(in net.Conn) {
	defer r.drop(in)
	if !r.track(in) {
		return
	}
	r.waitThawed()
	r.mu.Lock()
	target := r.target
	r.mu.Unlock()
	out, err := dialTarget(target)
	if err != nil {
		return
	}
	defer r.drop(out)
	if !r.track(out) {
		return
	}
	r.count(1)
	defer r.count(-1)
	var both sync.WaitGroup
	both.Go(func() { r.forward(in, out) })
	both.Go(func() { r.forward(out, in) })
	both.Wait()
}

// forward forwards one direction, and closes both connections when one ends.
func (r *Relay) forward(from, to net.Conn) {
	defer r.drop(from)
	defer r.drop(to)
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		r.waitThawed()
		if _, werr := to.Write(buf[:n]); werr != nil || err != nil {
			return
		}
	}
}

// waitThawed waits while the relay is frozen.
func (r *Relay) waitThawed() {
	r.mu.Lock()
	open := r.open
	r.mu.Unlock()
	<-open
}

func (r *Relay) count(d int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.active += d
}

// track records a connection, which close closes. It returns false if the relay is closed.
func (r *Relay) track(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.conns[c] = true
	return true
}

func (r *Relay) drop(c net.Conn) {
	r.mu.Lock()
	delete(r.conns, c)
	r.mu.Unlock()
	_ = c.Close() // it may be closed already
}

func (r *Relay) close() {
	r.Thaw()
	_ = r.listener.Close() // ends accept
	r.mu.Lock()
	r.closed = true
	for c := range r.conns {
		_ = c.Close() // ends its reads
	}
	r.mu.Unlock()
	r.wg.Wait()
}
