package access

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

type members = map[string]any

// oneIssuer is an auth file with a single issuer, and other settings of it.
func oneIssuer(more string) string {
	return `issuers: [{name: p, issuer: "https://p.example", jwks: {url: "https://p.example/keys"}, audience: {values: [streams]}` + more + `}]`
}

func goodFor(more members) members {
	return with(members{"iss": "https://p.example", "sub": "maya", "aud": "streams"}, more)
}

func TestVectors_Firebase(t *testing.T) { // V13
	a, sign := signer(t, "a", "RS256")
	b := newIssuer(t, "b", "RS256")
	certificate := func(i issuer) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificateOf(t, i)}))
	}
	page, err := json.Marshal(map[string]string{"a": certificate(a), "b": certificate(b), "broken": "-----BEGIN CERTIFICATE-----\nAAAA\n"})
	require.NoError(t, err)
	const address = "https://www.googleapis.com/robot/v1/metadata/x509/securetoken@system.gserviceaccount.com"
	claims := members{"iss": "https://securetoken.google.com/acme", "aud": "acme", "sub": "UID", "user_id": "UID", "plan": "family",
		"firebase": members{"sign_in_provider": "password"}}
	vector{
		authFile: `issuers:
- name: fire
  issuer: https://securetoken.google.com/acme
  jwks: {url: "` + address + `"}
  audience: {values: [acme]}
`,
		pages:  map[string][]byte{address: page},
		tokens: func() map[string]string { return map[string]string{"UID": sign(claims, nil)} },
		rejected: func() map[string]string {
			return map[string]string{
				sign(with(claims, members{"iss": "https://securetoken.google.com/other", "aud": "other"}), nil): "its issuer is not one of those",
			}
		},
		more: func(t *testing.T, s *site) {
			t.Helper()
			assert.Contains(t, s.log.String(), "kid=broken")
			assert.Equal(t, "UID", s.user(t, b.sign(t, claimsOf(claims), nil)))
		},
	}.run(t)
}

func TestVectors_Types(t *testing.T) { // V16
	key, sign := signer(t, "k", "RS256")
	vector{
		authFile: oneIssuer(", types: [at+jwt, application/JWT]"),
		pages:    map[string][]byte{"https://p.example/keys": keySet(t, key.jwk(t))},
		tokens: func() map[string]string {
			return map[string]string{"maya": sign(goodFor(nil), members{"typ": "at+jwt"})}
		},
		rejected: func() map[string]string {
			return map[string]string{
				sign(goodFor(nil), members{"typ": "logout+jwt"}): "its typ is not allowed",
				sign(goodFor(nil), members{"typ": nil}):          "its typ is not allowed",
				sign(goodFor(nil), members{"typ": 7}):            "its typ is not allowed",
			}
		},
		more: func(t *testing.T, s *site) {
			t.Helper()
			for _, typ := range []string{"application/at+jwt", "AT+JWT", "jwt"} {
				s.user(t, sign(goodFor(nil), members{"typ": typ}))
			}
		},
	}.run(t)
}

func TestVectors_AnyAudience(t *testing.T) { // V17
	key, sign := signer(t, "k", "RS256")
	file := func(issuer string) string {
		return `issuers: [{name: w, issuer: "` + issuer + `", jwks: {url: "https://p.example/keys"}, audience: any}]`
	}
	vector{
		authFile: file("https://api.workos.com/user_management/client_1"),
		pages:    map[string][]byte{"https://p.example/keys": keySet(t, key.jwk(t))},
		tokens: func() map[string]string {
			return map[string]string{"user_1": sign(members{"iss": "https://api.workos.com/user_management/client_1", "sub": "user_1", "sid": "s"}, nil)}
		},
		more: func(t *testing.T, s *site) {
			t.Helper()
			assert.Contains(t, s.log.String(), "whatever their audience")
		},
	}.run(t)
	for _, shared := range []string{
		"https://login.microsoftonline.com/T/v2.0", "https://sts.windows.net/T/", "accounts.google.com", "https://accounts.google.com", "https://appleid.apple.com",
		"https://login.microsoftonline.us/T/v2.0", "https://ID.twitch.tv/oauth2", "https://token.actions.githubusercontent.com", "https://slack.com",
	} {
		_, err := readAuthFile([]byte(file(shared)), "/")
		require.ErrorContains(t, err, "audience: any is refused for")
	}
}

func TestVectors_Zitadel(t *testing.T) { // V18
	rs, signRSA := signer(t, "1", "RS256")
	ed, signEd := signer(t, "2", "Ed25519")
	claims := goodFor(members{"sub": "259242039378444290", "aud": []string{"259254020357488642", "streams"}})
	vector{
		authFile: oneIssuer(""),
		pages:    map[string][]byte{"https://p.example/keys": keySet(t, rs.jwk(t), ed.jwk(t))},
		tokens:   func() map[string]string { return map[string]string{"259242039378444290": signRSA(claims, nil)} },
		more: func(t *testing.T, s *site) {
			t.Helper()
			assert.Equal(t, "259242039378444290", s.user(t, signEd(claims, nil)))
			assert.Equal(t, "259242039378444290", s.user(t, issuer{"2", jwt.SigningMethodEdDSA, ed.key}.sign(t, claimsOf(claims), nil)))
		},
	}.run(t)
	_, err := readAuthFile([]byte(strings.Replace(oneIssuer(""), "streams", "259254020357488642", 1)), "/")
	require.ErrorContains(t, err, "issuer 1 (p): audience: values: want text in quotes, this is a number")
}

func TestVectors_Rotation(t *testing.T) { // V19
	old, signOld := signer(t, "old", "ES256")
	young, signYoung := signer(t, "young", "ES256")
	_, signUnknown := signer(t, "unknown", "ES256")
	two := func(more string) string {
		return `issuers:
- {name: a, issuer: "https://p.example", jwks: {url: "https://p.example/keys"}, audience: {values: [streams]}, userPrefix: "a|"` + more + `}
- {name: b, issuer: "https://q.example", jwks: {url: "https://q.example/keys"}, audience: {values: [streams]}, userPrefix: "b|"}
`
	}
	synctest.Test(t, func(t *testing.T) {
		const a, b = "https://p.example/keys", "https://q.example/keys"
		w := newWeb(map[string][]byte{a: keySet(t, old.jwk(t)), b: keySet(t, old.jwk(t))})
		s := w.start(t, two(""))
		assert.Equal(t, "a|maya", s.user(t, signOld(goodFor(nil), nil)))
		time.Sleep(61 * time.Second)
		w.publish(a, keySet(t, old.jwk(t), young.jwk(t)))
		before := w.count(a)
		assert.Equal(t, "a|maya", s.user(t, signYoung(goodFor(nil), nil)), "it waits for the fetch that it has caused")
		assert.Equal(t, before+1, w.count(a))
		for n := range 1000 {
			_, err := s.as("Bearer " + signUnknown(goodFor(nil), members{"kid": fmt.Sprint(n)}))
			require.ErrorIs(t, err, ErrCredential)
		}
		assert.Equal(t, before+1, w.count(a), "the tokens have had their fetch")
		assert.Equal(t, 2, w.count(b))

		time.Sleep(61 * time.Second)
		beforeA, beforeB := w.count(a), w.count(b)
		for n := range 1000 {
			for _, iss := range []string{"https://p.example", "https://q.example"} {
				_, err := s.as("Bearer " + signUnknown(goodFor(members{"iss": iss}), members{"kid": fmt.Sprint(n)}))
				require.ErrorIs(t, err, ErrCredential)
			}
		}
		assert.Equal(t, beforeA+1, w.count(a))
		assert.Equal(t, beforeB+1, w.count(b))
		s.edit(t, two(", leeway: 1s"))
		for n := range 1000 {
			_, _ = s.as("Bearer " + signUnknown(goodFor(nil), members{"kid": fmt.Sprint(n)}))
		}
		assert.Equal(t, beforeA+1, w.count(a), "an edit does not renew the budget")
		assert.Equal(t, "a|maya", s.user(t, signOld(goodFor(nil), nil)), "and keeps the keys")
	})
}

// hs256 signs with a secret.
func hs256(t *testing.T, secret []byte, claims members, header members) string {
	t.Helper()
	token := jwt.NewWithClaims(jwt.SigningMethodHS256, claimsOf(claims))
	for k, v := range header {
		token.Header[k] = v
	}
	text, err := token.SignedString(secret)
	require.NoError(t, err)
	return text
}

func TestVectors_Supabase(t *testing.T) { // V20
	key, sign := signer(t, "new", "ES256")
	secret := []byte(strings.Repeat("s", 40))
	claims := goodFor(members{"aud": "authenticated", "role": "authenticated", "app_metadata": members{"plan": "family"}, "user_metadata": members{"plan": "all"}})
	authFile := `issuers:
- name: supa
  issuer: https://p.example
  jwks: {url: https://p.example/keys}
  secretFile: ` + file(t, append(secret, '\n')) + `
  audience: {values: [authenticated]}
  require: {role: authenticated}
  plan: [app_metadata, plan]
`
	vector{
		authFile: authFile,
		pages:    map[string][]byte{"https://p.example/keys": keySet(t, key.jwk(t))},
		tokens:   func() map[string]string { return map[string]string{"maya": sign(claims, nil)} },
		rejected: func() map[string]string {
			return map[string]string{
				sign(with(claims, members{"role": "service_role"}), nil):                     "its role is not what",
				hs256(t, secret, with(claims, members{"role": "service_role"}), nil):         "its role is not what",
				hs256(t, []byte(strings.Repeat("x", 40)), claims, members{"kid": "unknown"}): "its signature is wrong",
			}
		},
		more: func(t *testing.T, s *site) {
			t.Helper()
			for range 2 {
				caller, err := s.as("Bearer " + hs256(t, secret, claims, members{"kid": "legacy"}))
				require.NoError(t, err)
				assert.Equal(t, Caller{Kind: Viewer, Name: "maya", Plan: "family"}, caller)
			}
			assert.Equal(t, 1, s.web.count(), "HS256 needs no fetch")
		},
	}.run(t)
}

func TestVectors_Confusion(t *testing.T) { // V21
	key, sign := signer(t, "k", "RS256")
	evil, _ := signer(t, "k", "RS256")
	public := key.key.Public().(*rsa.PublicKey)
	der, err := x509.MarshalPKIXPublicKey(public)
	require.NoError(t, err)
	oct := []byte(strings.Repeat("o", 32))
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, jwt.MapClaims(goodFor(nil))).SignedString(jwt.UnsafeAllowNoneSignatureType)
	require.NoError(t, err)
	for name, secret := range map[string]string{"keys": "", "keys_and_secret": ", secretFile: " + file(t, []byte(strings.Repeat("s", 32)))} {
		hs := "its signature is wrong"
		if secret == "" {
			hs = "its algorithm is not allowed for its issuer"
		}
		t.Run(name, func(t *testing.T) {
			vector{
				authFile: oneIssuer(secret),
				pages: map[string][]byte{"https://p.example/keys": keySet(t, key.jwk(t),
					members{"kty": "oct", "kid": "o", "k": base64.RawURLEncoding.EncodeToString(oct)})},
				tokens: func() map[string]string { return map[string]string{"maya": sign(goodFor(nil), nil)} },
				rejected: func() map[string]string {
					return map[string]string{
						hs256(t, publicPEM(t, public), goodFor(nil), members{"kid": "k"}): hs,
						hs256(t, der, goodFor(nil), members{"kid": "k"}):                  hs,
						hs256(t, public.N.Bytes(), goodFor(nil), members{"kid": "k"}):     hs,
						hs256(t, oct, goodFor(nil), members{"kid": "o"}):                  hs,
						none: "its algorithm is not supported here",
						evil.sign(t, claimsOf(goodFor(nil)), members{"jwk": evil.jwk(t), "jku": "https://evil.example", "x5u": "https://evil.example"}): "its signature is wrong",
						sign(goodFor(nil), members{"crit": []string{"b64"}, "b64": true}):                                                               "critical header",
						sign(goodFor(nil), members{"kid": strings.Repeat("k", 300)}):                                                                    "its key is not one of its issuer's",
						sign(goodFor(nil), members{"kid": 7}):                                                                                           "its kid is not text",
					}
				},
			}.run(t)
		})
	}
	vector{
		authFile: `issuers: [{name: p, issuer: "https://p.example", secretFile: ` + file(t, oct) + `, audience: {values: [streams]}}]`,
		tokens:   func() map[string]string { return map[string]string{"maya": hs256(t, oct, goodFor(nil), nil)} },
		rejected: func() map[string]string {
			return map[string]string{sign(goodFor(nil), nil): "its algorithm is not allowed for its issuer"}
		},
	}.run(t)
}

func TestVectors_TwoIssuers(t *testing.T) { // V22, V23
	a, signA := signer(t, "k", "ES256")
	b, signB := signer(t, "k", "ES256")
	entry := func(name, more string) string {
		return fmt.Sprintf(`{name: %s, issuer: "https://%s.example", jwks: {url: "https://%s.example/keys"}, audience: {values: [streams]}%s}`, name, name, name, more)
	}
	two := func(moreA, moreB string) string {
		return "issuers: [" + entry("a", moreA) + ", " + entry("b", moreB) + "]"
	}
	from := func(iss any) members { return members{"iss": iss, "sub": "42", "aud": "streams"} }
	vector{
		authFile: two(`, userPrefix: "web|"`, `, userPrefix: "tv|"`),
		pages:    map[string][]byte{"https://a.example/keys": keySet(t, a.jwk(t)), "https://b.example/keys": keySet(t, b.jwk(t))},
		tokens: func() map[string]string {
			return map[string]string{"web|42": signA(from("https://a.example"), nil), "tv|42": signB(from("https://b.example"), nil)}
		},
		rejected: func() map[string]string {
			return map[string]string{
				signA(from("https://b.example"), nil):           "its signature is wrong",
				signA(from(nil), nil):                           "its iss is missing",
				signA(from(7), nil):                             "its iss is not text",
				signA(from([]string{"https://a.example"}), nil): "its iss is not text",
				signA(from("https://c.example"), nil):           "its issuer is not one of those configured here",
				signA(from("https://c.example/2"), nil):         "its issuer is not one of those configured here",
			}
		},
		more: func(t *testing.T, s *site) {
			t.Helper()
			assert.Equal(t, 1, strings.Count(s.log.String(), "is not configured"), "once a minute")
			assert.NotContains(t, s.log.String(), "c.example")
			states := s.Issuers()
			require.Len(t, states, 3)
			assert.EqualValues(t, 5, states[0].Rejected[ReasonIssuer])
			assert.Equal(t, "b", states[2].Name)
			assert.EqualValues(t, 1, states[2].Rejected[ReasonSignature])
			assert.Equal(t, 1, states[2].Keys)
			assert.False(t, states[2].Fetched.IsZero())
		},
	}.run(t)
	for _, prefixes := range [][2]string{
		{"", `, userPrefix: "tv|"`}, {"", ""}, {`, userPrefix: "t"`, `, userPrefix: "tv|"`}, {", sameUsers: true", ""},
	} {
		_, err := readAuthFile([]byte(two(prefixes[0], prefixes[1])), "/")
		require.ErrorContains(t, err, "issuer 2 (b): users may collide with those of a")
	}
	_, err := readAuthFile([]byte(two(", sameUsers: true", ", sameUsers: true")), "/")
	require.NoError(t, err)
}

func TestVectors_Entra(t *testing.T) { // V11
	const v2, v1 = "https://login.microsoftonline.com/11111111-2222/v2.0", "https://sts.windows.net/11111111-2222/"
	const address = "https://login.microsoftonline.com/11111111-2222/discovery/v2.0/keys"
	key, sign := signer(t, "X5eXk4xyojNFum1kl2Ytv8dlNP4", "RS256")
	published := with(key.jwk(t), map[string]any{"alg": nil, "x5t": key.kid, "issuer": v2, "x5c": []string{"MIIC"}})
	claims := map[string]any{"iss": v2, "aud": "6731de76", "oid": "00000000-0000-0000-66f3", "sub": "AAAAAAAA/+", "tid": "11111111-2222", "ver": "2.0"}
	ps := issuer{key.kid, jwt.SigningMethodPS256, key.key}.sign
	for _, algorithms := range []string{"", "  algorithms: [RS256, PS256]\n"} {
		vector{
			authFile: `issuers:
- name: entra
  issuer: [` + v2 + `, ` + v1 + `]
  jwks: {url: ` + address + `}
  audience: {values: [6731de76, "api://streams"]}
  user: oid
` + algorithms,
			pages: map[string][]byte{address: keySet(t, published)},
			tokens: func() map[string]string {
				return map[string]string{"00000000-0000-0000-66f3": sign(claims, map[string]any{"x5t": key.kid})}
			},
			rejected: func() map[string]string {
				return map[string]string{
					sign(with(claims, map[string]any{"iss": "https://login.microsoftonline.com/99/v2.0"}), nil): "its issuer is not one of those configured here",
				}
			},
			more: func(t *testing.T, s *site) {
				t.Helper()
				assert.Equal(t, "00000000-0000-0000-66f3", s.user(t, sign(with(claims, map[string]any{"iss": v1, "aud": "api://streams"}), nil)))
				if token := ps(t, claimsOf(claims), nil); algorithms == "" {
					s.rejects(t, token, "its algorithm is not its key's")
				} else {
					assert.Equal(t, "00000000-0000-0000-66f3", s.user(t, token))
				}
			},
		}.run(t)
	}
}
