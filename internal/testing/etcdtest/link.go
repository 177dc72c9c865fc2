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

// A Link forwards TCP connections to a server with a delay, which does not depend on the amount
// of data. It counts bytes. All methods are safe for concurrent use.
type Link struct {
	listener net.Listener
	delay    func(member string) time.Duration
	bytes    atomic.Int64
	wg       sync.WaitGroup // of the goroutines that accept and forward

	mu     sync.Mutex // guards the fields below
	target string
	conns  map[net.Conn]bool
	closed bool
}

// NewLink starts a link on loopback. To sets its target. delay returns the one-way delay of
// each chunk. Its member is the id of the etcd member that opened the connection, or "" while
// that is unknown. The link is closed when the test ends.
func NewLink(tb testing.TB, delay func(member string) time.Duration) *Link {
	tb.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err, "start a link")
	l := &Link{listener: ln, delay: delay, conns: map[net.Conn]bool{}}
	l.wg.Go(l.accept)
	tb.Cleanup(l.close)
	return l
}

// Address returns host:port of the link's listener.
func (l *Link) Address() string { return l.listener.Addr().String() }

// URL returns the address of the link's listener as an endpoint.
func (l *Link) URL() string { return "http://" + l.Address() }

// To sets the target of new connections, as host:port or a URL.
func (l *Link) To(target string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.target = target
}

// Bytes returns the number of bytes that were forwarded in both directions.
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

// serve forwards one connection until either end closes it.
func (l *Link) serve(in net.Conn) {
	defer l.drop(in)
	target, open := l.track(in)
	if !open {
		return
	}
	out, err := dialTarget(target)
	if err != nil {
		return
	}
	defer l.drop(out)
	if _, open := l.track(out); !open {
		return
	}
	var member atomic.Pointer[string]
	delay := func() time.Duration {
		if id := member.Load(); id != nil {
			return l.delay(*id)
		}
		return l.delay("")
	}
	requestDelay := func(data []byte) time.Duration {
		if id := sender(data); member.Load() == nil && id != "" {
			member.Store(&id)
		}
		return delay()
	}
	var both sync.WaitGroup
	both.Go(func() { l.forward(in, out, requestDelay) })
	both.Go(func() { l.forward(out, in, func([]byte) time.Duration { return delay() }) })
	both.Wait()
}

// dialTarget connects to host:port, or to the host or Unix socket of a URL.
func dialTarget(target string) (net.Conn, error) {
	scheme, rest, found := strings.Cut(target, "://")
	switch {
	case !found:
		return net.Dial("tcp", target)
	case scheme == "unix":
		return net.Dial("unix", rest)
	}
	return net.Dial("tcp", rest)
}

// sender returns the id of the member that a raft request in data names as its sender, or ""
// if there is none.
func sender(data []byte) string {
	_, rest, found := bytes.Cut(data, []byte("X-Server-From: "))
	id, _, complete := bytes.Cut(rest, []byte("\r\n"))
	if !found || !complete {
		return ""
	}
	return string(id)
}

// chunk has data from one read, and when it is due.
type chunk struct {
	due  time.Time
	data []byte
}

// forward forwards one direction, and closes both connections when one ends.
func (l *Link) forward(from, to net.Conn, delay func(data []byte) time.Duration) {
	defer l.drop(from)
	chunks := make(chan chunk, 1<<12)
	l.wg.Go(func() { l.deliver(chunks, from, to) })
	defer close(chunks)
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			l.bytes.Add(int64(n))
			data := bytes.Clone(buf[:n])
			chunks <- chunk{time.Now().Add(delay(data)), data}
		}
		if err != nil {
			return
		}
	}
}

func (l *Link) deliver(chunks <-chan chunk, from, to net.Conn) {
	defer l.drop(to)
	defer l.drop(from)
	for c := range chunks {
		if wait := time.Until(c.due); wait > 0 {
			<-time.After(wait)
		}
		if _, err := to.Write(c.data); err != nil {
			break
		}
	}
	for range chunks { // so that forward does not block
	}
}

// track records a connection, which close closes, and returns the link's target. open is false
// if the link is closed.
func (l *Link) track(c net.Conn) (target string, open bool) {
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
		_ = c.Close() // ends its reads
	}
	l.mu.Unlock()
	l.wg.Wait()
}
