package access

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestNew_BadTokenConfig(t *testing.T) {
	good := tokensBy(t, newIssuer(t, "k", "ES256"))
	one, err := json.Marshal(newIssuer(t, "k", "ES256").jwk(t))
	require.NoError(t, err)
	for name, change := range map[string]func(*TokenConfig){
		"issuer":       func(c *TokenConfig) { c.Issuer = "" },
		"audience":     func(c *TokenConfig) { c.Audience = "" },
		"one source":   func(c *TokenConfig) { c.SecretFile = file(t, make([]byte, 64)) },
		"no such file": func(c *TokenConfig) { c.JWKSFile = "/none" },
		"not a JWKS":   func(c *TokenConfig) { c.JWKSFile = file(t, []byte("x")) },
		"no key that":  func(c *TokenConfig) { c.JWKSFile = file(t, []byte(`{"keys":[{"kty":"oct","k":"AAAA"}]}`)) },
		"32 or more":   func(c *TokenConfig) { c.JWKSFile, c.SecretFile = "", file(t, []byte("short\n\n")) },
		"not https":    func(c *TokenConfig) { c.JWKSFile, c.JWKSURL = "", "http://id.example/jwks" },
		"not a URL":    func(c *TokenConfig) { c.JWKSFile, c.JWKSURL = "", "id.example" },
		"user in it":   func(c *TokenConfig) { c.JWKSFile, c.JWKSURL = "", "https://me:secret@id.example/jwks" },
		"want at most": func(c *TokenConfig) {
			c.JWKSFile = file(t, []byte(`{"keys":[`+strings.Repeat(string(one)+",", maxSetKeys)+string(one)+`]}`))
		},
	} {
		cfg := good
		change(&cfg)
		_, err := New(Config{Tokens: cfg})
		require.Error(t, err, name)
		want := map[string]string{"issuer": "issuer", "audience": "audience", "one source": "one source"}[name]
		if want == "" {
			want = name
		}
		assert.ErrorContains(t, err, want)
		assert.NotContains(t, err.Error(), "secret@")
	}
}
