package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"time"

	"streamcount/api/apitype"
)

// DefaultServer is the default address of a node.
const DefaultServer = "http://127.0.0.1:3000"

// Config configures a Client. The zero value is valid.
type Config struct {
	Server string       // base URL of any node; [DefaultServer] if empty
	HTTP   *http.Client // a new one if nil. Redirects are never followed; its CheckRedirect is not used
	Log    *slog.Logger // discards if nil
	// Credential is sent with every call as a bearer token: an API key or a viewer's token;
	// "" for none. It is never logged.
	Credential string
	// PlaintextCredential permits a credential over http:// to another machine, where it can be
	// read on the network.
	PlaintextCredential bool
	// OnProblem, if not nil, is called when the service rejects a start, or a heartbeat of a
	// Stream: any status from 300 on except the limit, the end of a stream, 408, 425, 429 and
	// 5xx. The error names the invalid members. OnProblem must not block.
	OnProblem func(*ProblemError)
	// Tokens are the formats in which starts and heartbeats request playback tokens: jwt, akamai,
	// secure-link or cloudfront; none if empty.
	Tokens []string
	// OnToken, if not nil, is called with each token that a start or heartbeat returns. It must not
	// block.
	OnToken func(user string, t apitype.Token)
	// Timeout bounds each request; 5 s if 0. A node answers within that time even if
	// etcd does not, so a shorter timeout misses those answers.
	Timeout time.Duration
	// Attempts is the maximum number of requests of a start or a stop with transient
	// failures; 4 if 0.
	Attempts int
	// Every makes Streams send heartbeats more often than the service requests, at most ten
	// per second. A longer interval than the service's is ignored.
	Every time.Duration
}

const minEvery = 100 * time.Millisecond

func (c Config) withDefaults() (Config, error) {
	c.Server = cmp.Or(c.Server, DefaultServer)
	c.Log = cmp.Or(c.Log, slog.New(slog.DiscardHandler))
	c.Timeout = cmp.Or(c.Timeout, 5*time.Second)
	c.Attempts = cmp.Or(c.Attempts, 4)
	switch {
	case c.Timeout < 0:
		return c, fmt.Errorf("%w: Timeout %v is negative", ErrInvalid, c.Timeout)
	case c.Attempts < 0:
		return c, fmt.Errorf("%w: Attempts %d is negative", ErrInvalid, c.Attempts)
	case c.Every != 0 && c.Every < minEvery:
		return c, fmt.Errorf("%w: Every %v: want at least %v, or 0 for the interval of the service",
			ErrInvalid, c.Every, minEvery)
	}
	return c, c.checkServer()
}

// checkServer returns an error unless a path can be appended to the server's URL and a
// credential may be sent to it.
func (c Config) checkServer() error {
	u, err := url.Parse(c.Server)
	if err != nil { // the error may quote a password
		return fmt.Errorf("%w: the server is not an address: want http://HOST:PORT or https://HOST:PORT", ErrInvalid)
	}
	shown := redacted(c.Server)
	switch {
	case (u.Scheme != "http" && u.Scheme != "https") || u.Host == "":
		return fmt.Errorf("%w: server %q: want http://HOST:PORT or https://HOST:PORT", ErrInvalid, shown)
	case u.RawQuery != "" || u.Fragment != "":
		return fmt.Errorf("%w: server %q: want an address without ? and #", ErrInvalid, shown)
	case u.Scheme == "http" && (c.Credential != "" || u.User != nil) && !c.PlaintextCredential && !isLoopback(u.Hostname()):
		return fmt.Errorf("%w: server %q: %w", ErrInvalid, shown, ErrPlaintext)
	}
	return nil
}

// isLoopback reports whether host is this machine by its form, without a resolver.
func isLoopback(host string) bool {
	if addr, err := netip.ParseAddr(host); err == nil {
		return addr.Unmap().IsLoopback()
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// redacted returns an address without user, password, query and fragment, for error messages.
func redacted(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" && u.Opaque != "" && strings.Contains(address, "@") {
		return "the server"
	}
	u.User, u.RawQuery, u.ForceQuery, u.Fragment, u.RawFragment = nil, "", false, "", ""
	return u.String()
}

// A Client calls one streamcount service. Create it with [New].
type Client struct {
	cfg      Config
	http     *http.Client
	base     string        // URL up to "/api", without userinfo, which errors would show
	userinfo *url.Userinfo // from Config.Server, for a proxy that requires it; may be nil

	mu      sync.Mutex // never held across I/O
	closed  bool
	streams map[*Stream]struct{} // with a running goroutine
}

// New returns a Client. It sends no request.
func New(cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	server, err := url.Parse(cfg.Server)
	if err != nil {
		return nil, ErrInvalid // it was parsed above
	}
	c := &Client{cfg: cfg, userinfo: server.User, streams: make(map[*Stream]struct{})}
	server.User = nil
	c.base = strings.TrimRight(server.String(), "/")
	if cfg.HTTP == nil {
		c.http = &http.Client{Transport: newTransport()}
	} else {
		own := *cfg.HTTP // a copy, because CheckRedirect is set below
		c.http = &own
	}
	// A redirected POST becomes a GET, and net/http forwards a credential to subdomains
	// and from https to http.
	c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return c, nil
}

// newTransport returns a transport like net/http's default, but with enough idle connections
// for a backend with many streams, and dial timeouts no longer than a request's.
func newTransport() *http.Transport {
	dialer := &net.Dialer{Timeout: 5 * time.Second, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		ForceAttemptHTTP2:   true,
		MaxIdleConns:        256,
		MaxIdleConnsPerHost: 256,
		IdleConnTimeout:     90 * time.Second,
		TLSHandshakeTimeout: 5 * time.Second,
	}
}

// maxParallelStops is the number of streams that Close stops at the same time.
const maxParallelStops = 32

// Close stops all Streams of c, as [Stream.Stop] does, and waits for them. Later starts, and
// starts in progress, return [ErrClosed]. With a context that has already ended, Close ends
// the heartbeats, and the slots expire.
func (c *Client) Close(ctx context.Context) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		errs  []error
		slots = make(chan struct{}, maxParallelStops)
	)
	all := c.markClosed()
	for _, s := range all {
		s.cancel() // first end the heartbeats of all streams
	}
	for _, s := range all {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := s.Stop(ctx); err != nil {
				mu.Lock()
				defer mu.Unlock()
				errs = append(errs, err)
			}
		})
	}
	wg.Wait()
	if c.cfg.HTTP == nil {
		c.http.CloseIdleConnections()
	}
	return errors.Join(errs...)
}

// markClosed makes register return ErrClosed and returns the registered streams.
func (c *Client) markClosed() []*Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	all := make([]*Stream, 0, len(c.streams))
	for s := range c.streams {
		all = append(all, s)
	}
	return all
}

// register adds s to the streams that Close stops.
func (c *Client) register(s *Stream) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.streams[s] = struct{}{}
	return nil
}

func (c *Client) unregister(s *Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.streams, s)
}

func (c *Client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}
