package access

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A cached token is not valid after its expiry.
func TestTokens_CachedUntilTheyExpire(t *testing.T) {
	i := newIssuer(t, "k", "ES256")
	cfg := tokensBy(t, i)
	synctest.Test(t, func(t *testing.T) {
		a := newAuthenticator(t, Config{Tokens: cfg})
		claims, expires := goodClaims(), time.Now().Add(10*time.Second)
		claims["exp"] = expires.Unix()
		token := "Bearer " + i.sign(t, claims, nil)
		for time.Now().Before(expires.Add(cfg.Leeway)) {
			_, err := a.as(token)
			require.NoError(t, err)
			assert.Equal(t, 1, a.viewers.known.Len())
			time.Sleep(time.Second)
		}
		_, err := a.as(token)
		require.ErrorContains(t, err, "it has expired")
	})
}
