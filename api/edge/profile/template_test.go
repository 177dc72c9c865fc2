package profile

import (
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestNormalise(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{
		"/": "/", "/vod/x": "/vod/x", "/%76od/x": "/vod/x", "//vod/x": "/vod/x", "/y/../vod/x": "/vod/x",
		"/y/%2e%2E/vod/x": "/vod/x", "/y/.%2e/vod/./x": "/vod/x", "/../../vod/x": "/vod/x", "/vod//..//x": "/x",
		"/vod/": "/vod/", "/vod//": "/vod/", "/vod/.": "/vod/", "/vod/x/..": "/vod/", "/vod/..": "/", "/.": "/", "/..": "/", "//": "/",
		"/vod/...": "/vod/...", "/vod/.hidden": "/vod/.hidden", "/a..b/c.": "/a..b/c.", "/%2576od": "/%76od", "/a%3Fb%23c": "/a?b#c",
		"/caf%C3%A9": "/café", "/café": "/café", "/a%20b+c": "/a b+c", "/a;v=1/b": "/a;v=1/b",
	} {
		got, fault := normalise(raw)
		assert.Empty(t, fault, raw)
		assert.Equal(t, want, got, raw)
	}
	for _, raw := range []string{
		"", "vod", "*", "/a%2Fb", "/a%2fb", "/a%5Cb", `/a\b`, "/a%00", "/a%0d%0aX:y", "/a%1F", "/a%7f", "/a%", "/a%2", "/a%zz", "/a%2/",
		"/a b", "/a\tb", "/a\x00", "/a%FF", "/a\xff", "/%C0%AF", "/%ED%A0%80", "/a/..%2fb",
	} {
		got, fault := normalise(raw)
		assert.NotEmpty(t, fault, raw)
		assert.Empty(t, got, raw)
	}
}

// A normalised path has no segment that a server would resolve, and normalising it again does
// not change it.
func TestNormalise_Idempotent(t *testing.T) {
	t.Parallel()
	piece := rapid.SampledFrom([]string{"/", "/", ".", "..", "%2e", "%2F", "%76", "%25", "a", "é", "%C3%A9", "%", "\\", " ", ";", "//", "%00"})
	rapid.Check(t, func(t *rapid.T) {
		raw := "/" + strings.Join(rapid.SliceOf(piece).Draw(t, "pieces"), "")
		path, fault := normalise(raw)
		if fault != "" {
			return
		}
		checkNormal(t, path)
	})
}

func checkNormal(t require.TestingT, path string) {
	require.True(t, strings.HasPrefix(path, "/"), path)
	require.NotContains(t, path, "//")
	for part := range strings.SplitSeq(path, "/") {
		require.NotContains(t, []string{".", ".."}, part, path)
	}
	again, fault := normalise((&url.URL{Path: path}).EscapedPath())
	require.Empty(t, fault)
	require.Equal(t, path, again)
}

func TestTemplate(t *testing.T) {
	t.Parallel()
	for text, paths := range map[string]map[string]map[string]string{
		"/vod/{content}/{file...}": {
			"/vod/film/a/b.ts": {"content": "film", "file": "a/b.ts", "other": ""}, "/vod/film/": {"content": "film", "file": ""},
			"/vod/film": nil, "/vod/": nil, "/vod": nil, "/": nil, "/VOD/film/a": nil, "/vodx/film/a": nil,
		},
		"/t/{token}/x":   {"/t/a.b.c/x": {"token": "a.b.c"}, "/t/x": nil, "/t/a/x/": nil, "/t/a/xx": nil, "/t/a/b/x": nil},
		"/{all...}":      {"/": {"all": ""}, "/a/b": {"all": "a/b"}},
		"/":              {"/": {}, "/a": nil},
		"/{one}":         {"/a": {"one": "a"}, "/": nil, "/a/": nil},
		"/{dir}/":        {"/a/": {"dir": "a"}, "/a": nil, "/a/b": nil},
		"/my films/{id}": {"/my films/7": {"id": "7"}, "/my%20films/7": nil},
	} {
		parsed, err := parseTemplate(text)
		require.NoError(t, err, text)
		for path, values := range paths {
			assert.Equal(t, values != nil, parsed.match(path), "%s %s", text, path)
			for name, value := range values {
				assert.Equal(t, value, parsed.value(path, name), "%s %s %s", text, path, name)
			}
		}
	}
}

func TestMatchGlob(t *testing.T) {
	t.Parallel()
	for pattern, texts := range map[string]map[string]bool{
		"*/master.m3u8":  {"/a/b/master.m3u8": true, "/master.m3u8": true, "/xmaster.m3u8": false, "/master.m3u8/x": false},
		"/live/*/i*.mpd": {"/live/a/index.mpd": true, "/live/a/b/i.mpd": true, "/live/index.mpd": false, "/live/a/i.mp": false},
		"*":              {"/": true, "": true},
		"/a":             {"/a": true, "/ab": false},
		"*ab*ab":         {"abab": true, "ab": false, "aab": false, "abxab": true},
	} {
		for text, want := range texts {
			assert.Equal(t, want, matchGlob(pattern, text), "%s %s", pattern, text)
		}
	}
}
