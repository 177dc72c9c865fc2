package access

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"sync/atomic"
	"time"
)

// A fetcher keeps the keys of a JWKS URL. Tokens wait only for a fetch that a token
// with an unknown key id has caused, and at most unknownWait.
type fetcher struct {
	from          keysConfig
	host          string
	client        *http.Client
	log           *slog.Logger
	minInterval   time.Duration // minimum time between two fetches that tokens request
	set           atomic.Pointer[keyset]
	requested     chan struct{}
	waiting       chan struct{} // an element for each waiting token of all issuers
	ownWaiting    chan struct{} // an element for each waiting token of this issuer
	created       time.Time
	lastRequested atomic.Int64                  // last fetch that tokens requested, in nanoseconds after made
	fetched       atomic.Int64                  // last fetch that succeeded, in nanoseconds after made; 0 if none did
	pending       atomic.Int32                  // fetches in progress or requested
	next          atomic.Pointer[chan struct{}] // closed after the next fetch
	lastLogged    [sha256.Size]byte             // the set whose unused keys were logged last
	etag          string                        // of the current set
	authority     [sha256.Size]byte             // the content of the ca file that client trusts
}

// A key that is no longer published is accepted for fetchEvery, fetchJitter and
// fetchTimeout at most, unless the URL does not answer; they are less than a minute.
const (
	fetchInterval       = 48 * time.Second
	fetchJitter         = 4 * time.Second
	minFetchInterval    = time.Minute
	firstFetchRetry     = time.Second // the first time, while there are no keys at all
	fetchTimeout        = 5 * time.Second
	unknownKeyTimeout   = time.Second
	maxWaiting          = 64      // tokens with unknown ids that wait at the same time; others are rejected immediately
	maxWaitingPerIssuer = 16      // those of one issuer
	maxJWKS             = 1 << 20 // bytes
	maxKeyID            = 256     // bytes
)

func newFetcher(from keysConfig, transport http.RoundTripper, waiting chan struct{}, log *slog.Logger) (*fetcher, error) {
	u, err := url.Parse(from.url)
	if err != nil {
		return nil, errors.New("the JWKS URL is not a URL")
	}
	f := &fetcher{
		from: from, host: u.Host, log: log, minInterval: minFetchInterval, created: time.Now(),
		requested: make(chan struct{}, 1), waiting: waiting, ownWaiting: make(chan struct{}, maxWaitingPerIssuer),
		client: &http.Client{Timeout: fetchTimeout, Transport: transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Host != u.Host || r.URL.Scheme != u.Scheme || len(via) > 3 {
				return errors.New("the JWKS URL redirects elsewhere")
			}
			return nil
		}},
	}
	if err := f.readAuthority(); err != nil {
		return nil, err
	}
	f.pending.Store(1) // run begins with a fetch, for which earlier tokens wait
	f.rotate()
	return f, nil
}

// readAuthority makes the client trust what the ca file has now, in place of the
// system's roots.
func (f *fetcher) readAuthority() error {
	if f.from.ca == "" {
		return nil
	}
	content, err := os.ReadFile(f.from.ca)
	if err != nil {
		return fmt.Errorf("ca: %w", err)
	}
	sum := sha256.Sum256(content)
	if sum == f.authority {
		return nil
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(content) {
		return fmt.Errorf("ca: %s has no PEM certificate", f.from.ca)
	}
	base, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return errors.New("ca: the HTTP transport is of another kind")
	}
	transport := base.Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	f.client.CloseIdleConnections()
	f.client.Transport, f.authority = transport, sum
	return nil
}

// rotate wakes the tokens that wait for a fetch, and creates the channel for the next one.
func (f *fetcher) rotate() {
	next := make(chan struct{})
	if old := f.next.Swap(&next); old != nil {
		close(*old)
	}
}

// run fetches immediately, then in intervals and on request, until ctx ends. While there
// are no keys the intervals are shorter, because viewers wait.
func (f *fetcher) run(ctx context.Context) error {
	defer f.client.CloseIdleConnections()
	again := firstFetchRetry
	for {
		f.refresh(ctx)
		f.pending.Add(-1)
		f.rotate()
		wait := fetchInterval + rand.N(fetchJitter)
		if f.set.Load() == nil {
			wait, again = again, min(2*again, fetchInterval)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
			f.pending.Add(1)
		case <-f.requested: // already counted in pending
		}
	}
}

// refresh fetches once. If the keys have not changed, the set stays the same, so that cached
// tokens remain valid.
func (f *fetcher) refresh(ctx context.Context) {
	if err := f.readAuthority(); err != nil {
		f.log.Error("the changed ca file is not used; what was read before stays in force", "err", err)
	}
	old := f.set.Load()
	set, etag, err := f.fetch(ctx, old)
	if set != nil && set.sum != f.lastLogged {
		f.lastLogged = set.sum
		set.log(f.log)
	}
	if err != nil {
		if ctx.Err() == nil {
			f.log.Error("cannot fetch the keys of viewers' tokens; those fetched before stay in force",
				"host", f.host, "err", err)
		}
		return
	}
	f.fetched.Store(max(int64(time.Since(f.created)), 1))
	f.etag = etag
	if old == nil || old.sum != set.sum {
		f.set.Store(set)
	}
}

// fetch returns the current set of the URL: old if it has not changed. A set without a
// usable key is returned with the error.
func (f *fetcher) fetch(ctx context.Context, old *keyset) (set *keyset, etag string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.from.url, nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Accept", "application/json")
	if old != nil && f.etag != "" {
		req.Header.Set("If-None-Match", f.etag)
	}
	resp, err := f.client.Do(req)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		err = failed.Err // without the URL, which may have a secret in its query
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return nil, "", fmt.Errorf("%w: to trust a private authority, set ca in an auth file, or SSL_CERT_FILE in the environment", err)
	}
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = resp.Body.Close() }() // the body was only read
	switch {
	case resp.StatusCode == http.StatusNotModified && old != nil && f.etag != "":
		return old, f.etag, nil
	case resp.StatusCode != http.StatusOK:
		return nil, "", fmt.Errorf("the JWKS URL answers %s", resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxJWKS+1))
	if err != nil {
		return nil, "", err
	}
	if len(body) > maxJWKS {
		return nil, "", fmt.Errorf("the JWKS has more than %d bytes", maxJWKS)
	}
	set, err = readKeyset(body)
	return set, resp.Header.Get("ETag"), err
}

func (f *fetcher) current() *keyset { return f.set.Load() }

// lastFetched is when the keys were last fetched, zero if they never were.
func (f *fetcher) lastFetched() time.Time {
	if after := f.fetched.Load(); after > 0 {
		return f.created.Add(time.Duration(after))
	}
	return time.Time{}
}

// lookup is the key set for a token of that key id, nil if none was ever fetched.
// An unknown id requests a fetch and waits for it up to unknownWait. The number of waiting
// tokens is bounded, so that tokens with invented ids do not fill the service.
func (f *fetcher) lookup(ctx context.Context, kid string) *keyset {
	next, set := *f.next.Load(), f.set.Load()
	if set != nil && (len(kid) > maxKeyID || set.has(kid)) {
		return set
	}
	if f.claimFetch() {
		f.pending.Add(1)
		select {
		case f.requested <- struct{}{}:
		default: // full, because run has ended
			f.pending.Add(-1)
		}
	}
	if f.pending.Load() == 0 {
		return f.set.Load() // there is no fetch to wait for, or it has ended
	}
	for _, slots := range []chan struct{}{f.ownWaiting, f.waiting} {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			return set
		}
	}
	ctx, cancel := context.WithTimeout(ctx, unknownKeyTimeout)
	defer cancel()
	select {
	case <-next:
	case <-ctx.Done():
	}
	return f.set.Load()
}

// claimFetch reports whether a token may request a fetch. All tokens together may request
// one per minInterval; the fetch at the start was the first.
func (f *fetcher) claimFetch() bool {
	now, last := int64(time.Since(f.created)), f.lastRequested.Load()
	return now-last >= int64(f.minInterval) && f.lastRequested.CompareAndSwap(last, now)
}
