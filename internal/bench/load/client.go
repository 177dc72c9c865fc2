package load

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"sync"
	"time"
)

// maxIdleTime is how long a connection may be idle and still be used again. Servers
// close idle connections, and a request must not be sent while they do.
const maxIdleTime = 30 * time.Second

// A Client makes connections to one server.
type Client struct {
	addr    string
	timeout time.Duration
}

// NewClient returns a Client of the server at base, such as
// http://127.0.0.1:3000. An answer may take timeout, and up to half as much
// again.
func NewClient(base string, timeout time.Duration) (*Client, error) {
	u, err := url.Parse(base)
	if err != nil {
		return nil, fmt.Errorf("server %q: want http://HOST:PORT: %w", base, err)
	}
	if u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Path != "" && u.Path != "/" {
		return nil, fmt.Errorf("server %q: want http://HOST:PORT: the load generator supports plain HTTP only",
			u.Redacted())
	}
	addr := u.Host
	if u.Port() == "" {
		addr = net.JoinHostPort(u.Hostname(), "80")
	}
	return &Client{addr: addr, timeout: timeout}, nil
}

// A Conn is one keep-alive HTTP/1.1 connection. One goroutine uses it. The connection
// is opened by the first call, and again after an error.
type Conn struct {
	Credential string // sent as a bearer token; "" for none
	Header     []byte // further header lines, each of which ends in CRLF

	client *Client
	r      *bufio.Reader
	out    []byte // the request; reused
	body   []byte // the body of the answer; reused
	used   time.Time
	due    time.Time // the deadline that is set on the connection

	mu  sync.Mutex // guards the fields that abort uses concurrently with Do
	c   net.Conn   // nil while there is no connection
	end error      // set once ctx has ended
}

// Conn returns a connection whose calls fail at once when ctx ends.
func (c *Client) Conn(ctx context.Context) *Conn {
	conn := &Conn{client: c, r: bufio.NewReaderSize(nil, 8<<10)}
	context.AfterFunc(ctx, func() { conn.abort(context.Cause(ctx)) })
	return conn
}

// Do sends a request and returns its answer, which is valid until the next
// call. A nil body sends none. After an error the outcome is unknown.
func (c *Conn) Do(method string, path, body []byte) (Answer, error) {
	now := time.Now()
	conn, err := c.ready(now)
	if err != nil {
		return Answer{}, err
	}
	c.compose(method, path, body)
	if _, err := conn.Write(c.out); err != nil {
		c.Close()
		return Answer{}, fmt.Errorf("send a request: %w", err)
	}
	a, last, err := readAnswer(c.r, c.body)
	c.body = a.Body[:0]
	if err == nil && c.r.Buffered() > 0 {
		err = fmt.Errorf("%w: more came than the answer", ErrMalformed)
	}
	if err != nil {
		c.Close()
		return Answer{}, err
	}
	c.used = now
	if last {
		c.Close()
	}
	return a, nil
}

// ready returns the open connection, or opens one.
func (c *Conn) ready(now time.Time) (net.Conn, error) {
	if now.Sub(c.used) > maxIdleTime {
		c.Close()
	}
	c.mu.Lock()
	conn, end := c.c, c.end
	c.mu.Unlock()
	if end != nil {
		return nil, end
	}
	if conn == nil {
		var err error
		if conn, err = c.dial(); err != nil {
			return nil, err
		}
	}
	// Setting a deadline is expensive, so one deadline serves several requests.
	if c.due.Sub(now) < c.client.timeout {
		c.due = now.Add(c.client.timeout + c.client.timeout/2)
		if err := conn.SetDeadline(c.due); err != nil {
			c.Close()
			return nil, fmt.Errorf("set a deadline: %w", err)
		}
	}
	return conn, nil
}

func (c *Conn) dial() (net.Conn, error) {
	conn, err := net.DialTimeout("tcp", c.client.addr, c.client.timeout)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end != nil {
		_ = conn.Close() // nothing was sent
		return nil, c.end
	}
	c.c, c.due = conn, time.Time{}
	c.r.Reset(conn)
	return conn, nil
}

// compose encodes the request into c.out.
func (c *Conn) compose(method string, path, body []byte) {
	b := append(c.out[:0], method...)
	b = append(b, ' ')
	b = append(b, path...)
	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, c.client.addr...)
	if c.Credential != "" {
		b = append(b, "\r\nAuthorization: Bearer "...)
		b = append(b, c.Credential...)
	}
	if body != nil {
		b = append(b, "\r\nContent-Type: application/json"...)
	}
	if body != nil || method == http.MethodPost {
		b = append(b, "\r\nContent-Length: "...)
		b = strconv.AppendInt(b, int64(len(body)), 10)
	}
	b = append(b, "\r\n"...)
	b = append(b, c.Header...)
	b = append(b, "\r\n"...)
	c.out = append(b, body...)
}

// abort makes the call in flight and all later calls fail.
func (c *Conn) abort(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.end = cause
	if c.c != nil {
		_ = c.c.SetDeadline(time.Unix(1, 0)) // it fails only on a closed connection
	}
}

// Close closes the connection. The next call opens another.
func (c *Conn) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.c != nil {
		_ = c.c.Close() // no call is in flight
		c.c = nil
	}
}
