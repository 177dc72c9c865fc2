package access

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/internal/testing/testlog"
)

func publicPEM(tb testing.TB, key any) []byte {
	tb.Helper()
	der, err := x509.MarshalPKIXPublicKey(key)
	require.NoError(tb, err)
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func certificateOf(tb testing.TB, i issuer) []byte {
	tb.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(5), Subject: pkix.Name{CommonName: "id.example"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, i.key.Public(), i.key)
	require.NoError(tb, err)
	return der
}

// with returns a copy of key with other members. A nil member is removed.
func with(key map[string]any, members map[string]any) map[string]any {
	out := map[string]any{}
	for _, from := range []map[string]any{key, members} {
		for name, value := range from {
			if value == nil {
				delete(out, name)
			} else {
				out[name] = value
			}
		}
	}
	return out
}

// Every member of a key that is not needed may be wrong, as it is with Auth0,
// WorkOS and Asgardeo.
func TestJWK_IgnoresMembersThatDoNotDecide(t *testing.T) {
	good, other := newIssuer(t, "k", "RS256"), newIssuer(t, "other", "RS256")
	der := certificateOf(t, good)
	sum1, sum256 := sha1.Sum(der), sha256.Sum256(der)
	text := base64.RawURLEncoding.EncodeToString
	negative := bytes.Replace(der, []byte{2, 1, 5}, []byte{2, 1, 0xfb}, 1) // serial -5
	_, err := x509.ParseCertificate(negative)
	require.Error(t, err)
	x5c := []string{base64.StdEncoding.EncodeToString(der)}
	for name, members := range map[string]map[string]any{
		"thumbprint_of_hex":         {"x5c": x5c, "x5t": text([]byte(hex.EncodeToString(sum1[:])))},
		"sha256_of_hex":             {"x5c": x5c, "x5t#S256": text([]byte(hex.EncodeToString(sum256[:])))},
		"thumbprint_wrong":          {"x5c": x5c, "x5t": "AAAA"},
		"thumbprint_number":         {"x5t": 7, "x5t#S256": nil},
		"certificate_of_another":    {"x5c": []string{base64.StdEncoding.EncodeToString(certificateOf(t, other))}},
		"certificate_serial":        {"x5c": []string{base64.StdEncoding.EncodeToString(negative)}, "x5t": text(sum1[:])},
		"certificate_text":          {"x5c": x5c[0]},
		"certificate_pem":           {"x5c": []string{string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))}},
		"certificate_base64url":     {"x5c": []string{text(der)}},
		"certificate_object":        {"x5c": map[string]any{"a": 1}, "x5u": 7},
		"certificate_address":       {"x5u": "nonsense"},
		"unknown_members":           {"ext": true, "issuer": 7, "status": "ACTIVE", "ver": "2.0", "iat": 1.5, "exp": "x"},
		"x5tS256":                   {"x5tS256": "AAAA", "key_ops": []string{"verify"}},
		"use_and_operations":        {"use": "sig", "key_ops": []string{"sign"}},
		"use_signature":             {"use": "signature"},
		"operations_without_use":    {"use": nil, "key_ops": []string{"sign", "verify"}},
		"null_members":              {"use": json.RawMessage("null"), "alg": json.RawMessage("null"), "key_ops": json.RawMessage("null")},
		"no_algorithm":              {"alg": nil},
		"members_in_other_capitals": {"N": "AAAA", "Kty": "oct", "KID": "evil", "Use": "enc"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, set := range [][]byte{
				keySet(t, with(good.jwk(t), members)), keySet(t, with(good.jwk(t), members), other.jwk(t)),
			} {
				cfg := tokensBy(t, good)
				cfg.JWKSFile = file(t, set)
				_, err := newAuthenticator(t, Config{Tokens: cfg}).as("Bearer " + good.sign(t, goodClaims(), nil))
				require.NoError(t, err)
			}
		})
	}
}

// Providers encode numbers in different ways.
func TestJWK_ReadsEverySpelling(t *testing.T) {
	r, e := newIssuer(t, "r", "RS256"), newIssuer(t, "e", "ES256")
	n := r.key.Public().(*rsa.PublicKey).N.Bytes()
	zero := append([]byte{0}, n...)
	point, err := e.key.Public().(*ecdsa.PublicKey).Bytes()
	require.NoError(t, err)
	std, text := base64.StdEncoding.EncodeToString, base64.RawURLEncoding.EncodeToString
	for name, key := range map[string]map[string]any{
		"padded":          with(r.jwk(t), map[string]any{"n": base64.URLEncoding.EncodeToString(n)}),
		"standard":        with(r.jwk(t), map[string]any{"n": std(n), "e": "AQAB"}),
		"leading_zero":    with(r.jwk(t), map[string]any{"n": text(zero), "e": "AAEAAQ"}),
		"ec_standard":     with(e.jwk(t), map[string]any{"x": std(point[1:33]), "y": std(point[33:])}),
		"ec_leading_zero": with(e.jwk(t), map[string]any{"x": text(append([]byte{0}, point[1:33]...))}),
	} {
		set, err := readKeyset(keySet(t, key))
		require.NoError(t, err, name)
		switch k := set.keys[0].key.(type) {
		case *rsa.PublicKey:
			assert.True(t, k.Equal(r.key.Public()), name)
		case *ecdsa.PublicKey:
			assert.True(t, k.Equal(e.key.Public()), name)
		}
	}
}

// A coordinate may have lost its leading zeros: one key in 128 has some.
func TestJWK_ShortCoordinate(t *testing.T) {
	for {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		require.NoError(t, err)
		point, err := key.PublicKey.Bytes()
		require.NoError(t, err)
		if point[1] != 0 {
			continue
		}
		i := issuer{"k", jwt.SigningMethodES256, key}
		set, err := readKeyset(keySet(t, with(i.jwk(t), map[string]any{"x": base64.RawURLEncoding.EncodeToString(point[2:33])})))
		require.NoError(t, err)
		assert.True(t, key.PublicKey.Equal(set.keys[0].key))
		return
	}
}

// Keys that cannot verify tokens are ignored and logged once. The other keys of the set are used.
func TestJWK_LeavesKeysOut(t *testing.T) {
	good, r, e := newIssuer(t, "good", "ES256"), newIssuer(t, "bad", "RS256").jwk(t), newIssuer(t, "bad", "ES256").jwk(t)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	require.NoError(t, err)
	text := base64.RawURLEncoding.EncodeToString
	huge := new(big.Int).SetBit(big.NewInt(1), 16384, 1)
	for reason, key := range map[string]any{
		"it has 1024 bits":                   jwk(t, "bad", "", small.Public()),
		"it has 16385 bits":                  with(r, map[string]any{"n": text(huge.Bytes())}),
		"bytes":                              with(r, map[string]any{"n": text(make([]byte, 9000))}),
		"its n is even":                      with(r, map[string]any{"n": text(append(bytes.Repeat([]byte{0xff}, 255), 0))}),
		"not an odd number":                  with(r, map[string]any{"e": "AQ"}),
		"its e is greater":                   with(r, map[string]any{"e": text(bytes.Repeat([]byte{0xff}, 9))}),
		"it has no n":                        with(r, map[string]any{"n": nil}),
		"its n is not base64url":             with(r, map[string]any{"n": "!"}),
		"its n is not a text":                with(r, map[string]any{"n": 7}),
		"its kid is not a text":              with(e, map[string]any{"kid": 7}),
		"use is enc":                         with(e, map[string]any{"use": "enc"}),
		"key_ops has no verify":              with(r, map[string]any{"use": nil, "key_ops": []string{"encrypt"}}),
		"its key_ops is not a list of texts": with(r, map[string]any{"key_ops": "verify"}),
		`its alg "RSA-OAEP" is not`:          with(r, map[string]any{"alg": "RSA-OAEP"}),
		`its alg "ES384" is not`:             with(e, map[string]any{"alg": "ES384"}),
		`its alg "HS256" is not`:             with(r, map[string]any{"alg": "HS256"}),
		"not a point of the curve":           with(e, map[string]any{"x": text(make([]byte, 32))}),
		"its x has 40 bytes":                 with(e, map[string]any{"x": text(bytes.Repeat([]byte{1}, 40))}),
		`its curve "secp256k1" is not`:       with(e, map[string]any{"crv": "secp256k1"}),
		`its curve "X25519" is not`:          map[string]any{"kid": "bad", "kty": "OKP", "crv": "X25519", "x": text(make([]byte, 32))},
		"its x has 31 bytes":                 map[string]any{"kid": "bad", "kty": "OKP", "crv": "Ed25519", "x": text(make([]byte, 31))},
		"it is a symmetric key":              map[string]any{"kid": "bad", "kty": "oct", "k": text(make([]byte, 32)), "alg": "HS256"},
		`its kty "AKP" is unknown`:           map[string]any{"kid": "bad", "kty": "AKP", "pub": "AAAA"},
		"it has no kty":                      map[string]any{"kid": "bad"},
		"it is not a JSON object":            json.RawMessage("null"),
	} {
		t.Run(reason, func(t *testing.T) {
			set, err := readKeyset(keySet(t, key))
			require.ErrorContains(t, err, "no key that can check tokens")
			require.ErrorContains(t, err, reason)
			require.Len(t, set.unused, 1)
			read, err := readKeyset(keySet(t, key, good.jwk(t)))
			require.NoError(t, err)
			assert.Equal(t, map[string]bool{"good": true}, read.kids)
			log := &testlog.Buffer{}
			read.log(slog.New(slog.NewTextHandler(log, nil)))
			assert.Equal(t, 1, strings.Count(log.String(), "is not used"))
		})
	}
	_, err = readKeyset([]byte(`{"keys":[]}`))
	require.ErrorContains(t, err, "HS256")
	for _, content := range []string{"", "<!doctype html><html>", "{}x", `{"keys":{}}`, `{"keys":null}`, `{"a":"b"}`, `[]`, "-----BEGIN"} {
		_, err := readKeyset([]byte(content))
		require.ErrorContains(t, err, "JWKS", content)
	}
}

// A JWKS with private keys, which must not be published, still verifies tokens.
func TestJWK_PrivateKeysAreReported(t *testing.T) {
	i := newIssuer(t, "k", "EdDSA")
	log := &testlog.Buffer{}
	cfg := tokensBy(t, i)
	cfg.JWKSFile = file(t, keySet(t, with(i.jwk(t), map[string]any{"d": base64.RawURLEncoding.EncodeToString(i.key.(ed25519.PrivateKey).Seed())})))
	a := newAuthenticator(t, Config{Tokens: cfg, Log: slog.New(slog.NewTextHandler(log, nil))})
	_, err := a.as("Bearer " + i.sign(t, goodClaims(), nil))
	require.NoError(t, err)
	assert.Contains(t, log.String(), "its private part is published")
}

// Other formats than JWKS: Google's map of certificates, and PEM.
func TestKeyset_CertificatesAndPEM(t *testing.T) {
	a, b := newIssuer(t, "a", "RS256"), newIssuer(t, "b", "RS256")
	certificate := func(i issuer) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificateOf(t, i)}))
	}
	broken := "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
	content, err := json.Marshal(map[string]string{"a": certificate(a), "b": certificate(b), "broken": broken, "cut": broken[:40]})
	require.NoError(t, err)
	set, err := readKeyset(content)
	require.NoError(t, err)
	assert.Equal(t, map[string]bool{"a": true, "b": true}, set.kids)
	assert.Len(t, set.unused, 2)
	assert.True(t, a.key.(*rsa.PrivateKey).PublicKey.Equal(set.choose("a", "", "RS256", nil).keys[0].key))

	ed := newIssuer(t, "any", "EdDSA")
	for name, content := range map[string][]byte{
		"public_key":  publicPEM(t, ed.key.Public()),
		"certificate": []byte(certificate(issuer{"x", jwt.SigningMethodEdDSA, ed.key})),
		"two":         append(publicPEM(t, a.key.Public()), publicPEM(t, ed.key.Public())...),
		"one_broken":  append([]byte(broken), publicPEM(t, ed.key.Public())...),
	} {
		cfg := tokensBy(t, ed)
		cfg.JWKSFile = file(t, content)
		auth := newAuthenticator(t, Config{Tokens: cfg})
		for _, kid := range []any{"any", "other", nil} {
			_, err := auth.as("Bearer " + ed.sign(t, goodClaims(), map[string]any{"kid": kid}))
			require.NoError(t, err, name)
		}
	}
	_, err = readKeyset(bytes.Repeat(publicPEM(t, ed.key.Public()), maxCandidates))
	require.NoError(t, err)
	_, err = readKeyset(bytes.Repeat(publicPEM(t, ed.key.Public()), maxCandidates+1))
	require.ErrorContains(t, err, "a PEM file of 11 keys: want at most 10")
	private, err := x509.MarshalPKCS8PrivateKey(ed.key)
	require.NoError(t, err)
	_, err = readKeyset(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	require.ErrorContains(t, err, "want a public key or a certificate")
	_, err = checkKey("another kind")
	require.Error(t, err)
}

// A set with many unusable keys does not flood the log.
func TestKeyset_LogsFewUnusedKeys(t *testing.T) {
	set, _ := readKeyset([]byte(`{"keys":[` + strings.Repeat("null,", 5000) + `null]}`))
	out := &testlog.Buffer{}
	set.log(slog.New(slog.NewTextHandler(out, nil)))
	assert.Equal(t, maxSetKeys+1, strings.Count(out.String(), "\n"))
	assert.Contains(t, out.String(), fmt.Sprint("keys=", 5001-maxSetKeys))
}

// A key with alg is used for that algorithm, and one without for the first of its kind. All keys
// with the same kid are tried.
func TestKeyset_ChoosesKeys(t *testing.T) {
	r, e, ed := newIssuer(t, "r", "RS256").jwk(t), newIssuer(t, "e", "ES256").jwk(t), newIssuer(t, "ed", "EdDSA").jwk(t)
	read := func(keys ...any) *keyset {
		set, err := readKeyset(keySet(t, keys...))
		require.NoError(t, err)
		return set
	}
	count := func(s *keyset, kid, x5t, alg string, allowed ...string) int {
		return len(s.choose(kid, x5t, alg, allowed).keys)
	}
	noAlg := read(with(r, map[string]any{"alg": nil}))
	assert.Equal(t, 1, count(noAlg, "r", "", "RS256"))
	assert.Zero(t, count(noAlg, "r", "", "PS256"))
	assert.Equal(t, 1, count(noAlg, "r", "", "PS256", "PS256"))
	assert.Zero(t, count(noAlg, "r", "", "ES256", "ES256"), "of another kind")
	assert.Zero(t, count(read(r), "r", "", "PS256", "PS256"), "the key's alg is RS256")
	assert.Zero(t, count(read(r), "r", "", "HS256", "HS256"))
	three := read(r, with(r, map[string]any{"alg": "RS384"}), with(r, map[string]any{"alg": "RS512"}), with(r, map[string]any{"use": "enc", "alg": "RSA-OAEP"}))
	for _, alg := range []string{"RS256", "RS384", "RS512"} {
		assert.Equal(t, 1, count(three, "r", "", alg), alg)
	}
	assert.Equal(t, 2, count(read(r, with(newIssuer(t, "r", "RS256").jwk(t), nil)), "r", "", "RS256"))
	assert.Equal(t, 1, count(read(with(ed, map[string]any{"alg": "Ed25519"})), "ed", "", "EdDSA"))

	mixed := read(r, e, with(newIssuer(t, "", "RS256").jwk(t), nil))
	assert.Equal(t, 2, count(mixed, "", "", "RS256"), "without a kid all that can are tried")
	assert.Equal(t, 1, count(mixed, "", "e", "ES256"))
	assert.Equal(t, 1, count(mixed, "", "r", "RS256"), "AD FS names the key by x5t")
	assert.Equal(t, 2, count(mixed, "", "unknown", "RS256"))
	assert.Zero(t, count(mixed, "other", "", "RS256"), "a key without kid is not one of every kid")
	many := make([]any, 30)
	for n := range many {
		many[n] = ed
	}
	assert.Equal(t, maxCandidates, count(read(many...), "", "", "EdDSA"))
}
