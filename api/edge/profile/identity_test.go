package profile

import (
	"context"
	"encoding/base64"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/access"
	"streamcount/lease"
)

var (
	key    = []byte("the key that signs the cookies of the edge")
	secret = []byte("the secret of tokens, which has 32 bytes or more")
)

// newVerifier returns a verifier of the tokens that [sign] returns.
func newVerifier(tb testing.TB) *access.Authenticator {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "secret")
	require.NoError(tb, os.WriteFile(path, secret, 0o600))
	a, err := access.New(access.Config{Log: slog.New(slog.DiscardHandler), Tokens: access.TokenConfig{
		SecretFile: path, Issuer: "https://id.example", Audience: "streams", PlanClaim: "plan", LimitClaim: "streams",
	}})
	require.NoError(tb, err)
	return a
}

// sign returns a token of a user, with further claims as pairs of name and value.
func sign(tb testing.TB, user string, more ...any) string {
	tb.Helper()
	claims := jwt.MapClaims{"iss": "https://id.example", "aud": "streams", "sub": user, "exp": time.Now().Add(time.Hour).Unix()}
	for i := 0; i < len(more); i += 2 {
		claims[more[i].(string)] = more[i+1]
	}
	token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString(secret)
	require.NoError(tb, err)
	return token
}

// get returns a request of a player, with headers as pairs of name and value.
func get(target string, headers ...string) Request {
	r := Request{Method: http.MethodGet, Target: target, Header: http.Header{}, Client: "192.0.2.7"}
	for i := 0; i < len(headers); i += 2 {
		r.Header.Add(headers[i], headers[i+1])
	}
	return r
}

// identify reads a request and identifies its sender.
func identify(p *Profile, v Verifier, r Request, now time.Time) (Identity, error) {
	t, err := p.Read(r)
	if err != nil {
		return Identity{}, err
	}
	return p.Identify(context.Background(), r, t, v, key, now)
}

func mustIdentify(t *testing.T, p *Profile, v Verifier, r Request) Identity {
	t.Helper()
	id, err := identify(p, v, r, time.Now())
	require.NoError(t, err, r.Target)
	return id
}

const allSources = `{paths: ["/t/{token}/{content}/{f...}", "/{content}/{f...}"],
    user: [bearer, "query:token", "path:token", "cookie:jwt", "header:X-User", basic]}`

func TestRead(t *testing.T) {
	t.Parallel()
	p := parse(t, `{paths: ["/vod/{content}/{f...}", "/keys/{f...}"], user: bearer, only: [m3u8, ts, key]}`)
	deny := parse(t, `{paths: "/vod/{f...}", user: bearer, other: deny, post: count, content: {id: "query:id"}}`)
	for _, c := range []struct {
		profile        *Profile
		method, target string
		kind           Kind
		entry          bool
		content        string
	}{
		{p, "GET", "/vod/film/a.ts", Counted, false, "film"},
		{p, "GET", "/vod/film/master.m3u8?_HLS_msn=7", Counted, true, "film"},
		{p, "GET", "/vod/film/audio/index.m3u8", Counted, true, "film"},
		{p, "GET", "/vod/film/A.TS", Counted, false, "film"},
		{p, "GET", "/vod/film/a.ts;v=1", Counted, false, "film"},
		{p, "GET", "/vod/film/a.ts%3b.jpg", Counted, false, "film"},
		{p, "GET", "/vod/film/a.ts.%20.", Counted, false, "film"},
		{p, "GET", "/vod/film/poster.jpg;a.ts", Passed, false, "film"},
		{p, "GET", "/vod/film/poster.jpg", Passed, false, "film"},
		{p, "GET", "/vod/film/ts", Passed, false, "film"},
		{p, "GET", "/vod/film.ts", Passed, false, ""},
		{p, "GET", "/%76od/film/a%2Ets", Counted, false, "film"},
		{p, "GET", "//vod/x/../film/a.ts", Counted, false, "film"},
		{p, "GET", "http://cdn.example/vod/film/a.ts?x", Counted, false, "film"},
		{p, "GET", "HTTPS://cdn.example:444/vod/film/a.ts", Counted, false, "film"},
		{p, "GET", "http://cdn.example", Passed, false, ""},
		{p, "GET", "http://cdn.example?/vod/film/a.ts", Passed, false, ""},
		{p, "GET", "/keys/a.key", Counted, false, ""},
		{p, "GET", "/", Passed, false, ""},
		{p, "HEAD", "/vod/film/master.m3u8", Checked, false, "film"},
		{p, "HEAD", "/other", Passed, false, ""},
		{p, "POST", "/vod/film/a.key", Passed, false, "film"},
		{p, "OPTIONS", "/vod/film/a.ts", Passed, false, "film"},
		{p, "OPTIONS", "*", Passed, false, ""},
		{p, "get", "/vod/film/a.ts", Counted, false, "film"},
		{p, "PUT", "/vod/film/a.ts", Counted, false, "film"},
		{p, "", "/vod/film/a.ts", Counted, false, "film"},
		{deny, "POST", "/vod/licence?id=a%2Fb", Counted, false, "a/b"},
		{deny, "GET", "/vod/a?id=" + strings.Repeat("x", 201), Counted, false, hashOf(strings.Repeat("x", 201))},
		{deny, "GET", "/vod/a?id=%FF", Counted, false, hashOf("\xff")},
		{deny, "GET", "/VOD/a", Denied, false, ""},
		{deny, "HEAD", "/a?id=b", Denied, false, ""},
		{deny, "OPTIONS", "/a", Passed, false, ""},
	} {
		got, err := c.profile.Read(Request{Method: c.method, Target: c.target})
		require.NoError(t, err, c.target)
		assert.Equal(t, []any{c.kind, c.entry, c.content}, []any{got.Kind, got.Entry, got.Content}, "%s %s", c.method, c.target)
	}
	for _, target := range []string{
		"", "*", "vod/film/a.ts", "ftp://x/vod/film/a.ts", "cdn.example:443", `http://x\vod/a`, "/vod/a%2Fb/x.ts", "/vod/%00/a", "/vod/film/a.ts#b",
		"/vod/a%", "/vod/\xff", "/vod/a b",
	} {
		_, err := p.Read(get(target))
		var rejection *Rejection
		require.ErrorAs(t, err, &rejection, target)
		assert.Equal(t, BadURI, rejection.Reason)
	}
	_, err := deny.Read(get("/vod/a?id=1&%69d=2"))
	assert.EqualError(t, err, "the original URI cannot be read: it has two values of query:id")
}

func TestIdentify_Sources(t *testing.T) {
	t.Parallel()
	p, v := parse(t, allSources), newVerifier(t)
	a, b := sign(t, "ana"), sign(t, "ben")
	basic := func(text string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(text)) }
	for _, c := range []struct {
		name, user string
		request    Request
	}{
		{"bearer", "ana", get("/f/x", "Authorization", "Bearer "+a)},
		{"bearer, in lower case", "ana", get("/f/x", "Authorization", "bearer "+a)},
		{"query", "ana", get("/f/x?a=1&token=" + a)},
		{"query, encoded", "ana", get("/f/x?%74oken=" + a)},
		{"path", "ana", get("/t/" + a + "/f/x")},
		{"path, encoded", "ana", get("/%74/" + strings.ReplaceAll(a, ".", "%2E") + "/f/x")},
		{"cookie", "ana", get("/f/x", "Cookie", "a=b; jwt="+a+"; c=d")},
		{"cookie in the second header, in quotes", "ana", get("/f/x", "Cookie", "a=b", "Cookie", `jwt="`+a+`"`)},
		{"header", "zoë", get("/f/x", "X-User", "zoë")},
		{"basic", "dora", get("/f/x", "Authorization", basic("dora:p:w"))},
		{"bearer before query", "ana", get("/f/x?token="+b, "Authorization", "Bearer "+a)},
		{"query before path", "ben", get("/t/" + a + "/f/x?token=" + b)},
		{"path before cookie", "ana", get("/t/"+a+"/f/x", "Cookie", "jwt="+b)},
		{"cookie before header", "ben", get("/f/x", "Cookie", "jwt="+b, "X-User", "zoe")},
		{"header before basic", "zoe", get("/f/x", "X-User", "zoe", "Authorization", basic("dora:pw"))},
	} {
		id := mustIdentify(t, p, v, c.request)
		assert.Equal(t, c.user, id.User, c.name)
		assert.Equal(t, access.Caller{Kind: access.Viewer, Name: c.user}, id.Caller, c.name)
		assert.NotEmpty(t, id.Session, c.name)
		assert.Nil(t, id.Cookie, c.name)
	}
	for name, r := range map[string]Request{
		"nothing":                     get("/f/x"),
		"another scheme":              get("/f/x", "Authorization", "Digest x"),
		"bad bearer, good query":      get("/f/x?token="+a, "Authorization", "Bearer x"),
		"empty bearer, good query":    get("/f/x?token="+a, "Authorization", "Bearer"),
		"two authorizations":          get("/f/x", "Authorization", "Bearer "+a, "Authorization", "Bearer "+a),
		"bearer and basic":            get("/f/x", "Authorization", "Bearer "+a, "Authorization", basic("dora:pw")),
		"two tokens in a bearer":      get("/f/x", "Authorization", "Bearer "+a+", Bearer "+b),
		"two query tokens":            get("/f/x?token=" + a + "&token=" + a),
		"two query tokens, encoded":   get("/f/x?token=" + a + "&t%6Fken=" + b),
		"bad query, good cookie":      get("/f/x?token=x", "Cookie", "jwt="+a),
		"empty query, good cookie":    get("/f/x?token", "Cookie", "jwt="+a),
		"undecodable query":           get("/f/x?token=%zz" + a),
		"bad path, good header":       get("/t/x/f/x", "X-User", "zoe"),
		"two cookies":                 get("/f/x", "Cookie", "jwt="+a+"; jwt="+a),
		"two cookies in two headers":  get("/f/x", "Cookie", "jwt="+a, "Cookie", "jwt="+b),
		"two source headers":          get("/f/x", "X-User", "zoe", "X-User", "ana"),
		"empty source header":         get("/f/x", "X-User", ""),
		"long user":                   get("/f/x", "X-User", strings.Repeat("u", 129)),
		"control character in a user": get("/f/x", "X-User", "a\u0085"),
		"basic without a colon":       get("/f/x", "Authorization", basic("dora")),
		"basic that is not base64":    get("/f/x", "Authorization", "Basic ???"),
		"basic without a user":        get("/f/x", "Authorization", basic(":pw")),
		"API key":                     get("/f/x", "Authorization", "Bearer sck_0123456789"),
		"altered token":               get("/f/x?token=" + a + "x"),
	} {
		_, err := identify(p, v, r, time.Now())
		var rejection *Rejection
		require.ErrorAs(t, err, &rejection, name)
		assert.Equal(t, BadIdentity, rejection.Reason, name)
		assert.NotContains(t, err.Error(), a, name)
		if strings.HasPrefix(name, "basic") {
			assert.Contains(t, err.Error(), "NAME:PASSWORD", name)
		}
	}

	_, err := identify(p, nil, get("/f/x?token="+a), time.Now())
	require.EqualError(t, err, "query:token: viewers' tokens are not configured")
	id, err := identify(p, nil, get("/f/x", "X-User", "zoe"), time.Now())
	require.NoError(t, err)
	assert.Equal(t, "zoe", id.User)
}

// A fixed is a verifier with one answer.
type fixed struct {
	token access.Token
	err   error
}

func (f fixed) VerifyToken(context.Context, string) (access.Token, error) { return f.token, f.err }

func TestIdentify_Verifier(t *testing.T) {
	t.Parallel()
	p := parse(t, allSources)
	_, err := identify(p, fixed{err: access.ErrUnavailable}, get("/f/x?token=x", "X-User", "zoe"), time.Now())
	require.ErrorIs(t, err, access.ErrUnavailable)
	for _, caller := range []access.Caller{
		{}, {Kind: access.Service, Name: "backend"}, {Kind: access.Unrestricted}, {Kind: access.Viewer}, {Kind: access.Viewer, Name: "a\n"},
	} {
		_, err := identify(p, fixed{token: access.Token{Caller: caller}}, get("/f/x?token=x", "X-User", "zoe"), time.Now())
		require.EqualError(t, err, "query:token is not a viewer's token")
	}
}

func TestIdentify_Session(t *testing.T) {
	t.Parallel()
	v := newVerifier(t)
	p := parse(t, `{paths: "/{content}/{f...}", user: "query:t", session: ["claim:sid", "query:s", "cookie:s", "header:S", derive]}`)
	plain, withSID := "/f/x?t="+sign(t, "maya"), "/f/x?t="+sign(t, "maya", "sid", "from the token")
	session := func(p *Profile, target string, headers ...string) string {
		return mustIdentify(t, p, v, get(target, headers...)).Session
	}
	assert.Equal(t, "from the token", session(p, withSID+"&s=q", "S", "h"))
	assert.Equal(t, "q", session(p, plain+"&s=q", "S", "h"))
	assert.Equal(t, "c", session(p, plain, "S", "h", "Cookie", "s=c"))
	assert.Equal(t, "h", session(p, plain+"&s=", "S", "h"))
	long := session(p, plain+"&s="+strings.Repeat("x", 201))
	assert.Len(t, long, 43)
	assert.NotEqual(t, long, session(p, plain+"&s="+strings.Repeat("x", 202)))
	assert.Equal(t, hashOf("a\nb"), session(p, plain+"&s=a%0Ab"))
	_, err := identify(p, v, get(plain+"&s=a&s=b"), time.Now())
	require.EqualError(t, err, "the request has two values of query:s")

	derived := session(p, plain, "User-Agent", "A")
	assert.Len(t, derived, 16)
	assert.Equal(t, derived, session(p, plain, "User-Agent", "A"))
	other := *p
	other.Name = "live"
	for name, s := range map[string]string{
		"agent":   session(p, plain, "User-Agent", "B"),
		"token":   session(p, "/f/x?t="+sign(t, "maya", "n", 1), "User-Agent", "A"),
		"user":    session(p, "/f/x?t="+sign(t, "moe"), "User-Agent", "A"),
		"profile": session(&other, plain, "User-Agent", "A"),
	} {
		assert.NotEqual(t, derived, s, name)
	}
	p.deriveAgent = false
	assert.Equal(t, session(p, plain, "User-Agent", "A"), session(p, plain, "User-Agent", "B"))

	p.sessions = []source{{inClaim, "sid"}}
	_, err = identify(p, v, get(plain), time.Now())
	require.EqualError(t, err, "the request has no session: want one of claim:sid")
}

func TestIdentify_BindAndSplit(t *testing.T) {
	t.Parallel()
	v := newVerifier(t)
	token := sign(t, "maya", "sid", "s")
	session := func(members, film, client, agent string) string {
		p := parse(t, `{paths: "/{content}/{f...}", user: "query:t", `+members+`}`)
		r := get("/"+film+"/x?t="+token, "User-Agent", agent)
		r.Client = client
		return mustIdentify(t, p, v, r).Session
	}
	for _, c := range []struct {
		members, film, client, agent string
		same                         bool
	}{
		{"bind: []", "g", "203.0.113.9", "B", true},
		{"bind: ua", "g", "203.0.113.9", "A", true},
		{"bind: ua", "f", "192.0.2.7", "B", false},
		{"bind: ip24", "f", "192.0.2.99", "B", true},
		{"bind: ip24", "f", "192.0.2.99:4711", "B", true},
		{"bind: ip24", "f", "::ffff:192.0.2.99", "B", true},
		{"bind: ip24", "f", "192.0.3.7", "A", false},
		{"bind: ip24", "f", "", "A", false},
		{"change: split", "f", "", "B", true},
		{"change: split", "g", "192.0.2.7", "A", false},
		{"change: move", "g", "192.0.2.7", "A", true},
	} {
		first := session(c.members, "f", "192.0.2.7", "A")
		second := session(c.members, c.film, c.client, c.agent)
		assert.Equal(t, c.same, first == second, "%+v", c)
		assert.LessOrEqual(t, len(first), 200)
	}
	assert.Equal(t, networkOf("2001:db8:1:2::3"), networkOf("[2001:db8:1:2:ffff::4%eth0]:443"))
	assert.Equal(t, networkOf("2001:db8:1:2::3"), networkOf("[2001:db8:1:2::4]"))
	assert.NotEqual(t, networkOf("2001:db8:1:2::3"), networkOf("2001:db8:1:3::3"))
	assert.Empty(t, networkOf("unknown"))
}

func TestIdentify_Device(t *testing.T) {
	t.Parallel()
	v := newVerifier(t)
	p := parse(t, `{paths: "/{f...}", user: "query:t"}`)
	id := mustIdentify(t, p, v, get("/x?t="+sign(t, "maya", "did", "tv-1", "plan", "gold", "streams", 4), "User-Agent", "TV 1.0"))
	assert.Equal(t, lease.Device{ID: "tv-1", Name: "TV 1.0"}, id.Device)
	assert.Equal(t, "gold", id.Caller.Plan)
	assert.Equal(t, 4, *id.Caller.Limit)
	id = mustIdentify(t, p, v, get("/x?t="+sign(t, "maya"), "User-Agent", strings.Repeat("é", 199)+"\xffyz"))
	assert.Equal(t, lease.Device{Name: strings.Repeat("é", 199) + "\ufffd"}, id.Device)

	p = parse(t, `{paths: "/{f...}", user: "query:t", device: {id: "header:X-Device", name: "query:name"}}`)
	id = mustIdentify(t, p, v, get("/x?name=TV+2&t="+sign(t, "maya"), "X-Device", strings.Repeat("d", 201)))
	assert.Equal(t, lease.Device{ID: hashOf(strings.Repeat("d", 201)), Name: "TV 2"}, id.Device)
}
