package edge

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/access"
	"streamcount/internal/testing/etcdtest"
	"streamcount/lease"
)

// Leave finds the session by the URI of the media: below leave/, or in the headers that the
// profile reads.
func TestLeave_URI(t *testing.T) {
	t.Parallel()
	l := newLimiter(t, etcdtest.Client(t), lease.Config{Prefix: etcdtest.Prefix(t), Limit: 9})
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, []byte(strings.Repeat("s", 32)), 0o600))
	tokens, err := access.New(access.Config{Tokens: access.TokenConfig{SecretFile: secret, Issuer: "site", Audience: "streamcount"}})
	require.NoError(t, err)
	n := newNode(t, Config{CheckerConfig: CheckerConfig{Verifier: tokens}}, l)
	const target = "/vod/film/1.ts?sid=a"
	for name, tt := range map[string]struct {
		profile, path string
		start         string // the target of the check that starts the stream
		headers       []string
		status        int
		reason        string
		left          bool // the stream has ended
	}{
		"below, original":              {"vod", "leave" + target, target, nil, 204, "", true},
		"below, forwarded":             {"forwarded", "leave" + target, target, nil, 204, "", true},
		"below, request":               {"request", "leave" + target, target, nil, 204, "", true},
		"below, whatever the header":   {"vod", "leave" + target, target, []string{"X-Original-URI: /vod/film/1.ts?sid=b"}, 204, "", true},
		"below, normalised":            {"vod", "leave/x/..//%76od/film/1.ts?sid=a", target, nil, 204, "", true},
		"below, a token in the path":   {"path", "leave/t/TOKEN/film/", "/t/TOKEN/film/1.ts", nil, 204, "", true},
		"below, split":                 {"split", "leave" + target, target, nil, 204, "", true},
		"a header, original":           {"vod", "leave", target, []string{"X-Original-URI: " + target, "X-Original-Method: POST"}, 204, "", true},
		"a header, forwarded":          {"forwarded", "leave", target, []string{"X-Forwarded-Uri: " + target}, 204, "", true},
		"a header, split":              {"split", "leave", target, []string{"X-Original-URI: " + target}, 204, "", true},
		"a header, a token in a path":  {"path", "leave", "/t/TOKEN/film/1.ts", []string{"X-Original-URI: /t/TOKEN/film/1.ts"}, 204, "", true},
		"only a query":                 {"vod", "leave?sid=a", target, nil, 204, "", true},
		"only a query, request":        {"request", "leave?sid=a", target, nil, 204, "", true},
		"only a query, a chunked body": {"vod", "leave?sid=a", target, []string{"Transfer-Encoding: chunked"}, 204, "", true},
		"only a query, split":          {"split", "leave?sid=a", target, nil, 403, "uri", false},
		"other content, split":         {"split", "leave/vod/other/1.ts?sid=a", target, nil, 204, "", false},
		"two headers":                  {"vod", "leave", target, []string{"X-Original-URI: " + target, "X-Original-URI: " + target}, 403, "uri", false},
		"a bad path":                   {"vod", "leave/vod/a%2fb/1.ts?sid=a", target, nil, 403, "uri", false},
		"another route":                {"vod", "leave/../explain?sid=b", target, nil, 204, "", false}, // the session b has no stream
		"no token":                     {"path", "leave", "/t/TOKEN/film/1.ts", nil, 401, "identity", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
				"iss": "site", "aud": "streamcount", "sub": name, "jti": "a", "exp": time.Now().Add(time.Hour).Unix(),
			}).SignedString([]byte(strings.Repeat("s", 32)))
			require.NoError(t, err)
			withToken := func(text string) string { return strings.Replace(text, "TOKEN", token, 1) }
			base, user := "/edge/v1/"+tt.profile+"/", "X-User: "+name
			path, start := withToken(tt.path), withToken(tt.start)
			check := "check"
			if tt.profile == "request" {
				check = "uri" + start
			}
			require.Equal(t, 200, n.raw(t, "GET", base+check, user, "X-Original-URI: "+start, "X-Forwarded-Uri: "+start).StatusCode)
			require.Len(t, streams(t, l, name), 1)
			assert.Equal(t, 405, n.raw(t, "GET", base+path, user).StatusCode)
			headers := []string{user}
			for _, header := range tt.headers {
				headers = append(headers, withToken(header))
			}
			got := n.raw(t, "POST", base+path, headers...)
			assert.Equal(t, tt.status, got.StatusCode)
			assert.Equal(t, tt.reason, got.reason())
			assert.Equal(t, tt.left, len(streams(t, l, name)) == 0)
		})
	}
}
