package access

import (
	"context"
	"crypto/tls"
	"encoding/pem"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The auth file changes while the service runs.
func TestVectors_Reload(t *testing.T) { // V25
	a, signA := signer(t, "a", "ES256")
	b, signB := signer(t, "b", "ES256")
	const first = `{name: a, issuer: "https://a.example", jwks: {url: "https://a.example/keys"}, audience: {values: [streams]}, userPrefix: "a|"}`
	const second = `{name: b, issuer: "https://b.example", jwks: {url: "https://b.example/keys"}, audience: {values: [streams]}, userPrefix: "b|"}`
	both := "issuers: [" + first + ", " + second + "]"
	fromA, fromB := members{"iss": "https://a.example", "sub": "maya", "aud": "streams"}, members{"iss": "https://b.example", "sub": "maya", "aud": "streams"}
	synctest.Test(t, func(t *testing.T) {
		w := newWeb(map[string][]byte{"https://a.example/keys": keySet(t, a.jwk(t))})
		s := w.start(t, both)
		tokenA, tokenB := signA(fromA, nil), signB(fromB, nil)
		assert.Equal(t, "a|maya", s.user(t, tokenA))
		_, err := s.as("Bearer " + tokenB)
		require.ErrorIs(t, err, ErrUnavailable, "the provider is away, and nothing was fetched yet")
		w.publish("https://b.example/keys", keySet(t, b.jwk(t)))
		time.Sleep(time.Minute)
		assert.Equal(t, "b|maya", s.user(t, tokenB))
		w.publish("https://b.example/keys", nil)
		time.Sleep(10 * time.Minute)
		assert.Equal(t, "b|maya", s.user(t, signB(fromB, nil)), "an outage leaves the keys that were fetched")
		w.publish("https://b.example/keys", []byte("<!doctype html>"))
		time.Sleep(time.Minute)
		w.publish("https://b.example/keys", []byte(`{"keys":[]}`))
		time.Sleep(time.Minute)
		assert.Equal(t, "b|maya", s.user(t, signB(fromB, nil)), "so does an answer without keys")
		assert.Contains(t, s.log.String(), "it is a web page")
		assert.Contains(t, s.log.String(), "if the provider signs with HS256")

		tokenA, tokenB = signA(fromA, nil), signB(fromB, nil)
		fetched := w.count()
		for _, bad := range []string{"issuers: [", "", "issuers:", both + "\nmore: 1", strings.Replace(both, "name: b", "name: a", 1),
			strings.Replace(both, `jwks: {url: "https://b.example/keys"}`, "jwks: {file: /none}", 1)} {
			s.edit(t, bad)
			assert.Equal(t, "a|maya", s.user(t, tokenA), "%s", bad)
			assert.Equal(t, "b|maya", s.user(t, tokenB), "%s", bad)
		}
		assert.Contains(t, s.log.String(), "issuer 2 (a): the name is used twice")

		s.edit(t, "issuers: ["+first+"]")
		s.rejects(t, tokenB, "its issuer is not one of those configured here")
		assert.Equal(t, "a|maya", s.user(t, tokenA))
		before := w.count("https://b.example/keys")
		time.Sleep(10 * time.Minute)
		assert.Equal(t, before, w.count("https://b.example/keys"), "nothing is fetched for an issuer that was removed")
		assert.Greater(t, w.count(), fetched)

		tokenA = signA(fromA, nil)
		assert.Equal(t, "a|maya", s.user(t, tokenA))
		s.edit(t, strings.Replace("issuers: ["+first+"]", "streams", "films", 1))
		s.rejects(t, tokenA, "it is for another audience")
		s.edit(t, "issuers: []")
		s.rejects(t, tokenA, "its issuer is not one of those configured here")
		w.publish("https://b.example/keys", keySet(t, b.jwk(t)))
		s.edit(t, both)
		assert.Equal(t, "b|maya", s.user(t, signB(fromB, nil)), "a new issuer's keys are fetched at once")
		s.rejects(t, strings.Repeat("eyJhbGciOiJSU0EtT0FFUCJ9.", 4)+"AAAA", "it is encrypted (a JWE)")
	})
}

// Paths of key files are relative to the auth file, and changes of the files take effect.
func TestReload_FilesOfAnIssuer(t *testing.T) {
	old, young := newIssuer(t, "old", "ES256"), newIssuer(t, "young", "ES256")
	keys := file(t, jwks(t, old))
	name := keys[strings.LastIndex(keys, "/")+1:]
	replace(t, keys+".yaml", []byte(strings.Replace(oneIssuer(""), `url: "https://p.example/keys"`, "file: "+name, 1)))
	synctest.Test(t, func(t *testing.T) {
		a := newAuthenticator(t, Config{AuthFile: keys + ".yaml"})
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- a.Run(ctx) }()
		defer func() { cancel(); assert.NoError(t, <-done) }()
		oldToken, youngToken := "Bearer "+old.sign(t, claimsOf(goodFor(nil)), nil), "Bearer "+young.sign(t, claimsOf(goodFor(nil)), nil)
		_, err := a.as(oldToken)
		require.NoError(t, err)
		_, err = a.as(youngToken)
		require.ErrorContains(t, err, "its key is not one of its issuer's")
		replace(t, keys, jwks(t, young))
		time.Sleep(2*filesEvery + time.Millisecond)
		synctest.Wait()
		_, err = a.as(youngToken)
		require.NoError(t, err)
		_, err = a.as(oldToken)
		require.ErrorIs(t, err, ErrCredential, "also for a token that was checked")
	})
}

// Unchanged keys are not transferred again (304).
func TestFetcher_UnchangedKeys(t *testing.T) {
	key, sign := signer(t, "k", "ES256")
	var sent, unchanged int
	synctest.Test(t, func(t *testing.T) {
		w := newWeb(map[string][]byte{"https://p.example/keys": keySet(t, key.jwk(t))})
		w.answer = func(r *http.Request) *http.Response {
			if r.Header.Get("If-None-Match") == `"one"` {
				unchanged++
				return response(r, http.StatusNotModified, nil)
			}
			sent++
			resp := response(r, http.StatusOK, w.pages["https://p.example/keys"])
			resp.Header.Set("ETag", `"one"`)
			return resp
		}
		s := w.start(t, oneIssuer(""))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		assert.Equal(t, 1, sent)
		assert.Greater(t, unchanged, 10)
		assert.Less(t, time.Since(s.Issuers()[1].Fetched), time.Minute)
		assert.Equal(t, "maya", s.user(t, sign(goodFor(nil), nil)))
	})
}

// The number of tokens that wait for the keys of one issuer is bounded.
func TestFetcher_WaitersOfOneIssuer(t *testing.T) {
	_, sign := signer(t, "k", "ES256")
	synctest.Test(t, func(t *testing.T) {
		s := newWeb(map[string][]byte{"https://p.example/keys": nil}).start(t, oneIssuer(""))
		f := s.fetcher()
		f.pending.Add(1) // a fetch that does not return
		for range 3 * maxWaitingPerIssuer {
			go func() {
				_, err := s.as("Bearer " + sign(goodFor(nil), nil))
				assert.ErrorIs(t, err, ErrUnavailable)
			}()
		}
		synctest.Wait()
		assert.Len(t, f.ownWaiting, maxWaitingPerIssuer)
		assert.Len(t, s.viewers.waiting, maxWaitingPerIssuer)
		time.Sleep(2 * unknownKeyTimeout)
		assert.Empty(t, f.ownWaiting)
		f.pending.Add(-1)
	})
}

// A provider with a certificate of a private authority can be reached only with ca.
func TestFetcher_PrivateAuthority(t *testing.T) {
	key, _ := signer(t, "k", "ES256")
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(keySet(t, key.jwk(t))) }))
	defer server.Close()
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for name, c := range map[string]struct {
		ca string
		ok bool
	}{
		"system": {"", false}, "ca": {file(t, authority), true}, "another": {file(t, otherAuthority(t)), false},
	} {
		f, err := newFetcher(keysConfig{url: server.URL, ca: c.ca}, nil, make(chan struct{}, 1), slog.New(slog.DiscardHandler))
		require.NoError(t, err, name)
		f.refresh(t.Context())
		assert.Equal(t, c.ok, f.current() != nil, name)
		if _, _, err = f.fetch(t.Context(), nil); !c.ok {
			require.ErrorContains(t, err, "set ca in an auth file")
		}
		if c.ca != "" {
			assert.NotNil(t, f.client.Transport.(*http.Transport).Proxy, "HTTPS_PROXY is honoured")
		}
		if name == "another" { // a changed file is used at the next fetch
			replace(t, c.ca, authority)
			f.refresh(t.Context())
			assert.NotNil(t, f.current())
			replace(t, c.ca, []byte("x"))
			f.refresh(t.Context())
			assert.Equal(t, tls.VersionTLS12, int(f.client.Transport.(*http.Transport).TLSClientConfig.MinVersion))
		}
	}
	for content, want := range map[string]string{"x": "has no PEM certificate", "": "has no PEM certificate"} {
		_, err := newFetcher(keysConfig{url: server.URL, ca: file(t, []byte(content))}, nil, nil, slog.New(slog.DiscardHandler))
		require.ErrorContains(t, err, want)
	}
}

func otherAuthority(t *testing.T) []byte {
	t.Helper()
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificateOf(t, newIssuer(t, "x", "ES256"))})
}
