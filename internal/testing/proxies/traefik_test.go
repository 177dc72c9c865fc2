package proxies

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"sigs.k8s.io/yaml"
)

// traefik has the fields of Traefik's dynamic configuration that traefik.yaml uses, by their names
// in the reference of Traefik 3.
type traefik struct {
	HTTP struct {
		Routers map[string]struct {
			Rule        string   `json:"rule"`
			Middlewares []string `json:"middlewares"`
			Service     string   `json:"service"`
		} `json:"routers"`
		Middlewares map[string]struct {
			Headers *struct {
				CustomRequestHeaders map[string]string `json:"customRequestHeaders"`
			} `json:"headers"`
			ForwardAuth *struct {
				Address                  string   `json:"address"`
				TrustForwardHeader       *bool    `json:"trustForwardHeader"`
				AddAuthCookiesToResponse []string `json:"addAuthCookiesToResponse"`
				MaxResponseBodySize      int64    `json:"maxResponseBodySize"`
			} `json:"forwardAuth"`
		} `json:"middlewares"`
		Services map[string]struct {
			LoadBalancer struct {
				Servers []struct {
					URL string `json:"url"`
				} `json:"servers"`
			} `json:"loadBalancer"`
		} `json:"services"`
	} `json:"http"`
}

// TestTraefikConfiguration checks traefik.yaml without Traefik: it has only documented fields, and
// what they refer to exists.
func TestTraefikConfiguration(t *testing.T) {
	text := Deployed(t, "traefik.yaml", "${SC_NODE}", "node:3002", "${SC_KEY}", key, "${SC_ORIGIN}", "origin:8080")
	var config traefik
	require.NoError(t, yaml.UnmarshalStrict([]byte(text), &config))
	require.Len(t, config.HTTP.Routers, 1)
	for _, router := range config.HTTP.Routers {
		assert.Contains(t, config.HTTP.Services, router.Service)
		require.Equal(t, []string{"streamcount-key", "streamcount", "streamcount-key-removed"}, router.Middlewares)
		for _, name := range router.Middlewares {
			assert.Contains(t, config.HTTP.Middlewares, name)
		}
	}
	auth := config.HTTP.Middlewares["streamcount"].ForwardAuth
	require.NotNil(t, auth)
	assert.Equal(t, "http://node:3002/edge/v1/vod-forwarded/check", auth.Address)
	require.NotNil(t, auth.TrustForwardHeader)
	assert.False(t, *auth.TrustForwardHeader, "clients could send X-Forwarded-Uri themselves")
	assert.Equal(t, key, config.HTTP.Middlewares["streamcount-key"].Headers.CustomRequestHeaders["X-Streamcount-Key"])
	assert.Equal(t, map[string]string{"X-Streamcount-Key": ""}, config.HTTP.Middlewares["streamcount-key-removed"].Headers.CustomRequestHeaders)
}
