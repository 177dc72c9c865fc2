package api

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/lease"
	"streamcount/lease/streamid"
	"streamcount/token"
	"streamcount/token/formats"
)

// fakeTokenKeys has one key.
type fakeTokenKeys struct {
	err     error
	rotated []bool
}

func (f *fakeTokenKeys) Keys(context.Context) ([]token.KeyInfo, error) {
	return []token.KeyInfo{{ID: "k1", Algorithm: token.ES256, State: token.Signing, Created: someTime, From: someTime}}, f.err
}

func (f *fakeTokenKeys) Rotate(ctx context.Context, atOnce bool) ([]token.KeyInfo, error) {
	f.rotated = append(f.rotated, atOnce)
	return f.Keys(ctx)
}

// someTokens issues tokens in all formats but CloudFront.
func someTokens(tb testing.TB, withKey bool) *Tokens {
	tb.Helper()
	ring := &token.Ring{}
	if withKey {
		k, err := token.NewKey(token.ES256)
		require.NoError(tb, err)
		ring.SetFile([]token.Key{k})
	}
	f, err := formats.Parse([]byte("akamai: {key: 00112233445566778899aabbccddeeff, acl: '/vod/{content}/*'}\n" +
		"secureLink: {secret: an example of a secret, expression: '{expires}{user} {secret}'}"))
	require.NoError(tb, err)
	return &Tokens{
		JWT:     token.New(token.Config{Issuer: "https://count.example", Life: 50 * time.Second}, ring),
		Formats: func() *formats.Formats { return f },
	}
}

// claimsOf returns the claims of a JWT.
func claimsOf(t *testing.T, text string) (claims map[string]any) {
	t.Helper()
	parts := strings.Split(text, ".")
	require.Len(t, parts, 3)
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(b, &claims))
	return claims
}

// A live fake has a stream that expires in 30 s, or at an unknown time.
type liveFake struct {
	fake
	degraded bool
}

func (f *liveFake) Start(ctx context.Context, user string, r lease.Request) (lease.Started, error) {
	s, err := f.fake.Start(ctx, user, r)
	s.Stream.ExpiresAt = time.Now().Add(30 * time.Second)
	return s, err
}

func (f *liveFake) Heartbeat(ctx context.Context, user, id string) (lease.Stream, error) {
	s, err := f.fake.Heartbeat(ctx, user, id)
	s.ExpiresAt = time.Now().Add(30 * time.Second)
	if f.degraded {
		s.ExpiresAt, s.Degraded = time.Time{}, true
	}
	return s, err
}

func TestTokens(t *testing.T) {
	f := &liveFake{}
	s := newServer(t, Config{Tokens: someTokens(t, true)}, f)
	w := call(s, "POST", userBase+"/start?token=jwt,akamai&token=secure-link", `{"content":{"id":"film-77"}}`)
	require.Equal(t, 200, w.Code, w.Body.String())
	var u apitype.User
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &u))
	claims := claimsOf(t, u.Token.JWT)
	assert.Equal(t, "maya", claims["sub"])
	assert.Equal(t, "film-77", claims["cid"])
	assert.Equal(t, streamid.Handle("stream-1"), claims["sid"])
	assert.NotContains(t, claims["sid"], "stream-1")
	assert.NotEmpty(t, claims["jti"])
	assert.InDelta(t, 40, claims["exp"].(float64)-claims["iat"].(float64), 1, "the lease and 10 s")
	assert.InDelta(t, u.Token.ExpiresAt.Unix(), claims["exp"].(float64), 0)
	assert.Contains(t, u.Token.Akamai, "~acl=/vod/film-77/*~id="+streamid.Handle("stream-1")+"~hmac=")
	assert.Equal(t, u.Token.ExpiresAt.Unix(), u.Token.SecureLink.Expires)
	assert.Nil(t, u.Token.CloudFront)
	assert.Nil(t, u.Stream.Token)

	heartbeat := userBase + "/streams/stream-1/heartbeat"
	for _, f.degraded = range []bool{false, true} {
		w = call(s, "POST", heartbeat+"?token=jwt", "")
		require.Equal(t, 200, w.Code)
		var st apitype.Stream
		require.NoError(t, json.Unmarshal(w.Body.Bytes(), &st))
		claims = claimsOf(t, st.Token.JWT)
		assert.NotContains(t, claims, "jti")
		want := 40.0
		if f.degraded {
			want = 50 // the life of a token, which is less than the TTL and 10 s
		}
		assert.InDelta(t, want, claims["exp"].(float64)-claims["iat"].(float64), 1)
		assert.Empty(t, st.Token.Akamai)
	}
	assert.NotContains(t, call(s, "POST", heartbeat, "").Body.String(), "token")

	f.err = &lease.EndedError{Reason: "evicted"}
	w = call(s, "POST", heartbeat+"?token=jwt", "")
	assert.Equal(t, 410, w.Code)
	assert.NotContains(t, w.Body.String(), "jwt")
}

func TestTokens_Rejected(t *testing.T) {
	heartbeat := userBase + "/streams/stream-1/heartbeat"
	for name, c := range map[string]struct {
		tokens       *Tokens
		target, body string
		status       int
		want         string
	}{
		"not configured":     {nil, userBase + "/start?token=jwt", "", 422, "token-issuer"},
		"at a heartbeat":     {nil, heartbeat + "?token=jwt", "", 422, "token-issuer"},
		"unknown":            {someTokens(t, true), userBase + "/start?token=jwt,cat", "", 422, "expected jwt, akamai, secure-link or cloudfront"},
		"empty":              {someTokens(t, true), userBase + "/start?token=", "", 422, "expected jwt"},
		"format":             {someTokens(t, true), userBase + "/start?token=cloudfront", "", 422, "token-formats-file"},
		"other parameter":    {someTokens(t, true), userBase + "/start?token=jwt&limit=5", "", 422, "query.limit"},
		"of other calls":     {someTokens(t, true), userBase + "/stop?token=jwt", "", 422, "query.token"},
		"of a batch":         {someTokens(t, true), "/api/v1/streams/heartbeats?token=jwt", `{"heartbeats":[{"userId":"a","streamId":"b"}]}`, 422, "query.token"},
		"without content":    {someTokens(t, true), userBase + "/start?token=akamai", "", 422, "body.content.id"},
		"no key":             {someTokens(t, false), userBase + "/start?token=jwt", "", 503, "not read the keys"},
		"repeated elsewhere": {someTokens(t, true), heartbeat + "?token=jwt&token=cat", "", 422, "expected jwt"},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{}
			w := call(newServer(t, Config{Tokens: c.tokens}, f), "POST", c.target, c.body)
			assert.Equal(t, c.status, w.Code)
			assert.Contains(t, w.Body.String(), c.want)
			assert.Equal(t, c.status == 503, w.Header().Get("Retry-After") != "")
			assert.Empty(t, f.taken(), "nothing was started")
			checkProblem(t, answer{w.Code, w.Header(), w.Body.String(), ""})
		})
	}
}

// While etcd is unavailable, a token of a long life expires 10 s after the end that the lease would have
// if it was renewed now.
func TestTokens_DegradedLongLife(t *testing.T) {
	tokens := someTokens(t, true)
	tokens.JWT = token.New(token.Config{Issuer: "https://count.example", Life: 24 * time.Hour}, tokens.JWT.Keys())
	s := newServer(t, Config{Tokens: tokens}, &liveFake{degraded: true})
	w := call(s, "POST", userBase+"/streams/stream-1/heartbeat?token=jwt", "")
	require.Equal(t, 200, w.Code)
	var st apitype.Stream
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &st))
	claims := claimsOf(t, st.Token.JWT)
	assert.InDelta(t, 100, claims["exp"].(float64)-claims["iat"].(float64), 1, "the TTL and 10 s")
}

// A heartbeat succeeds even if no token can be made. Then its answer has no token, which a player would
// use in place of the one that it has.
func TestTokens_HeartbeatWithoutToken(t *testing.T) {
	s := newServer(t, Config{Tokens: someTokens(t, false)}, &fake{}) // of a stream without content
	heartbeat := userBase + "/streams/stream-1/heartbeat?token="
	for _, formats := range []string{"jwt", "akamai", "jwt,akamai"} {
		w := call(s, "POST", heartbeat+formats, "")
		require.Equal(t, 200, w.Code)
		assert.NotContains(t, w.Body.String(), "token", formats)
	}
	w := call(s, "POST", heartbeat+"jwt,akamai,secure-link", "")
	require.Equal(t, 200, w.Code)
	var st apitype.Stream
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &st))
	assert.NotEmpty(t, st.Token.SecureLink.MD5, "a format that can be made")
	assert.Empty(t, st.Token.JWT)
	assert.Empty(t, st.Token.Akamai)
}

func TestJWKS(t *testing.T) {
	s := newServer(t, Config{Tokens: someTokens(t, true), Access: callers, Ingress: IngressConfig{Hosts: []string{"count.example"}}}, nil)
	w := call(s, "GET", "/.well-known/jwks.json", "", "Origin", "https://other.example")
	require.Equal(t, 200, w.Code, w.Body.String())
	assert.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))
	assert.Equal(t, "public, max-age=300", w.Header().Get("Cache-Control"))
	assert.Equal(t, "application/json", w.Header().Get("Content-Type"))
	var set struct{ Keys []map[string]string }
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &set))
	require.Len(t, set.Keys, 1)
	assert.NotContains(t, set.Keys[0], "d")
	again := call(s, "GET", "/.well-known/jwks.json", "", "If-None-Match", w.Header().Get("ETag"))
	assert.Equal(t, 304, again.Code)
	assert.Empty(t, again.Body.String())
	assert.Equal(t, 405, call(s, "POST", "/.well-known/jwks.json", "").Code)
	assert.Equal(t, 404, call(newServer(t, Config{}, nil), "GET", "/.well-known/jwks.json", "").Code, "without an issuer")
}

// A node that has no keys yet must not answer with an empty set, which edges would cache. A node whose
// key is a secret has no public keys.
func TestJWKS_Empty(t *testing.T) {
	tokens := someTokens(t, false)
	s := newServer(t, Config{Tokens: tokens}, nil)
	w := call(s, "GET", "/.well-known/jwks.json", "")
	assert.Equal(t, 503, w.Code)
	assert.Equal(t, "no-store", w.Header().Get("Cache-Control"))
	assert.NotEmpty(t, w.Header().Get("Retry-After"))
	assert.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))
	checkProblem(t, answer{w.Code, w.Header(), w.Body.String(), ""})

	secret, err := token.NewSecret([]byte("an example of a secret of 32 bytes"))
	require.NoError(t, err)
	tokens.JWT.Keys().SetFile([]token.Key{secret})
	w = call(s, "GET", "/.well-known/jwks.json", "")
	assert.Equal(t, 200, w.Code)
	assert.JSONEq(t, `{"keys":[]}`, w.Body.String())
}

func TestTokenKeys(t *testing.T) {
	var log strings.Builder
	keys := &fakeTokenKeys{}
	s := newServer(t, Config{Audit: slog.New(slog.NewTextHandler(&log, nil)), Tokens: someTokens(t, true)}, nil)
	s.SetBackend(Backend{Limiter: &fake{}, Rules: &fake{}})
	w := call(s, "GET", "/api/v1/token-keys", "")
	assert.Equal(t, 422, w.Code, "the keys are in a file")
	assert.Contains(t, w.Body.String(), "token-key-file")
	s.SetBackend(Backend{TokenKeys: keys})
	w = call(s, "GET", "/api/v1/token-keys", "")
	require.Equal(t, 200, w.Code)
	assert.JSONEq(t, `{"keys":[{"kid":"k1","algorithm":"ES256","state":"signing","createdAt":"2026-01-02T03:04:05.678Z","signsFrom":"2026-01-02T03:04:05.678Z"}]}`, w.Body.String())
	for _, body := range []string{"", "{}", `{"now":true}`} {
		require.Equal(t, 200, call(s, "POST", "/api/v1/token-keys/rotate", body).Code)
	}
	assert.Equal(t, []bool{false, false, true}, keys.rotated)
	assert.Equal(t, 3, strings.Count(log.String(), `what="rotate token key"`))
	assert.Contains(t, log.String(), "now=true")
	keys.err = errors.New("etcd does not respond")
	assert.Equal(t, 503, call(s, "GET", "/api/v1/token-keys", "").Code)
	assert.Equal(t, 503, call(s, "POST", "/api/v1/token-keys/rotate", "").Code)
	assert.Contains(t, log.String(), "outcome=unknown")
}

// Only callers that may change rules may rotate the keys.
func TestTokenKeys_Rights(t *testing.T) {
	s := newServer(t, Config{Access: callers, Tokens: someTokens(t, true)}, &fake{})
	for caller, want := range map[string][2]int{
		"operator": {200, 200}, "service": {200, 200}, "reader": {200, 403}, "maya": {403, 403}, "scraper": {403, 403}, "anonymous": {401, 401},
	} {
		assert.Equal(t, want[0], call(s, "GET", "/api/v1/token-keys", "", asHeader, caller).Code, caller)
		assert.Equal(t, want[1], call(s, "POST", "/api/v1/token-keys/rotate", "", asHeader, caller).Code, caller)
	}
}
