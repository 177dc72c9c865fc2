package profile

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"streamcount/access"
)

// FuzzIdentify checks that a request which does not contain the token or the cookie of another
// user is not that user's, whatever its target and headers are.
func FuzzIdentify(f *testing.F) {
	p := parse(f, `{paths: ["/t/{token}/{content}/{f...}", "/{content}/{f...}"], other: deny,
    user: [bearer, "query:token", "path:token", "cookie:sc"], bind: [ip24], change: split, cookie: {name: sc}}`)
	v := onlyToken{"good"}
	now := time.Now()
	own := p.sealCookie(cookieClaims{User: "maya", Session: "s", Issued: now}, key)
	f.Add("/t/good/film/a.ts", "", "", "")
	f.Add("/%74/g%6Fod/film/../x/a.ts?token=good&token=bad", "", "sc="+own, "192.0.2.1")
	f.Add("http://cdn/film/a?token=good", "Bearer good", "a=b; sc=v1.a.b", "::1")
	f.Add("/film/a#/../t/x/y/z", "Basic YTpi", `sc="v1..";;=`, "x")
	f.Fuzz(func(t *testing.T, target, authorization, cookie, client string) {
		r := get(target, "Cookie", cookie)
		r.Client = client
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		read, err := p.Read(r)
		if err != nil {
			var rejection *Rejection
			require.ErrorAs(t, err, &rejection)
			require.Equal(t, BadURI, rejection.Reason)
			return
		}
		if read.path != "" {
			checkNormal(t, read.path)
		}
		require.LessOrEqual(t, len(read.Content), maxText)
		id, err := p.Identify(context.Background(), r, read, v, key, now)
		if err != nil {
			var rejection *Rejection
			require.ErrorAs(t, err, &rejection)
			require.Equal(t, BadIdentity, rejection.Reason)
			return
		}
		require.Equal(t, "maya", id.User)
		require.NotEmpty(t, id.Session)
		require.LessOrEqual(t, len(id.Session), maxText)
		byToken := strings.Contains(authorization, "good") || strings.Contains(decodeAll(target), "good")
		require.True(t, byToken || strings.Contains(cookie, own), "neither the token nor the cookie is in the request")
	})
}

// decodeAll decodes the percent-encoding of any text.
func decodeAll(text string) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if c := text[i]; c == '%' && i+2 < len(text) && isHex(text[i+1]) && isHex(text[i+2]) {
			out.WriteByte(fromHex(text[i+1])<<4 | fromHex(text[i+2]))
			i += 2
		} else {
			out.WriteByte(c)
		}
	}
	return out.String()
}

// onlyToken is a verifier with one token.
type onlyToken struct{ token string }

func (o onlyToken) VerifyToken(_ context.Context, token string) (access.Token, error) {
	if token != o.token {
		return access.Token{}, errors.Join(access.ErrCredential)
	}
	return access.Token{Caller: access.Caller{Kind: access.Viewer, Name: "maya"}}, nil
}

// FuzzParse checks that a file is rejected with an error, or has complete profiles.
func FuzzParse(f *testing.F) {
	f.Add([]byte("profiles: {vod: " + short + "}"))
	f.Add([]byte("profiles: {vod: " + allSources + "}"))
	f.Add([]byte("profiles: {vod: " + withCookie + "}"))
	f.Add([]byte("profiles: &a {b: *a}"))
	f.Fuzz(func(t *testing.T, content []byte) {
		profiles, err := Parse(content)
		if err != nil {
			return
		}
		require.NotEmpty(t, profiles)
		for name, p := range profiles {
			require.Equal(t, name, p.Name)
			require.NotEmpty(t, p.templates)
			require.NotEmpty(t, p.user)
			target, err := p.Read(get("/vod/film/a.ts"))
			require.NoError(t, err)
			_, err = p.Identify(context.Background(), get("/vod/film/a.ts"), target, nil, key, time.Now())
			require.Error(t, err, "the request has no credential")
		}
	})
}
