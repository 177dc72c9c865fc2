package torture

import (
	"net"
	"sync"
	"time"
)

// A way is one direction of a link.
type way int

const (
	there way = iota // from whoever dialled
	back
)

func (w way) String() string { return [...]string{"there", "back"}[w] }

// A relay is one process's door: connections to it lead to the process. Which
// link each belongs to depends on who dialled.
type relay struct {
	listener net.Listener
	target   string
	linkOf   func(net.Conn) *link
	wg       sync.WaitGroup
}

// newRelay opens a door to target. linkOf tells to which link a new connection
// belongs; it must not return nil.
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

// serve passes one connection on until either end closes it.
func (r *relay) serve(in net.Conn) {
	l := r.linkOf(in)
	out, err := net.Dial("tcp", r.target)
	if err != nil {
		_ = in.Close()
		return
	}
	p := &passage{in: in, out: out}
	l.keep(p)
	defer l.forget(p)
	var ends sync.WaitGroup
	ends.Go(func() { l.pass(p, in, out, there) })
	ends.Go(func() { l.pass(p, out, in, back) })
	ends.Wait()
}

// close ends the door; the connections of its links must have been reset.
func (r *relay) close() {
	_ = r.listener.Close()
	r.wg.Wait()
}

// passage is one connection with both its ends.
type passage struct {
	in, out net.Conn
	holed   bool // something was swallowed: it cannot go on
}

func (p *passage) close() {
	_ = p.in.Close()
	_ = p.out.Close()
}

// mood is what a link does to one direction.
type mood struct {
	drop  bool          // swallow all
	hold  chan struct{} // pass nothing until closed
	delay time.Duration // pass late
	pace  int           // bytes a second; 0 for as fast as it goes
}

// A link is all connections from one process to another, and what happens to
// them. The zero link passes everything.
type link struct {
	mu    sync.Mutex
	moods [2]mood
	open  map[*passage]bool
}

func (l *link) keep(p *passage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.open == nil {
		l.open = map[*passage]bool{}
	}
	l.open[p] = true
}

func (l *link) forget(p *passage) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.open, p)
	p.close()
}

func (l *link) mood(w way) mood {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.moods[w]
}

// drop swallows what goes one way, as a network does that has lost the route.
// The connections end when the link heals, since what they lost stays lost.
func (l *link) drop(w way) { l.set(w, func(m *mood) { m.drop = true }) }

// slow passes everything one way later, and no faster than pace.
func (l *link) slow(w way, delay time.Duration, pace int) {
	l.set(w, func(m *mood) { m.delay, m.pace = delay, pace })
}

// hold passes nothing one way until the link heals; then all that came meanwhile.
func (l *link) hold(w way) {
	l.set(w, func(m *mood) {
		if m.hold == nil {
			m.hold = make(chan struct{})
		}
	})
}

func (l *link) set(w way, change func(*mood)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	change(&l.moods[w])
}

// heal undoes all of the above.
func (l *link) heal() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for w := range l.moods {
		if h := l.moods[w].hold; h != nil {
			close(h)
		}
		l.moods[w] = mood{}
	}
	for p := range l.open {
		if p.holed {
			p.close()
		}
	}
}

// reset cuts all connections.
func (l *link) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.open {
		p.close()
	}
}

// chunk is something on its way.
type chunk struct {
	bytes []byte
	due   time.Time
}

// pass copies one direction of one connection until it ends.
func (l *link) pass(p *passage, from, to net.Conn, w way) {
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
			m := l.mood(w)
			if m.drop {
				l.mu.Lock()
				p.holed = true
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

// send writes what is due, until the queue is closed. After an error it only
// empties the queue.
func (l *link) send(to net.Conn, queue <-chan chunk, w way) {
	broken := false
	for c := range queue {
		if broken {
			continue
		}
		time.Sleep(time.Until(c.due))
		m := l.mood(w)
		if m.hold != nil {
			<-m.hold
		}
		if m.pace > 0 {
			time.Sleep(time.Duration(len(c.bytes)) * time.Second / time.Duration(m.pace))
		}
		if _, err := to.Write(c.bytes); err != nil {
			broken = true
			_ = to.Close()
		}
	}
}
