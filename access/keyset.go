package access

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
)

// keyset is the public keys of one reading of a JWKS.
type keyset struct {
	keys keyfunc.Keyfunc
	kids map[string]bool
	sum  [sha256.Size]byte // of the JWKS
}

const (
	maxSetKeys = 20 // a token without a kid is tried with each
	minRSABits = 2048
)

// readKeyset reads a JWKS. Keys of kinds that sign no tokens of ours are left
// out, symmetric ones above all: what a server publishes is no secret.
func readKeyset(content []byte) (*keyset, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(content, &set); err != nil {
		return nil, fmt.Errorf("not a JWKS: %w", err)
	}
	if len(set.Keys) > maxSetKeys {
		return nil, fmt.Errorf("a JWKS of %d keys: want at most %d", len(set.Keys), maxSetKeys)
	}
	store, out := jwkset.NewMemoryStorage(), &keyset{kids: map[string]bool{}, sum: sha256.Sum256(content)}
	for _, raw := range set.Keys {
		key, err := jwkset.NewJWKFromRawJSON(raw, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
		if err != nil || !signs(key) {
			continue
		}
		if err := store.KeyWrite(context.Background(), key); err != nil {
			return nil, fmt.Errorf("a key of the JWKS: %w", err)
		}
		out.kids[key.Marshal().KID] = true
	}
	if len(out.kids) == 0 {
		return nil, errors.New("the JWKS has no RSA key of 2048 bits or more, no P-256 key and no Ed25519 key")
	}
	var err error
	out.keys, err = keyfunc.New(keyfunc.Options{Storage: store})
	return out, err
}

// signs reports whether a key is one that viewers' tokens may be signed with.
func signs(key jwkset.JWK) bool {
	if use := key.Marshal().USE; use != "" && use != jwkset.UseSig {
		return false
	}
	switch k := key.Key().(type) {
	case *rsa.PublicKey:
		return k.N.BitLen() >= minRSABits
	case *ecdsa.PublicKey:
		return k.Curve.Params().BitSize == 256
	case ed25519.PublicKey:
		return true
	}
	return false
}

// fetcher keeps the keys of a JWKS URL. Tokens wait for nothing but a fetch that
// a token with an unknown key id has caused, and for that only a moment.
type fetcher struct {
	url, host string
	client    *http.Client
	log       *slog.Logger
	apart     time.Duration // at least, between two fetches that tokens ask for
	set       atomic.Pointer[keyset]
	ask       chan struct{}
	calls     chan struct{} // holds one for each token that waits
	made      time.Time
	asked     atomic.Int64                  // the last fetch that tokens asked for, in nanoseconds after made
	pending   atomic.Int32                  // fetches that are under way or asked for
	next      atomic.Pointer[chan struct{}] // closed after the next fetch
}

// A key that is no longer published is good for fetchEvery and fetchTimeout at
// most, unless the URL does not answer; they are less than a minute.
const (
	fetchEvery   = 50 * time.Second
	fetchApart   = time.Minute
	fetchAgain   = time.Second // the first time, while there are no keys at all
	fetchTimeout = 5 * time.Second
	unknownWait  = time.Second
	waiters      = 64      // more tokens with unknown ids are refused at once
	maxJWKS      = 1 << 20 // bytes
)

func newFetcher(address string, log *slog.Logger) (*fetcher, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.User != nil {
		return nil, errors.New("the JWKS URL is no URL, or has a user in it: want https://HOST/PATH")
	}
	if u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return nil, fmt.Errorf("the JWKS URL of %s is not https: whoever is in between could make tokens", u.Host)
	}
	f := &fetcher{
		url: address, host: u.Host, log: log, apart: fetchApart, made: time.Now(),
		ask: make(chan struct{}, 1), calls: make(chan struct{}, waiters),
		client: &http.Client{Timeout: fetchTimeout, CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if r.URL.Host != u.Host || r.URL.Scheme != u.Scheme || len(via) > 3 {
				return errors.New("the JWKS URL redirects elsewhere")
			}
			return nil
		}},
	}
	f.pending.Store(1) // run begins with a fetch: tokens that come before may wait for it
	f.turn()
	return f, nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// turn wakes who waits for a fetch, and makes the next to wait for.
func (f *fetcher) turn() {
	next := make(chan struct{})
	if old := f.next.Swap(&next); old != nil {
		close(*old)
	}
}

// run fetches at once, then in intervals and when asked, until ctx ends. While
// there are no keys it does not wait for the whole interval, because viewers do.
func (f *fetcher) run(ctx context.Context) error {
	again := fetchAgain
	for {
		f.refresh(ctx)
		f.pending.Add(-1)
		f.turn()
		wait := fetchEvery
		if f.set.Load() == nil {
			wait, again = again, min(2*again, fetchEvery)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
			f.pending.Add(1)
		case <-f.ask: // is counted by who asked
		}
	}
}

// refresh fetches once. Keys that have not changed stay the same set, with the
// tokens that were checked by it.
func (f *fetcher) refresh(ctx context.Context) {
	set, err := f.fetch(ctx)
	old := f.set.Load()
	switch {
	case err == nil && (old == nil || old.sum != set.sum):
		f.set.Store(set)
	case err != nil && ctx.Err() == nil:
		f.log.Error("cannot fetch the keys of viewers' tokens; those fetched before stay in force",
			"host", f.host, "err", err)
	}
}

func (f *fetcher) fetch(ctx context.Context) (*keyset, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	resp, err := f.client.Do(req)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return nil, failed.Err // without the URL, which may have a secret in its query
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the JWKS URL answers %s", resp.Status)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxJWKS+1))
	if err != nil {
		return nil, err
	}
	if len(body) > maxJWKS {
		return nil, fmt.Errorf("the JWKS has more than %d bytes", maxJWKS)
	}
	return readKeyset(body)
}

// current is the key set for a token of that key id, nil if nothing was ever
// fetched. An unknown id asks for a fetch, and waits a moment for it if it comes
// at once: whoever makes ids up must not fill the service with requests.
func (f *fetcher) current(ctx context.Context, kid string) *keyset {
	next, set := *f.next.Load(), f.set.Load()
	if set != nil && (kid == "" || set.kids[kid]) {
		return set
	}
	if f.mayAsk() {
		f.pending.Add(1)
		select {
		case f.ask <- struct{}{}:
		default: // is not taken from: run has ended
			f.pending.Add(-1)
		}
	}
	if f.pending.Load() == 0 {
		return f.set.Load() // nothing to wait for, or no longer
	}
	select {
	case f.calls <- struct{}{}:
		defer func() { <-f.calls }()
	default:
		return set
	}
	ctx, cancel := context.WithTimeout(ctx, unknownWait)
	defer cancel()
	select {
	case <-next:
	case <-ctx.Done():
	}
	return f.set.Load()
}

// mayAsk takes the one fetch that all tokens together may ask for in a while.
// The fetch at the start was the first.
func (f *fetcher) mayAsk() bool {
	now, last := int64(time.Since(f.made)), f.asked.Load()
	return now-last >= int64(f.apart) && f.asked.CompareAndSwap(last, now)
}
