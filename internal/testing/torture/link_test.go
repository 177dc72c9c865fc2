//go:build linux

package torture

import (
	"net"
	"sync"
	"time"
)

// A direction is a direction of a link.
type direction int

const (
	outbound direction = iota // from the process that opened the connection
	inbound                   // to it
)

func (w direction) String() string { return [...]string{"outbound", "inbound"}[w] }

// A relay accepts connections for a process and forwards them to it. linkOf returns the link
// of a connection, which depends on the process that opened it.
type relay struct {
	listener net.Listener
	target   string
	linkOf   func(net.Conn) *link
	wg       sync.WaitGroup
}

// newRelay starts a relay to target. linkOf must not return nil.
func newRelay(target string, linkOf func(net.Conn) *link) (*relay, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &relay{listener: l, target: target, linkOf: linkOf}
	r.wg.Go(r.accept)
	return r, nil
}

func (r *relay) address() string { return r.listener.Addr().String() }

func (r *relay) accept() {
	for {
		in, err := r.listener.Accept()
		if err != nil {
			return // closed
		}
		r.wg.Go(func() { r.serve(in) })
	}
}

// serve forwards one connection until either end closes it.
func (r *relay) serve(in net.Conn) {
	l := r.linkOf(in)
	out, err := net.Dial("tcp", r.target)
	if err != nil {
		_ = in.Close()
		return
	}
	p := &relayedConn{in: in, out: out}
	l.add(p)
	defer l.remove(p)
	var ends sync.WaitGroup
	ends.Go(func() { l.forward(p, in, out, outbound) })
	ends.Go(func() { l.forward(p, out, in, inbound) })
	ends.Wait()
}

// close stops the relay. The connections of its links must have been reset.
func (r *relay) close() {
	_ = r.listener.Close()
	r.wg.Wait()
}

// relayedConn is a connection through a relay.
type relayedConn struct {
	in, out   net.Conn
	lostBytes bool // the link has dropped bytes, so the connection cannot continue
}

func (p *relayedConn) close() {
	_ = p.in.Close()
	_ = p.out.Close()
}

// linkState is what a link does to one direction.
type linkState struct {
	drop           bool          // drop everything
	hold           chan struct{} // forward nothing until the channel is closed
	delay          time.Duration // forward everything later
	bytesPerSecond int           // 0 for no limit
}

// A link has all connections from one process to another, and its state in each direction.
// The zero link forwards everything.
type link struct {
	mu     sync.Mutex
	states [2]linkState
	open   map[*relayedConn]bool
}

func (l *link) add(p *relayedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = map[*relayedConn]bool{}
	}
	l.open[p] = true
}

func (l *link) remove(p *relayedConn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, p)
	p.close()
}

func (l *link) state(w direction) linkState {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.states[w]
}

// drop drops everything in one direction, as a network without a route does. heal closes the
// connections that have lost bytes.
func (l *link) drop(w direction) { l.set(w, func(m *linkState) { m.drop = true }) }

// slow forwards everything in one direction later, and no faster than bytesPerSecond.
func (l *link) slow(w direction, delay time.Duration, bytesPerSecond int) {
	l.set(w, func(m *linkState) { m.delay, m.bytesPerSecond = delay, bytesPerSecond })
}

// hold buffers everything in one direction until the link heals.
func (l *link) hold(w direction) {
	l.set(w, func(m *linkState) {
		if m.hold == nil {
			m.hold = make(chan struct{})
		}
	})
}

func (l *link) set(w direction, change func(*linkState)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.states[w])
}

// heal ends drop, slow and hold.
func (l *link) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.states {
		if h := l.states[w].hold; h != nil {
			close(h)
		}
		l.states[w] = linkState{}
	}
	for p := range l.open {
		if p.lostBytes {
			p.close()
		}
	}
}

// reset closes all connections.
func (l *link) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.open {
		p.close()
	}
}

// chunk has bytes under way, and the time at which they are due.
type chunk struct {
	bytes []byte
	due   time.Time
}

// forward forwards one direction of a connection until it ends.
func (l *link) forward(p *relayedConn, from, to net.Conn, w direction) {
	defer p.close()
	queue := make(chan chunk, 1024)
	var sender sync.WaitGroup
	sender.Go(func() { l.send(to, queue, w) })
	defer sender.Wait()
	defer close(queue)
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			m := l.state(w)
			if m.drop {
				l.mu.Lock()
				p.lostBytes = true
				l.mu.Unlock()
			} else {
				queue <- chunk{append([]byte(nil), buf[:n]...), time.Now().Add(m.delay)}
			}
		}
		if err != nil {
			return
		}
	}
}

// send writes each chunk when it is due, until the queue is closed. After an error it only
// drains the queue.
func (l *link) send(to net.Conn, queue <-chan chunk, w direction) {
	broken := false
	for c := range queue {
		if broken {
			continue
		}
		time.Sleep(time.Until(c.due))
		m := l.state(w)
		if m.hold != nil {
			<-m.hold
		}
		if m.bytesPerSecond > 0 {
			time.Sleep(time.Duration(len(c.bytes)) * time.Second / time.Duration(m.bytesPerSecond))
		}
		if _, err := to.Write(c.bytes); err != nil {
			broken = true
			_ = to.Close()
		}
	}
}
