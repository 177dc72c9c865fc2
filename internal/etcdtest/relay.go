package etcdtest

import (
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

// A Relay passes TCP connections on to a server, and can freeze: then it keeps
// its connections and takes new ones, but passes nothing, as a paused process
// or a network that drops everything would. All methods are safe for
// concurrent use.
type Relay struct {
	listener net.Listener
	wg       sync.WaitGroup // of the goroutines that accept and pass

	mu     sync.Mutex // guards what follows
	target string
	open   chan struct{} // closed while the relay is not frozen
	conns  map[net.Conn]bool
	passed int // connections that have both ends
	closed bool
}

// NewRelay starts a relay on loopback, to be given a target by To. It ends with
// the test.
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

// Address returns host:port of the relay's own end.
func (r *Relay) Address() string { return r.listener.Addr().String() }

// To sets where new connections lead, as host:port or a URL.
func (r *Relay) To(target string) {
	if _, rest, found := strings.Cut(target, "://"); found {
		target = rest
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.target = target
}

// Conns returns how many connections lead through the relay now.
func (r *Relay) Conns() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.passed
}

// Freeze stops the passing, in both directions.
func (r *Relay) Freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-r.open:
		r.open = make(chan struct{})
	default: // frozen already
	}
}

// Thaw lets everything pass again, what came in between first.
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

// serve passes one connection until either end closes it.
func (r *Relay) serve(in net.Conn) {
	defer r.drop(in)
	if !r.keep(in) {
		return
	}
	r.gate()
	r.mu.Lock()
	target := r.target
	r.mu.Unlock()
	out, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer r.drop(out)
	if !r.keep(out) {
		return
	}
	r.count(1)
	defer r.count(-1)
	var ends sync.WaitGroup
	ends.Go(func() { r.pass(in, out) })
	ends.Go(func() { r.pass(out, in) })
	ends.Wait()
}

// pass closes both ends when one is done.
func (r *Relay) pass(from, to net.Conn) {
	defer r.drop(from)
	defer r.drop(to)
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		r.gate()
		if _, werr := to.Write(buf[:n]); werr != nil || err != nil {
			return
		}
	}
}

// gate waits while the relay is frozen.
func (r *Relay) gate() {
	r.mu.Lock()
	open := r.open
	r.mu.Unlock()
	<-open
}

func (r *Relay) count(d int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.passed += d
}

// keep notes a connection to be closed with the relay. It returns false if the
// relay is closed.
func (r *Relay) keep(c net.Conn) bool {
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
		_ = c.Close() // wakes whoever reads it
	}
	r.mu.Unlock()
	r.wg.Wait()
}
