package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestKey_JWKRoundTrip(t *testing.T) {
	for _, a := range []Algorithm{ES256, EdDSA, HS256} {
		k := newTestKey(t, a)
		b, err := json.Marshal(k)
		require.NoError(t, err)
		again := readJWK(t, string(b))
		assert.Equal(t, k.ID, again.ID)
		assert.True(t, again.CanSign())
		assert.Equal(t, verifyingKey(t, k), verifyingKey(t, again))
		if a == HS256 {
			continue
		}
		b, err = json.Marshal(k.Public())
		require.NoError(t, err)
		public := readJWK(t, string(b))
		assert.Equal(t, k.ID, public.ID)
		assert.False(t, public.CanSign())
	}
	_, err := NewKey(HS256)
	require.ErrorContains(t, err, "cannot be generated")
}

func pemOf(t *testing.T, blockType string, der []byte, err error) string {
	t.Helper()
	require.NoError(t, err)
	return string(pem.EncodeToMemory(&pem.Block{Type: blockType, Bytes: der}))
}

func TestParseFile(t *testing.T) {
	es, other, ed := newTestKey(t, ES256), newTestKey(t, ES256), newTestKey(t, EdDSA)
	pkcs8 := func(k Key) string {
		der, err := x509.MarshalPKCS8PrivateKey(k.private)
		return pemOf(t, "PRIVATE KEY", der, err)
	}
	der, err := x509.MarshalECPrivateKey(es.private.(*ecdsa.PrivateKey))
	sec1 := pemOf(t, "EC PRIVATE KEY", der, err)
	der, err = x509.MarshalPKIXPublicKey(verifyingKey(t, other))
	public := pemOf(t, "PUBLIC KEY", der, err)
	one, err := json.Marshal(es)
	require.NoError(t, err)
	two, err := json.Marshal(other)
	require.NoError(t, err)
	secret := strings.Repeat("s", 40)
	for name, c := range map[string]struct {
		content   string
		algorithm Algorithm
		want      []string
	}{
		"PKCS 8":          {pkcs8(es), ES256, []string{es.ID}},
		"SEC 1":           {sec1 + "\n", ES256, []string{es.ID}},
		"Ed25519":         {pkcs8(ed), EdDSA, []string{ed.ID}},
		"several":         {pkcs8(es) + public + pkcs8(ed), ES256, []string{es.ID, other.ID, ed.ID}},
		"JWK":             {string(one), ES256, []string{es.ID}},
		"JWK set":         {fmt.Sprintf(`{"keys":[%s,%s]}`, one, two), ES256, []string{es.ID, other.ID}},
		"secret":          {secret + "\r\n", HS256, []string{mustSecret(t, secret).ID}},
		"binary secret":   {"\n\t" + secret + " \n\n", HS256, []string{mustSecret(t, "\n\t"+secret+" \n").ID}},
		"byte order mark": {"\ufeff" + pkcs8(es), ES256, []string{es.ID}},
		"CR LF":           {strings.ReplaceAll(pkcs8(es), "\n", "\r\n"), ES256, []string{es.ID}},
		"secret as a JWK": {keyOfA1, HS256, []string{readJWK(t, keyOfA1).ID}},
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := ParseFile([]byte(c.content), c.algorithm)
			require.NoError(t, err)
			var ids []string
			for i, k := range keys {
				ids = append(ids, k.ID)
				assert.Equal(t, i == 0, k.CanSign(), "only the first signs")
			}
			assert.Equal(t, c.want, ids)
		})
	}
}

func mustSecret(t *testing.T, secret string) Key {
	t.Helper()
	k, err := NewSecret([]byte(secret))
	require.NoError(t, err)
	return k
}

func TestParseFile_Errors(t *testing.T) {
	es := newTestKey(t, ES256)
	der, err := x509.MarshalPKIXPublicKey(verifyingKey(t, es))
	public := pemOf(t, "PUBLIC KEY", der, err)
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	require.NoError(t, err)
	der, err = x509.MarshalPKCS8PrivateKey(p384)
	curve := pemOf(t, "PRIVATE KEY", der, err)
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	der, err = x509.MarshalPKCS8PrivateKey(r)
	rsaKey := pemOf(t, "PRIVATE KEY", der, err)
	jwk, err := json.Marshal(es)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		content   string
		algorithm Algorithm
		want      string
	}{
		"empty":              {"\n", ES256, "the file is empty"},
		"empty secret":       {"", HS256, "the file is empty"},
		"other text":         {"hunter2", ES256, "want PEM, a JWK or a JWK set"},
		"short secret":       {"hunter2", HS256, "a secret of 7 bytes"},
		"public":             {public, ES256, "the first key is a public key"},
		"curve":              {curve, ES256, "PEM block 1: an EC key on the curve P-384"},
		"RSA":                {rsaKey, ES256, "a private key of type *rsa.PrivateKey"},
		"other algorithm":    {string(jwk), EdDSA, "the first key is for ES256: token-algorithm is EdDSA"},
		"text after PEM":     {public + "hunter2", ES256, "text that is no block"},
		"other block":        {pemOf(t, "CERTIFICATE", der, nil), ES256, `a block "CERTIFICATE"`},
		"broken DER":         {pemOf(t, "PRIVATE KEY", []byte("hunter2"), nil), ES256, "PEM block 1: the content of the block is no PRIVATE KEY"},
		"broken SEC 1":       {pemOf(t, "EC PRIVATE KEY", []byte("hunter2"), nil), ES256, "PEM block 1: the content of the block is no EC PRIVATE KEY"},
		"broken public key":  {pemOf(t, "PUBLIC KEY", []byte("hunter2"), nil), ES256, "PEM block 1: the content of the block is no PUBLIC KEY"},
		"broken JSON":        {`{"kty":"hunter2`, ES256, "the file is not JSON"},
		"keys of no list":    {`{"keys":"hunter2"}`, ES256, "its member keys is not a list"},
		"empty set":          {`{"keys":[]}`, ES256, "no key in the file"},
		"key of a set":       {fmt.Sprintf(`{"keys":[%s,{"kty":5}]}`, jwk), ES256, "key 2: not a JWK"},
		"wrong alg":          {strings.Replace(string(jwk), `"ES256"`, `"ES512"`, 1), ES256, `with alg "ES512": want ES256`},
		"not on the curve":   {strings.Replace(string(jwk), `"x":"`, `"x":"AAAA`, 1), ES256, "a JWK of type"},
		"foreign d":          {withMember(t, jwk, "d", encode(make([]byte, 31))+"AQ"), ES256, "does not belong"},
		"not base64url":      {withMember(t, jwk, "x", "?"), ES256, "not base64url"},
		"members of no text": {`{"kty":["hunter2"]}`, ES256, "not a JWK"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseFile([]byte(c.content), c.algorithm)
			require.ErrorContains(t, err, c.want)
			assert.NotContains(t, err.Error(), "hunter2")
		})
	}
}

func withMember(t *testing.T, jwk []byte, member, value string) string {
	t.Helper()
	var m map[string]string
	require.NoError(t, json.Unmarshal(jwk, &m))
	m[member] = value
	b, err := json.Marshal(m)
	require.NoError(t, err)
	return string(b)
}
