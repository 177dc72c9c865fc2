package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"
)

// DefaultServer is where a node listens unless told otherwise.
const DefaultServer = "http://127.0.0.1:3000"

// Config is what a Client is made from. The zero value is fit for use.
type Config struct {
	Server string       // base address of any node; [DefaultServer] if empty
	HTTP   *http.Client // its own, if nil. Redirects are never followed unless it has a CheckRedirect
	Log    *slog.Logger // discards if nil
	// Credential goes with every call, as a bearer token: an API key or a viewer's
	// token; "" for none. It is never logged.
	Credential string
	// Timeout bounds each request; 5 s if 0. A node answers within that even
	// when etcd does not, so a shorter one misses what it says then.
	Timeout time.Duration
	// Attempts is how often a start or a stop is sent, at most, while its
	// failures look transient; 4 if 0.
	Attempts int
	// Every makes Streams send heartbeats more often than the service asks, at
	// most ten a second. A longer time than the service's is ignored.
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
		return c, fmt.Errorf("%w: Every %v: want at least %v, or 0 for the service's own pace",
			ErrInvalid, c.Every, minEvery)
	}
	return c, checkServer(c.Server)
}

// checkServer wants an address that a path can be put behind.
func checkServer(server string) error {
	u, err := url.Parse(server)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return fmt.Errorf("%w: server %q: want http://HOST:PORT or https://HOST:PORT", ErrInvalid, server)
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%w: server %q: want an address without ? and #", ErrInvalid, u.Redacted())
	}
	return nil
}

// A Client calls one streamcount service. Make it with [New].
type Client struct {
	cfg  Config
	http *http.Client
	base string // ends before "/api"

	mu      sync.Mutex // never held across I/O
	closed  bool
	streams map[*Stream]struct{} // those whose goroutine runs
}

// New returns a Client. It sends nothing yet.
func New(cfg Config) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Client{
		cfg:     cfg,
		base:    strings.TrimRight(cfg.Server, "/"),
		streams: make(map[*Stream]struct{}),
	}
	if cfg.HTTP == nil {
		c.http = &http.Client{Transport: newTransport()}
	} else {
		own := *cfg.HTTP // a copy: CheckRedirect is ours to set
		c.http = &own
	}
	if c.http.CheckRedirect == nil {
		// A redirected POST becomes a GET.
		c.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
	return c, nil
}

// newTransport is like the default one, but keeps enough connections for a
// backend with many streams, and lets no connection attempt outlast a request.
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

// closeWidth is how many streams Close stops at once.
const closeWidth = 32

// Close stops all streams that c keeps, as [Stream.Stop] does, and waits for
// them. Starts that come later, or are under way, return [ErrClosed]. With a
// context that has ended already, Close ends the heartbeats and leaves the
// slots to lapse.
func (c *Client) Close(ctx context.Context) error {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		errs  []error
		slots = make(chan struct{}, closeWidth)
	)
	all := c.shut()
	for _, s := range all {
		s.halt() // all of them at once: none beats on while others are stopped
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

// shut lets no stream in any more and returns those that are in.
func (c *Client) shut() []*Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	all := make([]*Stream, 0, len(c.streams))
	for s := range c.streams {
		all = append(all, s)
	}
	return all
}

// enter adds s to the streams that Close stops.
func (c *Client) enter(s *Stream) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return ErrClosed
	}
	c.streams[s] = struct{}{}
	return nil
}

func (c *Client) leave(s *Stream) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.streams, s)
}

func (c *Client) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}
