package profile

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const withCookie = `{paths: "/{content}/{f...}", user: ["query:t", "cookie:sc"], cookie: {name: sc, maxAge: 1h}}`

func TestCookie(t *testing.T) {
	t.Parallel()
	p, v := parse(t, withCookie), newVerifier(t)
	now := time.Now()
	at := func(after time.Duration, target string, headers ...string) (Identity, error) {
		return identify(p, v, get(target, headers...), now.Add(after))
	}
	mustAt := func(after time.Duration, target string, headers ...string) Identity {
		id, err := at(after, target, headers...)
		require.NoError(t, err)
		return id
	}
	token := sign(t, "maya", "did", "tv-1", "plan", "gold", "streams", 4)
	first := mustAt(0, "/f/x?t="+token, "User-Agent", "A")
	require.NotNil(t, first.Cookie)
	cookie := *first.Cookie
	cookie.Value = ""
	assert.Equal(t, http.Cookie{Name: "sc", Path: "/", MaxAge: 3600, Secure: true, HttpOnly: true, SameSite: http.SameSiteNoneMode, Partitioned: true}, cookie)
	require.NoError(t, first.Cookie.Valid())
	sent := "a=b; sc=" + first.Cookie.Value

	t.Run("a request with the cookie has the same identity", func(t *testing.T) {
		second := mustAt(59*time.Minute, "/f/y", "Cookie", sent, "User-Agent", "A")
		assert.Nil(t, second.Cookie)
		first := first
		first.Cookie = nil
		assert.Equal(t, first, second)
		assert.Equal(t, first.Session, mustAt(0, "/f/y", "Cookie", sent, "User-Agent", "another").Session, "the loader of segments")
	})
	t.Run("it expires", func(t *testing.T) {
		_, err := at(time.Hour, "/f/y", "Cookie", sent)
		assert.EqualError(t, err, "cookie:sc is not valid or has expired")
	})
	t.Run("it is not from the future", func(t *testing.T) {
		_, err := at(-time.Hour, "/f/y", "Cookie", sent)
		assert.EqualError(t, err, "cookie:sc is not valid or has expired")
	})
	t.Run("it is set again only if it is needed", func(t *testing.T) {
		same := "/f/x?t=" + token
		assert.Nil(t, mustAt(29*time.Minute, same, "Cookie", sent, "User-Agent", "A").Cookie)
		assert.NotNil(t, mustAt(31*time.Minute, same, "Cookie", sent, "User-Agent", "A").Cookie, "half of the time is over")
		assert.NotNil(t, mustAt(0, same, "Cookie", sent+"x", "User-Agent", "A").Cookie, "it is not valid")
		assert.NotNil(t, mustAt(0, same, "Cookie", sent+"; "+sent, "User-Agent", "A").Cookie, "it is there twice")
		other := mustAt(0, "/f/x?t="+sign(t, "moe"), "Cookie", sent, "User-Agent", "A")
		assert.NotNil(t, other.Cookie, "it is another user's")
		assert.Equal(t, "moe", other.User)
		assert.NotNil(t, mustAt(0, "/f/x?t="+sign(t, "maya", "sid", "2", "did", "tv-1", "plan", "gold", "streams", 4), "Cookie", sent).Cookie, "another session")
		assert.NotNil(t, mustAt(0, "/f/x?t="+sign(t, "maya", "did", "tv-1", "plan", "free", "streams", 1), "Cookie", sent).Cookie, "another plan")
	})
	t.Run("bind and split apply to it", func(t *testing.T) {
		p := parse(t, withCookie[:len(withCookie)-1]+", bind: [ua, ip24], change: split}")
		id := mustIdentify(t, p, v, get("/f/x?t="+token, "User-Agent", "A"))
		sent := "sc=" + id.Cookie.Value
		assert.Equal(t, id.Session, mustIdentify(t, p, v, get("/f/y", "Cookie", sent, "User-Agent", "A")).Session)
		assert.NotEqual(t, id.Session, mustIdentify(t, p, v, get("/g/y", "Cookie", sent, "User-Agent", "A")).Session)
		assert.NotEqual(t, id.Session, mustIdentify(t, p, v, get("/f/y", "Cookie", sent, "User-Agent", "B")).Session)
	})
	t.Run("another profile or key rejects it", func(t *testing.T) {
		other := *p
		other.Name = "live"
		_, err := identify(&other, v, get("/f/y", "Cookie", sent), now)
		require.Error(t, err)
		for _, key := range [][]byte{nil, {}, []byte("another key")} {
			_, ok := p.openCookie(first.Cookie.Value, key, now)
			assert.False(t, ok)
		}
	})
	t.Run("none is signed without a key", func(t *testing.T) {
		target, err := p.Read(get("/f/x?t=" + token))
		require.NoError(t, err)
		id, err := p.Identify(t.Context(), get("/f/x?t="+token), target, v, nil, now)
		require.NoError(t, err)
		assert.Nil(t, id.Cookie)
	})
}

// An altered or forged cookie is rejected.
func TestCookie_Forgery(t *testing.T) {
	t.Parallel()
	p := parse(t, withCookie)
	now := time.Now()
	good := p.sealCookie(cookieClaims{User: "maya", Session: "s", Issued: now}, key)
	_, ok := p.openCookie(good, key, now)
	require.True(t, ok)
	payload := func(text string) string { return "v1." + base64.RawURLEncoding.EncodeToString([]byte(text)) }
	parts := strings.SplitN(good, ".", 3)
	for _, bad := range []string{
		"", ".", "v1.", "v1..", parts[0] + "." + parts[1], parts[0] + "." + parts[1] + ".", "v1." + parts[2], "v2." + parts[1] + "." + parts[2],
		good + "=", good + ".", " " + good, strings.ToLower(good), payload("maya\x00s\x009999999999\x00") + "." + parts[2],
		payload("maya\x00s\x00") + "." + p.cookieMAC(payload("maya\x00s\x00"), []byte("guess")),
		parts[0] + "." + parts[1] + "\n." + parts[2], parts[0] + "." + parts[1] + "=." + parts[2],
		"v1." + p.cookieMAC("v1.", key), strings.Repeat("v1.", 2000),
	} {
		_, ok := p.openCookie(bad, key, now)
		assert.False(t, ok, bad)
	}
	for _, text := range []string{"", "maya", "maya\x00s", "maya\x00s\x001", "maya\x00\x009999999999\x00", "\x00s\x001\x00", "maya\x00s\x00x\x00"} {
		signed := payload(text) + "." + p.cookieMAC(payload(text), key)
		_, ok := p.openCookie(signed, key, now)
		assert.False(t, ok, "not a content that the edge signs: %q", text)
	}
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=\n"
	rapid.Check(t, func(t *rapid.T) {
		altered := []byte(good)
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			altered[rapid.IntRange(0, len(altered)-1).Draw(t, "at")] = letters[rapid.IntRange(0, len(letters)-1).Draw(t, "to")]
		}
		if string(altered) == good {
			return
		}
		_, ok := p.openCookie(string(altered), key, now)
		require.False(t, ok, "%s", altered)
	})
}

// What a profile signs it reads, for any user and session.
func TestCookie_RoundTrip(t *testing.T) {
	t.Parallel()
	p := parse(t, withCookie)
	now := time.Unix(1_800_000_000, 0)
	rapid.Check(t, func(t *rapid.T) {
		want := cookieClaims{
			User:    rapid.StringMatching(`[a-zé@|. ]{1,60}`).Draw(t, "user"),
			Session: bounded(rapid.StringN(1, 300, -1).Draw(t, "session")),
			Issued:  now, more: rapid.SampledFrom([]string{"", `{"p":"gold","l":0}`}).Draw(t, "more"),
		}
		got, ok := p.openCookie(p.sealCookie(want, key), key, now)
		require.True(t, ok)
		require.Equal(t, want, got)
	})
}
