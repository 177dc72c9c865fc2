package access

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// published is a JWKS URL without a socket, for tests in virtual time. A nil answer is an
// outage. Each answer takes some time.
type published struct {
	mu      sync.Mutex
	answer  []byte
	takes   time.Duration
	fetches int
}

func (p *published) set(answer []byte, takes time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.answer, p.takes = answer, takes
}

func (p *published) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.fetches
}

func (p *published) RoundTrip(r *http.Request) (*http.Response, error) {
	p.mu.Lock()
	p.fetches++
	answer, takes := p.answer, p.takes
	p.mu.Unlock()
	select {
	case <-r.Context().Done():
		return nil, r.Context().Err()
	case <-time.After(takes):
	}
	status := http.StatusOK
	if answer == nil {
		status = http.StatusBadGateway
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(bytes.NewReader(answer)), Request: r}, nil
}

// run runs an Authenticator on p's keys until the bubble of t ends.
func (p *published) run(t *testing.T) *Authenticator {
	t.Helper()
	a := newAuthenticator(t, Config{transport: p, Tokens: TokenConfig{
		JWKSURL: "https://id.example/jwks", Issuer: "https://id.example", Audience: "streams",
	}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() { cancel(); assert.NoError(t, <-done) })
	synctest.Wait()
	return a
}

// until returns the time until the credential is accepted, or no longer accepted.
func (a *Authenticator) until(t *testing.T, taken bool, credential string) time.Duration {
	t.Helper()
	for began := time.Now(); ; time.Sleep(time.Second) {
		if _, err := a.as(credential); (err == nil) == taken {
			return time.Since(began)
		}
		require.Less(t, time.Since(began), time.Hour)
	}
}

// A key that is no longer published is valid for less than a minute, also for a cached token.
func TestFetcher_RemovedKey(t *testing.T) {
	old, young := newIssuer(t, "old", "ES256"), newIssuer(t, "young", "ES256")
	p := &published{answer: jwks(t, old, young), takes: fetchTimeout - time.Second}
	synctest.Test(t, func(t *testing.T) {
		a := p.run(t)
		token := "Bearer " + old.sign(t, goodClaims(), nil)
		a.until(t, true, token)
		p.set(jwks(t, young), fetchTimeout-time.Second)
		assert.Less(t, a.until(t, false, token), time.Minute)
	})
}

// A new key for tokens without a key id is found by the periodic fetch.
func TestFetcher_NewKeyWithoutID(t *testing.T) {
	old, young := newIssuer(t, "old", "ES256"), newIssuer(t, "young", "ES256")
	p := &published{answer: jwks(t, old)}
	synctest.Test(t, func(t *testing.T) {
		a := p.run(t)
		p.set(jwks(t, old, young), 0)
		assert.Less(t, a.until(t, true, "Bearer "+young.sign(t, goodClaims(), map[string]any{"kid": nil})), time.Minute)
	})
}

// A token with a new key id causes a fetch at once, unless tokens have caused one recently.
func TestFetcher_NewKeyID(t *testing.T) {
	old, young := newIssuer(t, "old", "ES256"), newIssuer(t, "young", "ES256")
	p := &published{answer: jwks(t, old)}
	synctest.Test(t, func(t *testing.T) {
		a := p.run(t)
		time.Sleep(minFetchInterval + time.Second)
		p.set(jwks(t, old, young), 0)
		assert.Zero(t, a.until(t, true, "Bearer "+young.sign(t, goodClaims(), nil)))
	})
}

// Unknown key ids cause one fetch per minute in addition to the periodic ones.
func TestFetcher_UnknownKeyIDsForHours(t *testing.T) {
	i, stranger := newIssuer(t, "k", "ES256"), newIssuer(t, "made-up", "ES256")
	p := &published{answer: jwks(t, i)}
	synctest.Test(t, func(t *testing.T) {
		a := p.run(t)
		token := "Bearer " + stranger.sign(t, goodClaims(), nil)
		const span = 2 * time.Hour
		for began := time.Now(); time.Since(began) < span; time.Sleep(500 * time.Millisecond) {
			_, err := a.as(token)
			require.Error(t, err)
		}
		asked := int(span / minFetchInterval)
		assert.LessOrEqual(t, p.count(), asked+int(span/fetchInterval)+1)
		assert.Greater(t, p.count(), asked)
	})
}

// A node that starts while the URL is unavailable fetches the keys soon after it is available.
func TestFetcher_ShortOutageAtStart(t *testing.T) {
	i := newIssuer(t, "k", "ES256")
	p := &published{}
	synctest.Test(t, func(t *testing.T) {
		a := p.run(t)
		token := "Bearer " + i.sign(t, goodClaims(), nil)
		time.Sleep(2 * time.Second)
		_, err := a.as(token)
		require.ErrorIs(t, err, ErrUnavailable)
		p.set(jwks(t, i), 0)
		assert.LessOrEqual(t, a.until(t, true, token), 4*time.Second)
	})
	long := &published{}
	synctest.Test(t, func(t *testing.T) {
		long.run(t)
		time.Sleep(time.Hour)
	})
	assert.Less(t, long.count(), 90, "an outage is not answered by a storm")
}

// While the URL hangs, tokens with known keys do not wait, and others wait briefly.
func TestFetcher_SlowURL(t *testing.T) {
	i, stranger := newIssuer(t, "k", "ES256"), newIssuer(t, "made-up", "ES256")
	p := &published{answer: jwks(t, i)}
	synctest.Test(t, func(t *testing.T) {
		a := p.run(t)
		good, unknown := "Bearer "+i.sign(t, goodClaims(), nil), "Bearer "+stranger.sign(t, goodClaims(), nil)
		p.set(nil, time.Hour)
		var waited time.Duration
		for range 300 {
			began := time.Now()
			_, err := a.as(good)
			require.NoError(t, err)
			a.viewers.known.Purge()
			assert.Zero(t, time.Since(began))
			_, err = a.as(unknown)
			require.ErrorIs(t, err, ErrCredential)
			waited = max(waited, time.Since(began))
			time.Sleep(time.Second)
		}
		assert.Equal(t, unknownKeyTimeout, waited)
	})
}

// A fetch of the same keys keeps the cached tokens.
func TestFetcher_SameKeysStayTheSameSet(t *testing.T) {
	i := newIssuer(t, "k", "ES256")
	p := &published{answer: jwks(t, i)}
	synctest.Test(t, func(t *testing.T) {
		a := p.run(t)
		set := a.fetcher().set.Load()
		require.NotNil(t, set)
		time.Sleep(10 * time.Minute)
		assert.Greater(t, p.count(), 5)
		assert.Same(t, set, a.fetcher().set.Load())
	})
}

// An error of the HTTP client contains the URL, which may contain a secret.
func TestFetcher_ErrorsLeaveTheURLOut(t *testing.T) {
	f, err := newFetcher(keysConfig{url: "https://id.example/jwks?key=hunter2"}, &published{takes: time.Hour},
		make(chan struct{}, 1), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err = f.fetch(ctx, nil)
	require.ErrorIs(t, err, context.Canceled)
	assert.False(t, strings.Contains(err.Error(), "hunter2"), "%v", err)
}
