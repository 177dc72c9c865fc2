package formats

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net/url"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

var film = Values{User: "maya", Stream: "S1", Content: "film-77", Expires: time.Unix(1700000060, 0)}

// The token was made with Akamai's EdgeAuth-Token-Python.
func TestAkamai_Vector(t *testing.T) {
	f, err := Parse([]byte("akamai:\n  key: 00112233445566778899aabbccddeeff\n  acl: /vod/{content}/*\n"))
	require.NoError(t, err)
	token, err := f.Akamai.Token(film)
	require.NoError(t, err)
	assert.Equal(t, "exp=1700000060~acl=/vod/film-77/*~id=S1~hmac=3ca74fdfa6c5a78fc6e07bc216e5189098010b5aeae859619c9e779700cb50c3", token)

	f.Akamai.Salt = "salt"
	salted, err := f.Akamai.Token(film)
	require.NoError(t, err)
	assert.NotEqual(t, token, salted)
	assert.NotContains(t, salted, "salt=")
}

// The example of the documentation of ngx_http_secure_link_module.
func TestSecureLink_Vector(t *testing.T) {
	s := SecureLink{Secret: "secret", Expression: "{expires}/s/link127.0.0.1 {secret}"}
	hash, expires, err := s.Token(Values{Expires: time.Unix(2147483647, 0)})
	require.NoError(t, err)
	assert.Equal(t, "_e4Nc3iduzkWRm01TBBNYw", hash)
	assert.EqualValues(t, 2147483647, expires)
}

func cloudFrontFile(t *testing.T, block string, der []byte, more string) string {
	t.Helper()
	text := string(pem.EncodeToMemory(&pem.Block{Type: block, Bytes: der}))
	return "cloudFront:\n  keyPairId: K2JCJMDEHXQW5F\n  resource: https://media.example/vod/{content}/*\n" + more +
		"  privateKey: |\n    " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n    ") + "\n"
}

// decodeCookie decodes a value as CloudFront does.
func decodeCookie(t *testing.T, value string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.DecodeString(strings.NewReplacer("-", "+", "_", "=", "~", "/").Replace(value))
	require.NoError(t, err)
	return b
}

func TestCloudFront(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	for name, c := range map[string]struct {
		file string
		hash crypto.Hash
		sum  func([]byte) []byte
	}{
		"SHA-1, PKCS 1": {cloudFrontFile(t, "RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(key), ""), crypto.SHA1,
			func(b []byte) []byte { s := sha1.Sum(b); return s[:] }},
		"SHA-256, PKCS 8": {cloudFrontFile(t, "PRIVATE KEY", pkcs8, "  hash: sha256\n"), crypto.SHA256,
			func(b []byte) []byte { s := sha256.Sum256(b); return s[:] }},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := Parse([]byte(c.file))
			require.NoError(t, err)
			cookies, err := f.CloudFront.Cookies(film)
			require.NoError(t, err)
			policy := decodeCookie(t, cookies["CloudFront-Policy"])
			require.NoError(t, rsa.VerifyPKCS1v15(&key.PublicKey, c.hash, c.sum(policy), decodeCookie(t, cookies["CloudFront-Signature"])))
			assert.JSONEq(t, `{"Statement":[{"Resource":"https://media.example/vod/film-77/*",
				"Condition":{"DateLessThan":{"AWS:EpochTime":1700000060}}}]}`, string(policy))
			assert.Equal(t, "K2JCJMDEHXQW5F", cookies["CloudFront-Key-Pair-Id"])
			assert.Equal(t, c.hash == crypto.SHA256, cookies["CloudFront-Hash-Algorithm"] == "SHA256")
			for _, value := range cookies {
				assert.Regexp(t, "^[A-Za-z0-9_~-]+$", value)
			}
		})
	}
}

// Whatever a client states as content, the token opens one path below the prefix: the value
// adds no separators, wildcards or placeholders.
func TestFill(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		content := rapid.OneOf(rapid.String(), rapid.StringOf(rapid.RuneFrom([]rune("./*?!~{}%\"\\ +&")))).Draw(t, "content")
		text, err := pattern("/vod/{content}/*").fill(Values{User: "u", Stream: "s", Content: content})
		if err != nil {
			require.ErrorIs(t, err, ErrNoContent)
			require.Regexp(t, `(^|[/\\])\.*([/\\]|$)`, content)
			return
		}
		middle := strings.TrimSuffix(strings.TrimPrefix(text, "/vod/"), "/*")
		require.Regexp(t, `^([A-Za-z0-9._-]|%[0-9A-F]{2})+$`, middle)
		decoded, err := url.PathUnescape(text)
		require.NoError(t, err)
		decoded = strings.ReplaceAll(decoded, `\`, "/")
		require.Equal(t, strings.Count(decoded, "/"), strings.Count(path.Clean(decoded), "/"), "a server that decodes slashes leaves the prefix")
	})
	_, err := pattern("/{user}/").fill(Values{User: "maya"})
	require.NoError(t, err, "content is only needed where it is named")
	_, err = pattern("/{user}/").fill(Values{User: ".."})
	require.ErrorIs(t, err, ErrNoContent, "a user id may be a path of dots too")
}

// Servers behind an edge may decode %2F, and then resolve dots and merge slashes.
func TestFits_SlashesThatAServerDecodes(t *testing.T) {
	a := Akamai{ACL: "/vod/{content}/*"}
	for content, fits := range map[string]bool{
		"film-77": true, "series/1": true, "..film": true, "a..b": true, `a\b`: true, "film 77~*!&": true,
		"": false, ".": false, "..": false, "...": false, "../private": false, `..\private`: false, "a/../../private": false,
		"a/..": false, "/": false, "//": false, "/a": false, "a//b": false, "a/": false,
	} {
		assert.Equal(t, fits, a.Fits(Values{Content: content}), "content %q", content)
	}
}

// A format that is no longer configured, because the file was reloaded, fits.
func TestFits_NotConfigured(t *testing.T) {
	var f Formats
	assert.True(t, f.Akamai.Fits(film) && f.SecureLink.Fits(film) && f.CloudFront.Fits(film))
}

func TestParse_Errors(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	require.NoError(t, err)
	der := x509.MarshalPKCS1PrivateKey(key)
	for name, c := range map[string]struct{ file, want string }{
		"empty":            {"", "no formats"},
		"unknown format":   {"fastly: {}", "unknown member fastly"},
		"unknown member":   {"akamai: {key: hunter2, token: x}", "unknown member token"},
		"not YAML":         {"akamai: [hunter2", "want YAML with the members"},
		"two documents":    {"akamai: {key: 00112233445566778899aabbccddeeff, acl: /x}\n---\nakamai: {}", "several YAML documents"},
		"short key":        {"akamai: {key: '0011', acl: /x}", "akamai: key: want 32 or more"},
		"key not hex":      {"akamai: {key: hunter2hunter2hunter2hunter2, acl: /x}", "akamai: key: want 32 or more"},
		"no acl":           {"akamai: {key: 00112233445566778899aabbccddeeff}", "akamai: acl: want paths"},
		"placeholder":      {"akamai: {key: 00112233445566778899aabbccddeeff, acl: '/{film}/*'}", "akamai: acl: unknown placeholder {film}: want {user}, {stream}, {content}"},
		"open brace":       {"akamai: {key: 00112233445566778899aabbccddeeff, acl: '/{content/*'}", "akamai: acl: a brace that belongs to no placeholder"},
		"closed brace":     {"secureLink: {secret: hunter2hunter2hunter2, expression: '{expires}/content}/ {secret}'}", "expression: a brace that belongs to no placeholder"},
		"separator":        {"akamai: {key: 00112233445566778899aabbccddeeff, acl: '/~vod/{content}/*'}", "akamai: acl: want ASCII paths, separated by !"},
		"line end":         {`akamai: {key: 00112233445566778899aabbccddeeff, acl: "/vod/{content}/*\n"}`, "akamai: acl: want ASCII paths, separated by !"},
		"no slash":         {"akamai: {key: 00112233445566778899aabbccddeeff, acl: '/a/*!vod/{content}/*'}", "akamai: acl: want ASCII paths, separated by !"},
		"short secret":     {"secureLink: {secret: hunter2, expression: '{expires} {secret}'}", "secureLink: secret: want 16"},
		"no expiry":        {"secureLink: {secret: hunter2hunter2hunter2, expression: '/vod/ {secret}'}", "want {expires} and {secret} in it"},
		"other variable":   {"secureLink: {secret: hunter2hunter2hunter2, expression: '{expires}{uri} {secret}'}", "unknown placeholder {uri}"},
		"no key pair":      {"cloudFront: {resource: 'https://x/*'}", "cloudFront: keyPairId: want"},
		"no resource":      {"cloudFront: {keyPairId: K1}", "cloudFront: resource: want a URL"},
		"control":          {`cloudFront: {keyPairId: K1, resource: "https://x/*\n"}`, "want no quotes, backslashes, spaces and control"},
		"quotes":           {`cloudFront: {keyPairId: K1, resource: 'https://x/"*'}`, "want no quotes"},
		"hash":             {cloudFrontFile(t, "RSA PRIVATE KEY", der, "  hash: md5\n"), "hash: want sha1 or sha256"},
		"no RSA key":       {cloudFrontFile(t, "PRIVATE KEY", []byte("hunter2"), ""), "privateKey: want an RSA key in PEM"},
		"no PEM":           {"cloudFront: {keyPairId: K1, resource: 'https://x/*', privateKey: hunter2}", "privateKey: want an RSA key in PEM"},
		"members of lists": {"secureLink: {secret: [hunter2], expression: x}", "whose members are text"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Parse([]byte(c.file))
			require.ErrorContains(t, err, c.want)
			assert.NotContains(t, err.Error(), "hunter2")
		})
	}
}

// The members of a file are those that the documentation names.
func TestParse(t *testing.T) {
	f, err := Parse(fmt.Appendf(nil, "akamai: {key: %s, acl: '/vod/{content}/*', salt: s}\nsecureLink: {secret: %s, expression: '{expires}/vod/{content}/ {secret}'}\n",
		"00112233445566778899aabbccddeeff", "an example of a secret"))
	require.NoError(t, err)
	assert.NotNil(t, f.Akamai)
	assert.NotNil(t, f.SecureLink)
	assert.Nil(t, f.CloudFront)
}
