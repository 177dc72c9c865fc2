package profile

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/access"
	"streamcount/lease/policy"
)

const withAttributes = `{paths: ["/{kind}/{content}/{f...}"], user: ["query:t", "cookie:sc"], cookie: {name: sc},
    device: {id: "claim:did", type: "query:device"},
    content: {type: "path:kind", labels: [video, "query:pack", "claim:pack", "path:kind"]},
    profile: "claim:profile", labels: {tier: "claim:tier", place: "header:X-Place", edge: one}}`

// The attributes of a request are those of its profile. The requests with the cookie have the
// claims of the token.
func TestAttributes(t *testing.T) {
	t.Parallel()
	p, v := parse(t, withAttributes), newVerifier(t)
	token := sign(t, "maya", "did", "tv-1", "profile", "kids", "tier", "gold", "pack", "sport")
	id := mustIdentify(t, p, v, get("/live/news/1.ts?t="+token+"&device=tv&pack=movies", "X-Place", "home"))
	assert.Equal(t, policy.StartAttributes{
		Profile: "kids", ContentType: "live", ContentLabels: []string{"video", "movies", "sport", "live"},
		Labels: map[string]string{"tier": "gold", "place": "home", "edge": "one"},
	}, id.Attributes)
	assert.Equal(t, []string{"tv-1", "tv"}, []string{id.Device.ID, id.Device.Type})
	require.NotNil(t, id.Cookie)

	next := mustIdentify(t, p, v, get("/live/news/2.ts", "Cookie", "sc="+id.Cookie.Value))
	assert.Equal(t, policy.StartAttributes{
		Profile: "kids", ContentType: "live", ContentLabels: []string{"video", "sport", "live"},
		Labels: map[string]string{"tier": "gold", "edge": "one"},
	}, next.Attributes)
	assert.Equal(t, "tv-1", next.Device.ID)

	plain := mustIdentify(t, p, v, get("/vod/film/1.ts?t="+sign(t, "tom")))
	assert.Equal(t, policy.StartAttributes{
		ContentType: "vod", ContentLabels: []string{"video", "vod"}, Labels: map[string]string{"edge": "one"},
	}, plain.Attributes)
	without := mustIdentify(t, parse(t, short), v, get("/vod/film/1.ts", "Authorization", "Bearer "+token))
	assert.True(t, without.Attributes.Empty())
}

// What a token states by the configuration of the service takes precedence over the profile.
func TestAttributes_OfTheCredential(t *testing.T) {
	t.Parallel()
	p := parse(t, withAttributes)
	seven := 7
	get := get("/live/news/1.ts?t=x", "X-Place", "home")
	target, err := p.Read(get)
	require.NoError(t, err)
	for _, only := range []bool{false, true} {
		l := login{source: p.user[0], caller: access.Caller{Kind: access.Viewer, Name: "maya", Attributes: access.Attributes{
			Labels: map[string]string{"place": "away", "edge": "two", "x": "y"}, Priority: &seven, OnlyProfile: only,
		}}}
		p := *p
		p.attributes.profile = source{inText, "kids"}
		as, _, err := p.attributesOf(l, get, target)
		require.NoError(t, err)
		assert.Equal(t, map[string]string{"place": "away", "edge": "two", "x": "y"}, as.Labels)
		assert.Equal(t, &seven, as.Priority)
		assert.Equal(t, !only, as.Profile == "kids", "a token without a profile has none, if profiles are claims")
	}
}

// Every value that a player may send is a valid attribute, or rejects the request.
func TestAttributes_Values(t *testing.T) {
	t.Parallel()
	p, v := parse(t, withAttributes), newVerifier(t)
	token := sign(t, "maya")
	for value, hashed := range map[string]bool{
		"a": false, strings.Repeat("x", 64): false, strings.Repeat("x", 65): true, "a%0Ab": true, "%ff": true, "%C2%85": true,
		strings.Repeat("%C3%A9", 32): false, strings.Repeat("%C3%A9", 33): true,
	} {
		id := mustIdentify(t, p, v, get("/live/news/1.ts?t="+token+"&pack="+value))
		require.NoError(t, id.Attributes.Validate(), value)
		assert.Equal(t, hashed, len(id.Attributes.ContentLabels[1]) == 43, value)
	}
	for _, target := range []string{"/live/news/1.ts?pack=a&pack=b&t=", "/live/news/1.ts?device=tv&device=phone&t="} {
		_, err := identify(p, v, get(target+token), time.Now())
		rejection := &Rejection{}
		require.ErrorAs(t, err, &rejection)
		assert.Equal(t, BadURI, rejection.Reason)
		assert.Contains(t, rejection.Detail, "two values of query:")
	}
	_, err := identify(p, v, get("/live/news/1.ts?t="+token, "X-Place", "home", "X-Place", "away"), time.Now())
	require.ErrorContains(t, err, "two values of header:X-Place")
}
