package peer

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
)

// A link is one connection to Redis that all callers share: while a batch of
// commands is being written the next one fills, and replies are matched in
// order. It saves Redis most of the system calls that one connection a caller
// would cost it, and its log most of the fsyncs.
type link struct {
	conn net.Conn
	wake chan struct{} // holds one token while there is something to write
	died chan error    // one error when the connection is lost
	wg   sync.WaitGroup

	mu      sync.Mutex
	buf     []byte
	waiting []*call // of the commands that have no reply, in order
	err     error   // why the link is lost
}

// A call is a command that waits for its reply.
type call struct {
	done chan struct{} // holds one token when there is a reply
	n    int64
	text string
	err  error
}

var calls = sync.Pool{New: func() any { return &call{done: make(chan struct{}, 1)} }}

func newLink(conn net.Conn) *link {
	l := &link{conn: conn, wake: make(chan struct{}, 1), died: make(chan error, 1)}
	l.wg.Go(l.write)
	l.wg.Go(l.read)
	return l
}

// close fails what waits and returns when nothing of the link runs any more.
func (l *link) close() {
	l.fail(net.ErrClosed)
	l.wg.Wait()
}

// do sends a command and waits for its reply, a number or a text.
func (l *link) do(args ...string) (int64, string, error) {
	return l.wait(l.send(args...))
}

// send queues a command.
func (l *link) send(args ...string) *call {
	c := calls.Get().(*call)
	l.mu.Lock()
	if l.err != nil {
		c.err = l.err
		l.mu.Unlock()
		c.done <- struct{}{}
		return c
	}
	l.buf = appendCommand(l.buf, args)
	l.waiting = append(l.waiting, c)
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default: // the writer has been told already
	}
	return c
}

func (l *link) wait(c *call) (int64, string, error) {
	<-c.done
	n, text, err := c.n, c.text, c.err
	c.n, c.text, c.err = 0, "", nil
	calls.Put(c)
	return n, text, err
}

func appendCommand(b []byte, args []string) []byte {
	b = strconv.AppendInt(append(b, '*'), int64(len(args)), 10)
	for _, a := range args {
		b = strconv.AppendInt(append(b, "\r\n$"...), int64(len(a)), 10)
		b = append(append(b, "\r\n"...), a...)
	}
	return append(b, "\r\n"...)
}

func (l *link) write() {
	var out []byte
	for range l.wake {
		l.mu.Lock()
		out, l.buf = l.buf, out[:0]
		lost := l.err != nil
		l.mu.Unlock()
		if lost {
			return
		}
		if _, err := l.conn.Write(out); err != nil {
			l.fail(err)
			return
		}
	}
}

func (l *link) read() {
	r := bufio.NewReaderSize(l.conn, 64<<10)
	for {
		n, text, err := readReply(r)
		var refused *redisError
		if err != nil && !errors.As(err, &refused) {
			l.fail(err)
			return
		}
		l.mu.Lock()
		if len(l.waiting) == 0 {
			l.mu.Unlock()
			l.fail(errors.New("a reply to no command"))
			return
		}
		c := l.waiting[0]
		l.waiting = l.waiting[1:]
		l.mu.Unlock()
		c.n, c.text, c.err = n, text, err
		c.done <- struct{}{}
	}
}

// fail ends the link: replies cannot be matched to commands any more.
func (l *link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return
	}
	l.err = fmt.Errorf("redis connection: %w", err)
	for _, c := range l.waiting {
		c.err = l.err
		c.done <- struct{}{}
	}
	l.waiting = nil
	_ = l.conn.Close() // it is of no more use
	l.died <- l.err
	select {
	case l.wake <- struct{}{}: // so that the writer sees it
	default:
	}
}

// A redisError is Redis's own refusal of one command.
type redisError struct{ text string }

func (e *redisError) Error() string { return "redis: " + e.text }

// readReply reads the replies that the commands here can have.
func readReply(r *bufio.Reader) (int64, string, error) {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return 0, "", err
	}
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return 0, "", fmt.Errorf("malformed reply %.60q", line)
	}
	kind, rest := line[0], string(line[1:len(line)-2])
	switch kind {
	case '+':
		return 0, rest, nil
	case '-':
		return 0, "", &redisError{rest}
	case ':':
		n, err := strconv.ParseInt(rest, 10, 64)
		return n, "", err
	case '$':
		n, err := strconv.ParseUint(rest, 10, 20)
		if err != nil {
			return 0, "", fmt.Errorf("malformed reply %.60q", line)
		}
		text := make([]byte, n+2)
		if _, err := io.ReadFull(r, text); err != nil {
			return 0, "", err
		}
		return 0, string(text[:n]), nil
	}
	return 0, "", fmt.Errorf("malformed reply %.60q", line)
}
