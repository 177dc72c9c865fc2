package client

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
)

// Starts and heartbeats request tokens, each of which is reported.
func TestTokens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var got, queries []string
		stream := apitype.Stream{ID: "s1", TTLSeconds: 60, HeartbeatSeconds: 20}
		n := 0
		c, _ := newClient(t, Config{Tokens: []string{"jwt", "akamai"}, OnToken: func(user string, token apitype.Token) {
			mu.Lock()
			defer mu.Unlock()
			got = append(got, user+" "+token.JWT)
		}}, func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			n++
			if strings.HasSuffix(r.URL.Path, "/stop") || r.Method == http.MethodDelete {
				return reply(200, "application/json", apitype.User{UserID: "maya"}), nil
			}
			queries = append(queries, r.URL.RawQuery)
			token := &apitype.Token{JWT: "jwt-" + string(rune('0'+n))}
			if strings.HasSuffix(r.URL.Path, "/start") {
				return reply(200, "application/json", apitype.User{UserID: "maya", Streams: 1, Stream: &stream, Token: token}), nil
			}
			s := stream
			s.Token, s.Degraded = token, n == 3
			return reply(200, "application/json", s), nil
		})
		s, err := c.Start(t.Context(), "maya", apitype.Start{})
		require.NoError(t, err)
		assert.Equal(t, "jwt-1", s.Info().Token.JWT)
		time.Sleep(45 * time.Second)
		synctest.Wait()
		require.NoError(t, s.Stop(t.Context()))
		mu.Lock()
		defer mu.Unlock()
		require.GreaterOrEqual(t, len(got), 3)
		assert.Equal(t, []string{"maya jwt-1", "maya jwt-2", "maya jwt-3"}, got[:3], "also with a degraded answer")
		for _, q := range queries {
			assert.Equal(t, "token=jwt%2Cakamai", q)
		}
		assert.NotEqual(t, "jwt-1", s.Info().Token.JWT)
	})
}

func TestTokenKeys(t *testing.T) {
	keys := apitype.TokenKeys{Keys: []apitype.TokenKey{{KID: "k1", Algorithm: "ES256", State: "signing"}}}
	c, w := newClient(t, Config{}, func(*http.Request) (*http.Response, error) { return reply(200, "application/json", keys), nil })
	got, err := c.TokenKeys(t.Context())
	require.NoError(t, err)
	assert.Equal(t, keys, got)
	_, err = c.RotateTokenKey(t.Context(), true)
	require.NoError(t, err)
	rotations := w.requests("/api/v1/token-keys/rotate")
	require.Len(t, rotations, 1)
	assert.JSONEq(t, `{"now":true}`, rotations[0].body)
}
