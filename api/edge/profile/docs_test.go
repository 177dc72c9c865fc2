package profile

import (
	"os"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/lease/policy"
)

// The examples of docs/edge-profiles.md are valid, and identify the viewers that the page names.
func TestDocs_Examples(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../../docs/edge-profiles.md")
	require.NoError(t, err)
	var examples []map[string]*Profile
	for _, block := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(page, -1) {
		profiles, err := Parse(block[1])
		require.NoError(t, err, string(block[1]))
		examples = append(examples, profiles)
	}
	require.Len(t, examples, 5)
	v, token := newVerifier(t), sign(t, "maya", "jti", "playback-1")

	vod := examples[1]["vod"]
	r := get("/t/" + token + "/vod/film-77/master.m3u8")
	target, err := vod.Read(r)
	require.NoError(t, err)
	assert.Equal(t, "film-77", target.Content)
	id := mustIdentify(t, vod, v, r)
	assert.Equal(t, []string{"maya", "playback-1"}, []string{id.User, id.Session})

	live := examples[2]["live"]
	id = mustIdentify(t, live, v, get("/live/news/index.m3u8?token="+token))
	require.NotNil(t, id.Cookie)
	assert.Equal(t, "playback-1", mustIdentify(t, live, v, get("/live/news/1.ts", "Cookie", "sc="+id.Cookie.Value)).Session)

	intranet := examples[3]["intranet"]
	a := mustIdentify(t, intranet, nil, get("/media/a/1.ts", "X-User", "maya", "X-Session", "s"))
	b := mustIdentify(t, intranet, nil, get("/media/b/1.ts", "X-User", "maya", "X-Session", "s"))
	assert.Equal(t, "maya", a.User)
	assert.NotEqual(t, a.Session, b.Session)

	token = sign(t, "maya", "jti", "playback-1", "profile", "kids", "package", "match")
	channel := mustIdentify(t, examples[4]["channels"], v, get("/t/"+token+"/live/news/1.ts"))
	film := mustIdentify(t, examples[4]["films"], v, get("/t/"+token+"/vod/film-77/1.ts"))
	assert.Equal(t, policy.StartAttributes{Profile: "kids", ContentType: "live", ContentLabels: []string{"match"}}, channel.Attributes)
	assert.Equal(t, policy.StartAttributes{Profile: "kids", ContentType: "film"}, film.Attributes)
	assert.Equal(t, channel.Session, film.Session)
}
