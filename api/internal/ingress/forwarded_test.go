package ingress

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestClientOf_Hops(t *testing.T) {
	e, err := New(Config{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	require.NoError(t, err)
	for text, want := range map[string]string{
		"203.0.113.9": "203.0.113.9", "203.0.113.9:51008": "203.0.113.9", "[2001:db8::1]:443": "2001:db8::1", `"[2001:db8::1]"`: "2001:db8::1",
		`"[2001:db8::1]:443"`: "2001:db8::1", "[2001:db8::1]": "2001:db8::1", "2001:db8::1": "2001:db8::1", `"203.0.113.9"`: "203.0.113.9",
		`"203.0.113.9:80"`: "203.0.113.9", "fe80::1%eth0": "fe80::1", "[fe80::1%eth0]:80": "fe80::1", "::ffff:203.0.113.9": "203.0.113.9",
		"[::ffff:203.0.113.9]:80": "203.0.113.9", " \t203.0.113.9:1 ": "203.0.113.9", "203.0.113.9,": "203.0.113.9", "203.0.113.9, ,": "203.0.113.9",
		"1.2.3.4, 203.0.113.9:1, 10.0.0.2:99": "203.0.113.9", "203.0.113.9:1,10.0.0.2:99": "203.0.113.9", "10.0.0.3:5": "10.0.0.3",
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = "10.0.0.1:1"
		r.Header.Set("X-Forwarded-For", text)
		at, hop := e.ClientOf(r)
		assert.Equal(t, want, at.String(), text)
		assert.Empty(t, hop, text)
	}
	for _, odd := range []string{"unknown", "_hidden", "203.0.113.9:", "203.0.113.9:99999", "203.0.113.9:x", "[2001:db8::1", "[2001:db8::1]x",
		"[203.0.113.9", "300.1.1.1", `"`, "example.com", "[]", "[", ":", "for=203.0.113.9", strings.Repeat("x", 1000)} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = "10.0.0.1:1"
		r.Header["X-Forwarded-For"] = []string{"6.6.6.6", odd, "10.0.0.2"}
		at, hop := e.ClientOf(r)
		assert.Equal(t, "10.0.0.2", at.String(), "%q: what is before it is ignored", odd)
		assert.Equal(t, odd[:min(len(odd), maxHop)], hop)
	}
}

// addressOf returns the client's address of r.
func addressOf(i *Ingress, r *http.Request) string {
	client, _ := i.ClientOf(r)
	return client.String()
}

func TestClientOf(t *testing.T) {
	e, err := New(Config{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}})
	require.NoError(t, err)
	tests := []struct{ peer, forwarded, want string }{
		{"203.0.113.7:1", "", "203.0.113.7"},
		{"203.0.113.7:1", "1.2.3.4", "203.0.113.7"},
		{"10.0.0.1:1", "", "10.0.0.1"},
		{"10.0.0.1:1", "203.0.113.7", "203.0.113.7"},
		{"10.0.0.1:1", "6.6.6.6, 203.0.113.7", "203.0.113.7"},
		{"10.0.0.1:1", "203.0.113.7, 10.0.0.2", "203.0.113.7"},
		{"10.0.0.1:1", "203.0.113.7,rubbish", "10.0.0.1"},
		{"10.0.0.1:1", "203.0.113.7, rubbish, 10.0.0.2", "10.0.0.2"},
		{"10.0.0.1:1", "10.0.0.3", "10.0.0.3"},
		{"[::ffff:10.0.0.1]:1", "2001:db8::7", "2001:db8::7"},
		{"[fd00::1]:1", "::ffff:203.0.113.7", "203.0.113.7"},
		{"pipe", "1.2.3.4", "invalid IP"},
	}
	for _, tt := range tests {
		r := httptest.NewRequest("GET", "/", nil)
		r.RemoteAddr = tt.peer
		if tt.forwarded != "" {
			r.Header.Set("X-Forwarded-For", tt.forwarded)
		}
		assert.Equal(t, tt.want, addressOf(e, r), "%+v", tt)
	}
}

// A client cannot choose its address: what it writes into the header before a trusted proxy
// adds to it is ignored, and so is the header of a client that is not a proxy.
func TestClientOf_ForgedHeader(t *testing.T) {
	e, err := New(Config{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}})
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		hop := rapid.OneOf(rapid.SampledFrom([]string{"10.0.0.9", "1.2.3.4", "", "x", "::1", "10.0.0.1:80", "unknown"}), rapid.String())
		claims := rapid.SliceOfN(hop, 0, 5).Draw(t, "claims")
		r := httptest.NewRequest("GET", "/", nil)
		r.Header["X-Forwarded-For"] = claims
		r.RemoteAddr = "203.0.113.7:1"
		if got := addressOf(e, r); got != "203.0.113.7" {
			t.Fatalf("direct: %s", got)
		}
		r.RemoteAddr = "10.0.0.1:1"
		r.Header["X-Forwarded-For"] = append(claims, "203.0.113.7")
		if got := addressOf(e, r); got != "203.0.113.7" {
			t.Fatalf("through a proxy: %s", got)
		}
	})
}

func TestKnowsClient(t *testing.T) {
	var log strings.Builder
	e, err := New(Config{Proxies: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Log: slog.New(slog.NewTextHandler(&log, nil))})
	require.NoError(t, err)
	for _, c := range []struct {
		peer   string
		header [2]string
		want   bool
	}{
		{"203.0.113.7:1", [2]string{}, true},
		{"[::ffff:203.0.113.7]:1", [2]string{}, true},
		{"[2001:db8::1]:1", [2]string{}, true},
		{"192.168.0.7:1", [2]string{}, true},
		{"10.0.0.1:1", [2]string{"X-Forwarded-For", "203.0.113.7"}, true},
		{"10.0.0.1:1", [2]string{"X-Forwarded-For", "6.6.6.6, 203.0.113.7, 10.0.0.2"}, true},
		// The address of a proxy or of this machine, or none.
		{"10.0.0.1:1", [2]string{}, false},
		{"10.0.0.1:1", [2]string{"X-Forwarded-For", "10.0.0.2"}, false},
		{"10.0.0.1:1", [2]string{"X-Forwarded-For", "unknown"}, false},
		{"10.0.0.1:1", [2]string{"X-Forwarded-For", "127.0.0.1"}, false},
		{"127.0.0.1:1", [2]string{}, false},
		{"@", [2]string{}, false},
		// Headers of a proxy that is not trusted.
		{"203.0.113.7:1", [2]string{"X-Forwarded-For", "192.0.2.1"}, false},
		{"203.0.113.7:1", [2]string{"Via", "1.1 proxy"}, false},
	} {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.RemoteAddr = c.peer
		if c.header[0] != "" {
			r.Header.Set(c.header[0], c.header[1])
		}
		client, _ := e.ClientOf(r)
		assert.Equal(t, c.want, e.KnowsClient(r, client), "%v", c)
	}
	assert.Equal(t, 1, strings.Count(log.String(), "a proxy that is not trusted"), log.String())
}
