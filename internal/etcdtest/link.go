package etcdtest

import (
	"bytes"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A Link passes TCP connections on to a server, and what it passes arrives later, as
// over a long line: each way by the same time, however much is under way. It counts
// bytes. All methods are safe for concurrent use.
type Link struct {
	listener net.Listener
	delay    func(member string) time.Duration
	bytes    atomic.Int64
	wg       sync.WaitGroup // of the goroutines that accept and pass

	mu     sync.Mutex // guards what follows
	target string
	conns  map[net.Conn]bool
	closed bool
}

// NewLink starts a link on loopback, to be given a target by To. delay is asked for
// every piece, one way; member is the id of the etcd member that opened the
// connection, as far as its requests have told, else "". The link ends with the test.
func NewLink(tb testing.TB, delay func(member string) time.Duration) *Link {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err, "start a link")
	l := &Link{listener: ln, delay: delay, conns: map[net.Conn]bool{}}
	l.wg.Go(l.accept)
	tb.Cleanup(l.close)
	return l
}

// Address returns host:port of the link's own end.
func (l *Link) Address() string { return l.listener.Addr().String() }

// URL returns the link's own end as an endpoint.
func (l *Link) URL() string { return "http://" + l.Address() }

// To sets where new connections lead, as host:port or a URL.
func (l *Link) To(target string) {
	if _, rest, found := strings.Cut(target, "://"); found {
		target = rest
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target = target
}

// Bytes returns how many have been passed, both ways together.
func (l *Link) Bytes() int64 { return l.bytes.Load() }

func (l *Link) accept() {
	for {
		in, err := l.listener.Accept()
		if err != nil {
			return // closed
		}
		l.wg.Go(func() { l.serve(in) })
	}
}

// serve passes one connection until either end closes it.
func (l *Link) serve(in net.Conn) {
	defer l.drop(in)
	target, open := l.keep(in)
	if !open {
		return
	}
	out, err := net.Dial("tcp", target)
	if err != nil {
		return
	}
	defer l.drop(out)
	if _, open := l.keep(out); !open {
		return
	}
	var member atomic.Pointer[string]
	from := func() time.Duration {
		if known := member.Load(); known != nil {
			return l.delay(*known)
		}
		return l.delay("")
	}
	there := func(data []byte) time.Duration {
		if id := sender(data); member.Load() == nil && id != "" {
			member.Store(&id)
		}
		return from()
	}
	var ends sync.WaitGroup
	ends.Go(func() { l.pass(in, out, there) })
	ends.Go(func() { l.pass(out, in, func([]byte) time.Duration { return from() }) })
	ends.Wait()
}

// sender is the member that says in data that it sends a request of raft's. Members
// open connections for nobody but themselves.
func sender(data []byte) string {
	_, rest, found := bytes.Cut(data, []byte("X-Server-From: "))
	id, _, whole := bytes.Cut(rest, []byte("\r\n"))
	if !found || !whole {
		return ""
	}
	return string(id)
}

// piece is what was read at once, and when it is to arrive.
type piece struct {
	due  time.Time
	data []byte
}

// pass closes both ends when one is done.
func (l *Link) pass(from, to net.Conn, delay func(data []byte) time.Duration) {
	defer l.drop(from)
	pieces := make(chan piece, 1<<12)
	l.wg.Go(func() { l.deliver(pieces, from, to) })
	defer close(pieces)
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			l.bytes.Add(int64(n))
			data := bytes.Clone(buf[:n])
			pieces <- piece{time.Now().Add(delay(data)), data}
		}
		if err != nil {
			return
		}
	}
}

func (l *Link) deliver(pieces <-chan piece, from, to net.Conn) {
	defer l.drop(to)
	defer l.drop(from)
	for p := range pieces {
		if late := time.Until(p.due); late > 0 {
			<-time.After(late)
		}
		if _, err := to.Write(p.data); err != nil {
			break
		}
	}
	for range pieces { // so that nobody waits for room
	}
}

// keep notes a connection to be closed with the link, and returns where the link
// leads. It returns false if the link is closed.
func (l *Link) keep(c net.Conn) (target string, open bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return "", false
	}
	l.conns[c] = true
	return l.target, true
}

func (l *Link) drop(c net.Conn) {
	l.mu.Lock()
	delete(l.conns, c)
	l.mu.Unlock()
	_ = c.Close() // it may be closed already
}

func (l *Link) close() {
	_ = l.listener.Close() // ends accept
	l.mu.Lock()
	l.closed = true
	for c := range l.conns {
		_ = c.Close() // wakes whoever reads it
	}
	l.mu.Unlock()
	l.wg.Wait()
}
