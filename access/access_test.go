package access

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// issuer signs tokens, and publishes the JWKS that verifies them.
type issuer struct {
	kid    string
	method jwt.SigningMethod
	key    crypto.Signer
}

func newIssuer(tb testing.TB, kid, alg string) issuer {
	tb.Helper()
	var key crypto.Signer
	var err error
	switch alg {
	case "RS256", "RS384", "RS512", "PS256", "PS384", "PS512":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "ES256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ES384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ES512":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	default:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	}
	require.NoError(tb, err)
	return issuer{kid, jwt.GetSigningMethod(alg), key}
}

func goodClaims() jwt.MapClaims {
	return jwt.MapClaims{
		"sub": "maya", "iss": "https://id.example", "aud": "streams", "exp": time.Now().Add(time.Hour).Unix(),
		"iat": time.Now().Unix(),
	}
}

func (i issuer) sign(tb testing.TB, claims jwt.Claims, header map[string]any) string {
	tb.Helper()
	token := jwt.NewWithClaims(i.method, claims)
	token.Header["kid"] = i.kid
	for k, v := range header {
		if v == nil {
			delete(token.Header, k)
		} else {
			token.Header[k] = v
		}
	}
	s, err := token.SignedString(i.key)
	require.NoError(tb, err)
	return s
}

// jwk is a public key as providers publish it.
func jwk(tb testing.TB, kid, alg string, key any) map[string]any {
	tb.Helper()
	text := base64.RawURLEncoding.EncodeToString
	out := map[string]any{"use": "sig"}
	switch k := key.(type) {
	case *rsa.PublicKey:
		out["kty"], out["n"], out["e"] = "RSA", text(k.N.Bytes()), text(big.NewInt(int64(k.E)).Bytes())
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		require.NoError(tb, err)
		half := len(point) / 2
		out["kty"], out["crv"], out["x"], out["y"] = "EC", k.Params().Name, text(point[1:1+half]), text(point[1+half:])
	case ed25519.PublicKey:
		out["kty"], out["crv"], out["x"] = "OKP", "Ed25519", text(k)
	}
	for name, value := range map[string]string{"kid": kid, "alg": alg} {
		if value != "" {
			out[name] = value
		}
	}
	return out
}

func (i issuer) jwk(tb testing.TB) map[string]any {
	tb.Helper()
	return jwk(tb, i.kid, i.method.Alg(), i.key.Public())
}

func keySet(tb testing.TB, keys ...any) []byte {
	tb.Helper()
	b, err := json.Marshal(map[string]any{"keys": keys})
	require.NoError(tb, err)
	return b
}

func jwks(tb testing.TB, issuers ...issuer) []byte {
	tb.Helper()
	keys := make([]any, len(issuers))
	for n, i := range issuers {
		keys[n] = i.jwk(tb)
	}
	return keySet(tb, keys...)
}

func file(tb testing.TB, content []byte) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "file")
	require.NoError(tb, os.WriteFile(path, content, 0o600))
	return path
}

func tokensBy(tb testing.TB, issuers ...issuer) TokenConfig {
	tb.Helper()
	return TokenConfig{
		JWKSFile: file(tb, jwks(tb, issuers...)), Issuer: "https://id.example", Audience: "streams",
		PlanClaim: "plan", LimitClaim: "streams", Leeway: 30 * time.Second,
	}
}

func newAuthenticator(tb testing.TB, cfg Config) *Authenticator {
	tb.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	a, err := New(cfg)
	require.NoError(tb, err)
	return a
}

// as authenticates a request with the given Authorization headers.
func (a *Authenticator) as(headers ...string) (Caller, error) {
	r := httptest.NewRequest(http.MethodGet, "/?access_token=x", nil)
	if len(headers) > 0 {
		r.Header["Authorization"] = headers
	}
	return a.Authenticate(r)
}

func TestTokens_EveryAlgorithm(t *testing.T) {
	five := 5
	for _, alg := range asymmetric {
		i := newIssuer(t, "k1", alg)
		a := newAuthenticator(t, Config{Tokens: tokensBy(t, i)})
		claims := goodClaims()
		claims["plan"], claims["streams"] = "family", five
		for range 2 { // the second time it is cached
			c, err := a.as("Bearer " + i.sign(t, claims, nil))
			require.NoError(t, err, alg)
			assert.Equal(t, Caller{Kind: Viewer, Name: "maya", Plan: "family", Limit: &five}, c)
		}
		c, err := a.as("bearer " + i.sign(t, goodClaims(), map[string]any{"kid": nil}))
		require.NoError(t, err, "without a key id")
		assert.Equal(t, Caller{Kind: Viewer, Name: "maya"}, c)
	}
	secret := []byte(strings.Repeat("s", 32))
	a := newAuthenticator(t, Config{Tokens: TokenConfig{
		SecretFile: file(t, append(secret, '\n')), Issuer: "https://id.example", Audience: "streams",
	}})
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, goodClaims()).SignedString(secret)
	require.NoError(t, err)
	c, err := a.as("Bearer " + token)
	require.NoError(t, err)
	assert.Equal(t, "viewer maya", c.String())
}

// Invalid and forged tokens are rejected.
func TestTokens_Attacks(t *testing.T) {
	rs, es := newIssuer(t, "rsa", "RS256"), newIssuer(t, "ec", "ES256")
	stranger := newIssuer(t, "rsa", "RS256")
	a := newAuthenticator(t, Config{Tokens: tokensBy(t, rs, es)})
	der, err := x509.MarshalPKIXPublicKey(rs.key.Public())
	require.NoError(t, err)
	pemKey := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	with := func(change func(jwt.MapClaims)) string {
		c := goodClaims()
		change(c)
		return rs.sign(t, c, nil)
	}
	hs := func(key any, header map[string]any) string {
		token := jwt.NewWithClaims(jwt.SigningMethodHS256, goodClaims())
		token.Header["kid"] = "rsa"
		for k, v := range header {
			token.Header[k] = v
		}
		s, err := token.SignedString(key)
		require.NoError(t, err)
		return s
	}
	none, err := jwt.NewWithClaims(jwt.SigningMethodNone, goodClaims()).SignedString(jwt.UnsafeAllowNoneSignatureType)
	require.NoError(t, err)
	good := rs.sign(t, goodClaims(), nil)
	head, rest, _ := strings.Cut(good, ".")
	body, _, _ := strings.Cut(rest, ".")
	esGood := es.sign(t, goodClaims(), nil)
	esHead := esGood[:strings.LastIndex(esGood, ".")]
	attacks := map[string]string{
		"algNone":                 none,
		"algNoneInCapitals":       base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"NONE"}`)) + "." + body + ".",
		"hs256WithThePublicPEM":   hs(pemKey, nil),
		"hs256WithThePublicDER":   hs(der, nil),
		"es256OfZeros":            esHead + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64)),
		"es256OfNothing":          esHead + ".",
		"noSignature":             head + "." + body + ".",
		"anothersSignature":       stranger.sign(t, goodClaims(), nil),
		"keyOfAnotherAlgorithm":   es.sign(t, goodClaims(), map[string]any{"kid": "rsa"}),
		"expired":                 with(func(c jwt.MapClaims) { c["exp"] = time.Now().Add(-time.Minute).Unix() }),
		"noExpiry":                with(func(c jwt.MapClaims) { delete(c, "exp") }),
		"expiryThatIsText":        with(func(c jwt.MapClaims) { c["exp"] = "tomorrow" }),
		"notYet":                  with(func(c jwt.MapClaims) { c["nbf"] = time.Now().Add(time.Hour).Unix() }),
		"issuedInTheFuture":       with(func(c jwt.MapClaims) { c["iat"] = time.Now().Add(time.Hour).Unix() }),
		"wrongIssuer":             with(func(c jwt.MapClaims) { c["iss"] = "https://id.example.evil" }),
		"noIssuer":                with(func(c jwt.MapClaims) { delete(c, "iss") }),
		"wrongAudience":           with(func(c jwt.MapClaims) { c["aud"] = []string{"films"} }),
		"noAudience":              with(func(c jwt.MapClaims) { delete(c, "aud") }),
		"noSubject":               with(func(c jwt.MapClaims) { delete(c, "sub") }),
		"emptySubject":            with(func(c jwt.MapClaims) { c["sub"] = "" }),
		"subjectThatIsAFraction":  with(func(c jwt.MapClaims) { c["sub"] = 7.5 }),
		"subjectWithALineEnd":     with(func(c jwt.MapClaims) { c["sub"] = "maya\n" }),
		"planThatIsANumber":       with(func(c jwt.MapClaims) { c["plan"] = 7 }),
		"limitThatIsText":         with(func(c jwt.MapClaims) { c["streams"] = "7" }),
		"limitThatIsNegative":     with(func(c jwt.MapClaims) { c["streams"] = -1 }),
		"limitThatIsAFraction":    with(func(c jwt.MapClaims) { c["streams"] = 1.5 }),
		"limitThatIsEnormous":     with(func(c jwt.MapClaims) { c["streams"] = 1e300 }),
		"keyIDThatIsAPath":        rs.sign(t, goodClaims(), map[string]any{"kid": "../../etc/passwd"}),
		"keyIDThatIsAURL":         rs.sign(t, goodClaims(), map[string]any{"kid": "http://evil.example/jwks"}),
		"keyIDThatIsANumber":      stranger.sign(t, goodClaims(), map[string]any{"kid": 7}),
		"keyIDThatIsEnormous":     rs.sign(t, goodClaims(), map[string]any{"kid": strings.Repeat("k", 5000)}),
		"criticalHeader":          rs.sign(t, goodClaims(), map[string]any{"crit": []string{"b64"}, "b64": false}),
		"keyInTheHeader":          stranger.sign(t, goodClaims(), map[string]any{"jwk": json.RawMessage(jwks(t, stranger)), "kid": "new"}),
		"keysElsewhere":           stranger.sign(t, goodClaims(), map[string]any{"jku": "http://evil.example/jwks", "x5u": "http://evil.example/", "kid": "new"}),
		"truncated":               good[:len(good)-5],
		"twoParts":                head + "." + body,
		"fiveParts":               good + ".a.b",
		"padded":                  good + "==",
		"rubbish":                 "rubbish",
		"apiKeyThatIsNone":        keyPrefix + "AAAA",
		"tooLong":                 strings.Repeat("a", maxToken+1),
		"justLongEnough":          strings.Repeat("a", maxToken),
		"claimsThatAreNoObject":   head + "." + base64.RawURLEncoding.EncodeToString([]byte(`[1]`)) + ".AAAA",
		"headerThatIsNoJSON":      "AAAA." + body + ".AAAA",
		"rs256SignatureAsAnother": strings.Replace(good, head, strings.Split(esGood, ".")[0], 1),
	}
	for name, token := range attacks {
		t.Run(name, func(t *testing.T) {
			c, err := a.as("Bearer " + token)
			require.ErrorIs(t, err, ErrCredential)
			assert.Zero(t, c)
			text := fmt.Sprintf("%v %+v %#v", err, err, err)
			for _, part := range strings.Split(token, ".") {
				if len(part) > 12 {
					assert.NotContains(t, text, part[:12])
				}
			}
			assert.NotContains(t, text, "evil")
		})
	}
	_, err = a.as("Bearer " + good)
	require.NoError(t, err, "the one that all of these were made from is good")
}

func TestAuthenticate_Headers(t *testing.T) {
	i := newIssuer(t, "k", "ES256")
	token := i.sign(t, goodClaims(), nil)
	a := newAuthenticator(t, Config{Tokens: tokensBy(t, i)})
	c, err := a.as()
	require.NoError(t, err)
	assert.Equal(t, Anonymous, c.Kind, "a token in the query is ignored")
	for name, headers := range map[string][]string{
		"empty": {""}, "scheme": {"Bearer"}, "nothing": {"Bearer "}, "basic": {"Basic " + token}, "bare": {token},
		"two": {"Bearer " + token, "Bearer " + token}, "list": {"Bearer " + token + ",Bearer x"},
		"spaces": {"Bearer  " + token}, "tail": {"Bearer " + token + " x"}, "tab": {"Bearer\t" + token},
	} {
		_, err := a.as(headers...)
		require.ErrorIs(t, err, ErrCredential, name)
		assert.NotContains(t, err.Error(), token[:20], name)
	}
}

func keysFile(tb testing.TB, entries ...KeyEntry) string {
	tb.Helper()
	b, err := json.Marshal(map[string]any{"keys": entries})
	require.NoError(tb, err)
	return file(tb, b) // JSON is YAML
}

func TestKeys_RotateWhileItRuns(t *testing.T) {
	old, oldEntry, err := NewKey("backend-1", "all")
	require.NoError(t, err)
	young, youngEntry, err := NewKey("backend-2", "read")
	require.NoError(t, err)
	assert.Len(t, old, len(keyPrefix)+43)
	assert.NotEqual(t, old, young)
	path := keysFile(t, oldEntry)
	a := newAuthenticator(t, Config{KeysFile: path})
	c, err := a.as("Bearer " + old)
	require.NoError(t, err)
	assert.Equal(t, Caller{Kind: Service, Name: "backend-1"}, c)
	_, err = a.as("Bearer " + young)
	require.ErrorIs(t, err, ErrCredential)
	_, err = a.as("Bearer " + old[:len(old)-1])
	require.ErrorIs(t, err, ErrCredential)
	_, err = a.as("Bearer " + oldEntry.SHA256)
	require.ErrorIs(t, err, ErrCredential, "the hash is no key")

	replace := func(with string) {
		require.NoError(t, os.Rename(with, path))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- a.files[0].Run(ctx, time.Millisecond, a.log) }()
		defer func() { cancel(); assert.NoError(t, <-done) }()
		require.Eventually(t, func() bool {
			_, err := a.as("Bearer " + young)
			return err == nil
		}, time.Minute, time.Millisecond)
	}
	replace(keysFile(t, oldEntry, youngEntry))
	_, err = a.as("Bearer " + old)
	require.NoError(t, err, "both are good while clients change over")
	replace(file(t, []byte("keys: [oops"))) // the previous keys remain valid
	_, err = a.as("Bearer " + old)
	require.NoError(t, err)
}

func TestKeys_BadFiles(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	entry := func(name, scope, sum string) string {
		return fmt.Sprintf("{name: %s, scope: %s, sha256: %s}", name, scope, sum)
	}
	for content, want := range map[string]string{
		"keys: [":          "not a keys file",
		"key: []":          "unknown field",
		"keys: [{nam: a}]": "unknown field",
		"keys: [" + entry("a", "all", "xx") + "]":                                         "64 hexadecimal digits",
		"keys: [" + entry("a", "some", sum) + "]":                                         "want all, operator, read, metrics or edge",
		"keys: [" + entry("a b", "all", sum) + "]":                                        "entry 1: name",
		"keys: [" + entry("a", "all", sum) + ", " + entry("b", "all", sum) + "]":          "entry 2: key b is the same as a",
		"keys: [" + entry("a", "all", sum) + ", " + entry("a", "all", sum[2:]+"00") + "]": "two keys named a",
	} {
		path := file(t, []byte(content))
		_, err := New(Config{KeysFile: path})
		require.ErrorContains(t, err, want, content)
		require.ErrorContains(t, err, path)
	}
	for _, bad := range [][2]string{{"", "all"}, {"a b", "all"}, {"a", "some"}} {
		_, _, err := NewKey(bad[0], bad[1])
		require.Error(t, err)
	}
}
