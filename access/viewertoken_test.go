package access

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestVerifyToken(t *testing.T) {
	t.Parallel()
	key, entry, err := NewKey("backend", "all")
	require.NoError(t, err)
	i := newIssuer(t, "k", "ES256")
	a := newAuthenticator(t, Config{KeysFile: keysFile(t, entry), Tokens: tokensBy(t, i)})
	claims := goodClaims()
	claims["sid"], claims["jti"], claims["did"] = "tab-1", 17, strings.Repeat("d", 200)
	claims["long"], claims["list"], claims["empty"] = strings.Repeat("d", 201), []string{"a"}, ""
	token := i.sign(t, claims, nil)

	caller, err := a.as("Bearer " + token) // the cached result of a call has no texts
	require.NoError(t, err)
	for range 2 {
		got, err := a.VerifyToken(context.Background(), token)
		require.NoError(t, err)
		assert.Equal(t, caller, got.Caller)
		assert.Equal(t, Viewer, got.Caller.Kind)
		for claim, text := range map[string]string{
			"sid": "tab-1", "jti": "17", "did": strings.Repeat("d", 200), "long": "", "list": "", "empty": "", "none": "", "exp": "",
		} {
			assert.Equal(t, text, got.Text(claim), claim)
		}
	}
	assert.Equal(t, 1, a.viewers.known.Len())

	claims = goodClaims()
	for n := range maxTexts + 5 {
		claims[fmt.Sprintf("claim%02d", n)] = "x"
	}
	got, err := a.VerifyToken(context.Background(), i.sign(t, claims, nil))
	require.NoError(t, err)
	assert.Len(t, got.texts, maxTexts)
	assert.Equal(t, "x", got.Text("claim00"))

	expired := goodClaims()
	expired["exp"] = time.Now().Add(-time.Hour).Unix()
	for _, bad := range []string{"", "a.b.c", token + "x", key, i.sign(t, expired, nil), strings.Repeat("a", maxToken+1)} {
		got, err := a.VerifyToken(context.Background(), bad)
		require.ErrorIs(t, err, ErrCredential)
		assert.Equal(t, Token{}, got)
		if bad != "" {
			assert.NotContains(t, err.Error(), bad)
		}
	}
	_, err = newAuthenticator(t, Config{KeysFile: keysFile(t, entry)}).VerifyToken(context.Background(), token)
	require.ErrorIs(t, err, ErrCredential)
	assert.ErrorContains(t, err, "not configured")
}
