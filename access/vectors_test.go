package access

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/testlog"
)

// The tests use key sets, tokens and configurations like those of identity providers.

// web serves the URLs of providers' keys in virtual time.
type web struct {
	mu      sync.Mutex
	pages   map[string][]byte // by address; nil is an outage
	fetches map[string]int
	answer  func(*http.Request) *http.Response // instead of pages; nil or a nil answer for none
}

func newWeb(pages map[string][]byte) *web {
	w := &web{pages: map[string][]byte{}, fetches: map[string]int{}}
	maps.Copy(w.pages, pages)
	return w
}

func (w *web) publish(address string, page []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pages[address] = page
}

// count returns the number of fetches, of all URLs or of those given.
func (w *web) count(addresses ...string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for address, fetches := range w.fetches {
		for _, a := range addresses {
			if a == address {
				n += fetches
			}
		}
		if len(addresses) == 0 {
			n += fetches
		}
	}
	return n
}

func (w *web) RoundTrip(r *http.Request) (*http.Response, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fetches[r.URL.String()]++
	if w.answer != nil {
		if resp := w.answer(r); resp != nil {
			return resp, nil
		}
	}
	page, ok := w.pages[r.URL.String()]
	status := http.StatusOK
	if !ok || page == nil {
		status = http.StatusBadGateway
	}
	return response(r, status, page), nil
}

func response(r *http.Request, status int, body []byte) *http.Response {
	return &http.Response{
		StatusCode: status, Status: fmt.Sprint(status), Header: http.Header{}, Request: r,
		Body: io.NopCloser(strings.NewReader(string(body))),
	}
}

// A site is a running Authenticator in virtual time.
type site struct {
	*Authenticator
	web  *web
	log  *testlog.Buffer
	path string // of auth.yaml
}

// start runs an Authenticator on an auth file until the bubble of t ends.
func (w *web) start(t *testing.T, authFile string) *site {
	t.Helper()
	s := &site{web: w, log: &testlog.Buffer{}, path: file(t, []byte(authFile))}
	s.Authenticator = newAuthenticator(t, Config{
		AuthFile: s.path, transport: w, Log: slog.New(slog.NewTextHandler(s.log, nil)),
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() { cancel(); assert.NoError(t, <-done) })
	synctest.Wait()
	return s
}

// edit replaces the auth file and waits until it was looked at.
func (s *site) edit(t *testing.T, authFile string) {
	t.Helper()
	replace(t, s.path, []byte(authFile))
	time.Sleep(2*filesEvery + time.Millisecond)
	synctest.Wait()
}

// user returns the user id of a token.
func (s *site) user(t *testing.T, token string) string {
	t.Helper()
	caller, err := s.as("Bearer " + token)
	require.NoError(t, err)
	return caller.Name
}

// rejects checks that a token is rejected with that text and without a fetch.
func (s *site) rejects(t *testing.T, token, text string) {
	t.Helper()
	before := s.web.count()
	caller, err := s.as("Bearer " + token)
	require.ErrorIs(t, err, ErrCredential, "%v", caller)
	require.ErrorContains(t, err, text)
	assert.Zero(t, caller)
	synctest.Wait()
	assert.Equal(t, before, s.web.count(), "a fetch for: %s", text)
}

// claimsOf returns claims that are valid now, changed by others. nil removes a claim.
func claimsOf(claims map[string]any) jwt.MapClaims {
	return with(map[string]any{"iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}, claims)
}

// A vector is a provider with its keys, its configuration, tokens that must be accepted and tokens
// that must be rejected.
type vector struct {
	authFile string
	pages    map[string][]byte
	tokens   func() map[string]string // token by user
	rejected func() map[string]string // text of the rejection by token
	more     func(*testing.T, *site)
}

func (v vector) run(t *testing.T) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newWeb(v.pages).start(t, v.authFile)
		fetched := s.web.count()
		assert.Equal(t, len(v.pages), fetched, "at the start")
		for user, token := range v.tokens() {
			assert.Equal(t, user, s.user(t, token))
		}
		if v.rejected != nil {
			for token, text := range v.rejected() {
				s.rejects(t, token, text)
			}
		}
		assert.Equal(t, fetched, s.web.count())
		if v.more != nil {
			v.more(t, s)
		}
	})
}

func signer(t *testing.T, kid, alg string) (issuer, func(claims map[string]any, header map[string]any) string) {
	t.Helper()
	i := newIssuer(t, kid, alg)
	return i, func(claims, header map[string]any) string { return i.sign(t, claimsOf(claims), header) }
}

func TestVectors_Auth0(t *testing.T) { // V1, V2
	key, sign := signer(t, "NjVBRjY5MDlCMUIwNzU4RTA2QzZFMDQ4QzQ2MDAyQjVDNjk1RTM2Qg", "RS256")
	claims := map[string]any{
		"iss": "https://acme.eu.auth0.com/", "sub": "auth0|5f7c8ec7c33c6c004bbafe82", "azp": "my_client_id", "gty": "password",
		"aud": []string{"https://streams.acme.example", "https://acme.eu.auth0.com/userinfo"}, "scope": "openid profile",
		"permissions": []string{"watch"}, "https://acme.example/plan": "family", "streams": 4,
	}
	const address = "https://acme.eu.auth0.com/.well-known/jwks.json"
	vector{
		authFile: `issuers:
- name: web
  issuer: https://acme.eu.auth0.com/
  jwks: {url: https://acme.eu.auth0.com/.well-known/jwks.json}
  audience: {claim: aud, values: [https://streams.acme.example]}
  plan: https://acme.example/plan
  limit: streams
`,
		pages: map[string][]byte{address: keySet(t, with(key.jwk(t), map[string]any{
			"x5t": "NjVBRjY5MDlCMUIwNzU4RTA2QzZFMDQ4QzQ2MDAyQjVDNjk1RTM2Qg", "x5c": []string{"AAAA"},
		}))},
		tokens: func() map[string]string {
			return map[string]string{"auth0|5f7c8ec7c33c6c004bbafe82": sign(claims, nil)}
		},
		rejected: func() map[string]string {
			return map[string]string{
				sign(with(claims, map[string]any{"iss": "https://acme.eu.auth0.com"}), nil):               "the last slash makes the difference",
				sign(with(claims, map[string]any{"aud": "https://acme.eu.auth0.com/userinfo"}), nil):      "another audience",
				sign(with(claims, map[string]any{"https://acme.example/plan": []string{"family"}}), nil):  "its https://acme.example/plan is not text",
				sign(with(claims, map[string]any{"https://acme.example/plan": nil, "streams": "4"}), nil): "its streams is not a whole number",
			}
		},
		more: func(t *testing.T, s *site) {
			t.Helper()
			caller, err := s.as("Bearer " + sign(claims, nil))
			require.NoError(t, err)
			four := 4
			assert.Equal(t, Caller{Kind: Viewer, Name: "auth0|5f7c8ec7c33c6c004bbafe82", Plan: "family", Limit: &four}, caller)
			_, _ = s.as("Bearer " + sign(with(claims, map[string]any{"iss": "https://acme.eu.auth0.com"}), nil))
			assert.Equal(t, 1, strings.Count(s.log.String(), "same_but_for_the_last_slash=web"), "%s", s.log)
		},
	}.run(t)
}

const cognito = "https://cognito-idp.eu-west-1.amazonaws.com/eu-west-1_AbC"

func TestVectors_Cognito(t *testing.T) { // V5 to V7
	key, sign := signer(t, "1234example=", "RS256")
	access := map[string]any{
		"iss": cognito, "sub": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "client_id": "1example23456789", "token_use": "access",
		"scope": "phone openid profile", "username": "maya", "origin_jti": "x", "version": 2, "device_key": "d",
	}
	header := map[string]any{"typ": nil}
	pages := map[string][]byte{cognito + "/.well-known/jwks.json": keySet(t, key.jwk(t))}
	id := with(access, map[string]any{"aud": "1example23456789", "client_id": nil, "token_use": "id", "custom:plan": "family"})
	vector{
		authFile: `issuers:
- name: tv
  issuer: ` + cognito + `
  jwks: {url: ` + cognito + `/.well-known/jwks.json}
  audience: {claim: client_id, values: [1example23456789]}
  require: {token_use: access}
  userPrefix: "tv|"
`,
		pages: pages,
		tokens: func() map[string]string {
			return map[string]string{"tv|aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee": sign(access, header)}
		},
		rejected: func() map[string]string {
			return map[string]string{
				sign(with(access, map[string]any{"client_id": "2other"}), header):       "another audience",
				sign(with(access, map[string]any{"client_id": nil}), header):            "its client_id is missing",
				sign(with(id, map[string]any{"client_id": "1example23456789"}), header): "its token_use is not what its issuer's must be",
				sign(with(access, map[string]any{"token_use": nil}), header):            "its token_use is missing",
			}
		},
	}.run(t)
	vector{
		authFile: `issuers:
- name: tv
  issuer: ` + cognito + `
  jwks: {url: ` + cognito + `/.well-known/jwks.json}
  audience: {values: [1example23456789]}
  require: {token_use: id}
  plan: custom:plan
`,
		pages: pages,
		tokens: func() map[string]string {
			return map[string]string{"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee": sign(id, header)}
		},
		rejected: func() map[string]string { return map[string]string{sign(access, header): "its aud is missing"} },
		more: func(t *testing.T, s *site) {
			t.Helper()
			caller, err := s.as("Bearer " + sign(id, header))
			require.NoError(t, err)
			assert.Equal(t, "family", caller.Plan)
		},
	}.run(t)
}

func TestVectors_Keycloak(t *testing.T) { // V8, V9
	const realm, inside = "https://id.acme.example/realms/staff", "http://keycloak.auth.svc:8080/realms/staff/protocol/openid-connect/certs"
	ps, sign := signer(t, "k", "PS256")
	enc := newIssuer(t, "k", "RS256")
	encKey := with(enc.jwk(t), map[string]any{"alg": "RSA-OAEP", "use": "enc"})
	claims := map[string]any{
		"iss": realm, "azp": "console", "typ": "Bearer", "preferred_username": "ann lee", "jti": "trrtcc:1", "sid": "s", "aud": "account", "nbf": 0,
	}
	rs := issuer{"k", jwt.SigningMethodRS256, ps.key}
	for _, keys := range [][]any{{encKey, ps.jwk(t)}, {ps.jwk(t), encKey}} {
		vector{
			authFile: `issuers:
- name: staff
  issuer: ` + realm + `
  jwks: {url: "` + inside + `", plainHTTP: true}
  audience: {claim: azp, values: [console]}
  require: {typ: Bearer}
  user: preferred_username
  algorithms: [PS256, RS256]
`,
			pages:  map[string][]byte{inside: keySet(t, keys...)},
			tokens: func() map[string]string { return map[string]string{"ann lee": sign(claims, nil)} },
			rejected: func() map[string]string {
				return map[string]string{
					sign(with(claims, map[string]any{"typ": "ID"}), nil):                        "its typ is not what its issuer's must be",
					sign(with(claims, map[string]any{"preferred_username": nil}), nil):          "its preferred_username is missing",
					rs.sign(t, claimsOf(claims), nil):                                           "its algorithm is not its key's",
					issuer{"k", jwt.SigningMethodPS256, enc.key}.sign(t, claimsOf(claims), nil): "its signature is wrong",
				}
			},
			more: func(t *testing.T, s *site) {
				t.Helper()
				assert.Equal(t, 1, strings.Count(s.log.String(), "it is for encryption"), "%s", s.log)
				time.Sleep(10 * time.Minute)
				assert.Equal(t, 1, strings.Count(s.log.String(), "it is for encryption"), "once a change")
			},
		}.run(t)
	}
}

func TestVectors_SeveralKeysOfOneKid(t *testing.T) { // V10
	const realm = "https://am.example/oauth2/realms/root"
	a, b := newIssuer(t, "k", "RS256"), newIssuer(t, "k", "RS256")
	claims := map[string]any{"iss": realm, "sub": "u", "aud": "streams"}
	authFile := `issuers: [{name: am, issuer: "` + realm + `", jwks: {url: "` + realm + `/connect/jwk_uri"}, audience: {values: [streams]}}]`
	by := func(i issuer, method jwt.SigningMethod) func() map[string]string {
		return func() map[string]string {
			return map[string]string{"u": issuer{"k", method, i.key}.sign(t, claimsOf(claims), nil)}
		}
	}
	three := []any{a.jwk(t), with(a.jwk(t), map[string]any{"alg": "RS384"}), with(a.jwk(t), map[string]any{"alg": "RS512"})}
	for _, method := range []jwt.SigningMethod{jwt.SigningMethodRS256, jwt.SigningMethodRS384, jwt.SigningMethodRS512} {
		vector{authFile: authFile, pages: map[string][]byte{realm + "/connect/jwk_uri": keySet(t, three...)}, tokens: by(a, method)}.run(t)
	}
	for _, i := range []issuer{a, b} {
		vector{
			authFile: authFile, pages: map[string][]byte{realm + "/connect/jwk_uri": keySet(t, a.jwk(t), b.jwk(t))},
			tokens: by(i, jwt.SigningMethodRS256),
		}.run(t)
	}
}

func TestVectors_UserClaims(t *testing.T) { // V12, V14, V15
	key, sign := signer(t, "k", "RS256")
	two := newIssuer(t, "other", "RS256")
	set := keySet(t, with(two.jwk(t), map[string]any{"alg": nil}), with(key.jwk(t), map[string]any{"x5t": "k"}))
	type m = map[string]any
	const google, adfs = `[https://accounts.google.com, accounts.google.com]`, `[http://fs.example/adfs/services/trust, https://fs.example/adfs]`
	for name, c := range map[string]struct {
		issuer, audience, user string
		claims, header         m
		want, rejected         string
	}{
		"okta": {"https://d.okta.com/oauth2/default", "api://default", "uid", m{
			"iss": "https://d.okta.com/oauth2/default", "aud": "api://default", "sub": "maya@acme.example", "uid": "00u1gflc", "cid": "0oa", "ver": 1,
		}, nil, "00u1gflc", ""},
		"google":        {google, "1.apps.googleusercontent.com", "sub", m{"iss": "https://accounts.google.com", "aud": "1.apps.googleusercontent.com", "sub": "110169484474386276334"}, nil, "110169484474386276334", ""},
		"google_bare":   {google, "1.apps.googleusercontent.com", "sub", m{"iss": "accounts.google.com", "aud": "1.apps.googleusercontent.com", "sub": "110169484474386276334"}, nil, "110169484474386276334", ""},
		"adfs":          {adfs, "microsoft:identityserver:APP", "upn", m{"iss": "http://fs.example/adfs/services/trust", "aud": "microsoft:identityserver:APP", "upn": `ann@corp.example`, "auth_time": "2026-01-01T00:00:00Z"}, m{"kid": nil, "x5t": "k"}, "ann@corp.example", ""},
		"adfs_base64":   {adfs, "microsoft:identityserver:APP", "sub", m{"iss": "https://fs.example/adfs", "aud": "microsoft:identityserver:APP", "sub": "S//808E9UOiYKKAkagOBLGxvuLUbDCXlp8sZz6ilew8="}, m{"kid": nil, "x5t": "k"}, "S//808E9UOiYKKAkagOBLGxvuLUbDCXlp8sZz6ilew8=", ""},
		"adfs_no_sub":   {adfs, "microsoft:identityserver:APP", "sub", m{"iss": "https://fs.example/adfs", "aud": "microsoft:identityserver:APP"}, m{"kid": nil, "x5t": "k"}, "", "its sub is missing"},
		"no_kid_no_x5t": {adfs, "a", "sub", m{"iss": "https://fs.example/adfs", "aud": "a", "sub": `CORP\ann`}, m{"kid": nil}, `CORP\ann`, ""},
		"unknown_x5t":   {adfs, "a", "sub", m{"iss": "https://fs.example/adfs", "aud": "a", "sub": "o'brien müller"}, m{"kid": nil, "x5t": "zz"}, "o'brien müller", ""},
	} {
		t.Run(name, func(t *testing.T) {
			vector{
				authFile: `issuers: [{name: p, issuer: ` + c.issuer + `, jwks: {url: "https://p.example/keys"}, audience: {values: ["` + c.audience + `"]}, user: ` + c.user + `}]`,
				pages:    map[string][]byte{"https://p.example/keys": set},
				tokens: func() map[string]string {
					if c.want == "" {
						return nil
					}
					return map[string]string{c.want: sign(c.claims, c.header)}
				},
				rejected: func() map[string]string {
					if c.rejected == "" {
						return nil
					}
					return map[string]string{sign(c.claims, c.header): c.rejected}
				},
			}.run(t)
		})
	}
}
