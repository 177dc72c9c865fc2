package access

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// idp is an identity provider with a JWKS URL.
type idp struct {
	*httptest.Server
	mu      sync.Mutex
	answer  []byte // nil is an outage
	fetches atomic.Int32
}

func newIDP(t *testing.T, answer []byte) *idp {
	t.Helper()
	p := &idp{answer: answer}
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		p.fetches.Add(1)
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.answer == nil {
			w.WriteHeader(http.StatusBadGateway)
		}
		_, _ = w.Write(p.answer)
	}))
	t.Cleanup(p.Close)
	return p
}

func (p *idp) publish(answer []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer = answer
}

// fetcher returns the only source of keys with a URL.
func (a *Authenticator) fetcher() *fetcher {
	for _, source := range a.viewers.issuers.Load().sources {
		if f, ok := source.(*fetcher); ok {
			return f
		}
	}
	return nil
}

// runWith runs an Authenticator with the keys of p.
func (p *idp) runWith(t *testing.T, apart time.Duration) *Authenticator {
	t.Helper()
	a := newAuthenticator(t, Config{Tokens: TokenConfig{
		JWKSURL: p.URL, Issuer: "https://id.example", Audience: "streams",
	}})
	a.fetcher().minInterval = apart
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() { cancel(); assert.NoError(t, <-done) })
	return a
}

func TestFetcher_Rotation(t *testing.T) {
	old, young := newIssuer(t, "old", "ES256"), newIssuer(t, "young", "EdDSA")
	p := newIDP(t, jwks(t, old))
	a := p.runWith(t, time.Millisecond)
	oldToken, youngToken := "Bearer "+old.sign(t, goodClaims(), nil), "Bearer "+young.sign(t, goodClaims(), nil)
	_, err := a.as(oldToken)
	require.NoError(t, err, "the first waits for the first fetch")
	_, err = a.as(youngToken)
	require.ErrorIs(t, err, ErrCredential)
	p.publish(jwks(t, old, young))
	require.Eventually(t, func() bool { // the token causes the fetch
		_, err := a.as(youngToken)
		return err == nil
	}, time.Minute, 5*time.Millisecond)
	p.publish(jwks(t, young))
	unknown := "Bearer " + newIssuer(t, "unknown", "ES256").sign(t, goodClaims(), nil)
	require.Eventually(t, func() bool {
		_, _ = a.as(unknown) // causes a fetch of the keys
		_, err := a.as(oldToken)
		return err != nil
	}, time.Minute, 5*time.Millisecond, "a key that is gone is good no longer, even for a token that was known")
	p.publish(nil)
	for range 3 {
		_, _ = a.as(unknown)
	}
	_, err = a.as(youngToken)
	require.NoError(t, err, "an outage leaves the keys that were fetched")
}

func TestFetcher_OutageAtStart(t *testing.T) {
	i := newIssuer(t, "k", "ES256")
	p := newIDP(t, nil)
	a := p.runWith(t, 50*time.Millisecond)
	token := "Bearer " + i.sign(t, goodClaims(), nil)
	_, err := a.as(token)
	require.ErrorIs(t, err, ErrUnavailable, "the token may be good")
	p.publish(jwks(t, i))
	require.Eventually(t, func() bool {
		_, err := a.as(token)
		return err == nil
	}, time.Minute, 5*time.Millisecond)
}

// Many unknown key ids cause one fetch, and the requests do not wait.
func TestFetcher_UnknownKeyIDs(t *testing.T) {
	i, stranger := newIssuer(t, "k", "ES256"), newIssuer(t, "x", "ES256")
	p := newIDP(t, jwks(t, i))
	a := p.runWith(t, time.Hour)
	good := "Bearer " + i.sign(t, goodClaims(), nil)
	_, err := a.as(good)
	require.NoError(t, err)
	began := time.Now()
	var wg sync.WaitGroup
	for n := range 100 {
		token := "Bearer " + stranger.sign(t, goodClaims(), map[string]any{"kid": fmt.Sprint("unknown-", n)})
		wg.Go(func() {
			_, err := a.as(token)
			assert.ErrorIs(t, err, ErrCredential)
		})
	}
	wg.Wait()
	assert.EqualValues(t, 1, p.fetches.Load(), "the one at the start")
	assert.Less(t, time.Since(began), unknownKeyTimeout, "nobody waited")
	_, err = a.as(good)
	require.NoError(t, err)
}

func TestFetcher_RefusesOddAnswers(t *testing.T) {
	elsewhere := newIDP(t, jwks(t, newIssuer(t, "evil", "ES256")))
	for name, h := range map[string]http.HandlerFunc{
		"redirect": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL, http.StatusFound) },
		"bomb": func(w http.ResponseWriter, _ *http.Request) {
			for range maxJWKS/4096 + 2 {
				_, _ = w.Write(make([]byte, 4096))
			}
		},
		"html":   func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) },
		"status": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
	} {
		s := httptest.NewServer(h)
		f, err := newFetcher(keysConfig{url: s.URL}, nil, make(chan struct{}, 1), slog.New(slog.DiscardHandler))
		require.NoError(t, err)
		_, _, err = f.fetch(t.Context(), nil)
		require.Error(t, err, name)
		s.Close()
	}
	assert.Zero(t, elsewhere.fetches.Load())
}
