package api

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/internal/attributes"
)

// The node states the network of viewers only, and only if it has a key and the address of
// the client.
func TestStart_Network(t *testing.T) {
	const forwarded, home = "X-Forwarded-For", "203.0.113.7"
	key := attributes.NetworkKey("0123456789abcdef0123456789abcdef")
	of := func(user, address string) string { return key.Of(user, netip.MustParseAddr(address)) }
	for name, c := range map[string]struct {
		key    attributes.NetworkKey
		caller string
		body   string
		header []string
		want   string
	}{
		"viewer":              {key, "maya", "", []string{forwarded, home}, of("maya", home)},
		"viewer's body":       {key, "maya", `{"profile":"kids"}`, []string{forwarded, home}, of("maya", home)},
		"mapped":              {key, "maya", "", []string{forwarded, "::ffff:" + home}, of("maya", home)},
		"IPv6":                {key, "maya", "", []string{forwarded, "2001:db8::1"}, of("maya", "2001:db8::2")},
		"forged hop":          {key, "maya", "", []string{forwarded, "198.51.100.1, " + home}, of("maya", home)},
		"off":                 {nil, "maya", "", []string{forwarded, home}, ""},
		"no address":          {key, "maya", "", nil, ""},
		"unknown hop":         {key, "maya", "", []string{forwarded, home + ", unknown"}, ""},
		"service":             {key, "service", "", []string{forwarded, home}, ""},
		"service states it":   {key, "service", `{"network":"n"}`, []string{forwarded, home}, "n"},
		"service without key": {nil, "service", `{"network":"n"}`, nil, "n"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{}
			// The peer of a request in a test is 192.0.2.1.
			s := newServer(t, Config{Access: callers, Ingress: IngressConfig{Proxies: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/32")}}}, f)
			s.SetBackend(Backend{NetworkKey: c.key})
			w := call(s, "POST", u+"/start", c.body, append(c.header, asHeader, c.caller)...)
			require.Equal(t, 200, w.Code, w.Body)
			assert.Contains(t, f.taken()[0], " Network:"+c.want+" ")
			assert.NotContains(t, w.Body.String(), `"network"`)
		})
	}
	s := newServer(t, Config{Access: callers}, &fake{})
	s.SetBackend(Backend{NetworkKey: key})
	w := call(s, "POST", u+"/start", `{"network":"n"}`, asHeader, "maya")
	require.Equal(t, 422, w.Code, w.Body)
	assert.Contains(t, w.Body.String(), `"location":"body.network","message":"not for viewers"`)
}
