package access

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// published is a JWKS URL without a socket, so that minutes pass in no time. A
// nil answer is an outage; each takes some time.
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
	a := newAuthenticator(t, Config{Tokens: TokenConfig{
		JWKSURL: "https://id.example/jwks", Issuer: "https://id.example", Audience: "streams",
	}})
	a.fetch.client.Transport = p
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() { cancel(); assert.NoError(t, <-done) })
	synctest.Wait()
	return a
}

// until is how long it takes until the credential is taken, or no longer.
func (a *Authenticator) until(t *testing.T, taken bool, credential string) time.Duration {
	t.Helper()
	for began := time.Now(); ; time.Sleep(time.Second) {
		if _, err := a.as(credential); (err == nil) == taken {
			return time.Since(began)
		}
		require.Less(t, time.Since(began), time.Hour)
	}
}

// A key that is no longer published is good for less than a minute, also for a
// token that was checked before.
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

// Nothing but the clock finds a new key for tokens that do not say which it is.
func TestFetcher_NewKeyWithoutID(t *testing.T) {
	old, young := newIssuer(t, "old", "ES256"), newIssuer(t, "young", "ES256")
	p := &published{answer: jwks(t, old)}
	synctest.Test(t, func(t *testing.T) {
		a := p.run(t)
		p.set(jwks(t, old, young), 0)
		assert.Less(t, a.until(t, true, "Bearer "+young.sign(t, goodClaims(), map[string]any{"kid": nil})), time.Minute)
	})
}

// A new key id is fetched for at once, if tokens have not had their fetch.
func TestFetcher_NewKeyID(t *testing.T) {
	old, young := newIssuer(t, "old", "ES256"), newIssuer(t, "young", "ES256")
	p := &published{answer: jwks(t, old)}
	synctest.Test(t, func(t *testing.T) {
		a := p.run(t)
		time.Sleep(fetchApart + time.Second)
		p.set(jwks(t, old, young), 0)
		assert.Zero(t, a.until(t, true, "Bearer "+young.sign(t, goodClaims(), nil)))
	})
}

// Made-up key ids cause one fetch a minute, beside those that come anyway.
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
		asked := int(span / fetchApart)
		assert.LessOrEqual(t, p.count(), asked+int(span/fetchEvery)+1)
		assert.Greater(t, p.count(), asked)
	})
}

// A node that starts while the keys are away has them soon after they are back.
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

// While the URL hangs, tokens with known keys do not wait, and others a moment.
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
		assert.Equal(t, unknownWait, waited)
	})
}

// The same keys fetched again do not make known tokens be checked again.
func TestFetcher_SameKeysStayTheSameSet(t *testing.T) {
	i := newIssuer(t, "k", "ES256")
	p := &published{answer: jwks(t, i)}
	synctest.Test(t, func(t *testing.T) {
		a := p.run(t)
		set := a.fetch.set.Load()
		require.NotNil(t, set)
		time.Sleep(10 * time.Minute)
		assert.Greater(t, p.count(), 5)
		assert.Same(t, set, a.fetch.set.Load())
	})
}

// An error of the HTTP client has the URL in it, and that may have a secret.
func TestFetcher_ErrorsLeaveTheURLOut(t *testing.T) {
	f, err := newFetcher("https://id.example/jwks?key=hunter2", newAuthenticator(t, Config{}).log)
	require.NoError(t, err)
	f.client.Transport = &published{takes: time.Hour}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = f.fetch(ctx)
	require.ErrorIs(t, err, context.Canceled)
	assert.False(t, strings.Contains(err.Error(), "hunter2"), "%v", err)
}
