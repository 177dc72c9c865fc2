package profile

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/lease/policy"
)

// parse returns the profile vod of a file with these members.
func parse(tb testing.TB, members string) *Profile {
	tb.Helper()
	profiles, err := Parse([]byte("profiles:\n  vod: " + members))
	require.NoError(tb, err)
	return profiles["vod"]
}

const short = `{paths: "/vod/{content}/{file...}", user: bearer}`

func TestParse_Defaults(t *testing.T) {
	t.Parallel()
	p := parse(t, short)
	want := newProfile("vod")
	want.templates = []template{{{literal: "vod"}, {name: "content"}, {name: "file", rest: true}}}
	want.user = []source{{inBearer, ""}}
	want.contentID, want.claims = source{inPath, "content"}, []string{"did"}
	assert.Equal(t, want, p)
	assert.Equal(t, FromOriginal, p.From)
	assert.Equal(t, AllowAll, p.OnOutage)
	assert.Equal(t, Move, p.Change)
	assert.Equal(t, policy.Deny, p.OnLimit)
	assert.Equal(t, time.Second, p.Cache)
	assert.Equal(t, source{}, parse(t, `{paths: /live, user: bearer}`).contentID, "no path has content")
	assert.Equal(t, want.contentID, parse(t, short[:len(short)-1]+`, content: {type: live}}`).contentID)
}

func TestParse_AllMembers(t *testing.T) {
	t.Parallel()
	p := parse(t, `
    from: forwarded
    paths: ["/vod/{film}/{file...}", "/t/{token}/live/{film}/{file...}"]
    other: deny
    only: [m3u8, .MP4]
    entry: ["*/start.m3u8"]
    post: count
    user: [bearer, "query:token", "path:token", "cookie:jwt", "cookie:sc", "header:x-user", basic]
    session: ["claim:https://id.example/sid", "query:sid", "cookie:tab", "header:x-session", derive]
    bind: [ua, ip24]
    derive: [credential]
    device: {id: "header:x-device", name: "claim:device", type: "cookie:kind"}
    content: {id: "path:film", type: on demand, labels: [sport, "path:film", "claim:pack"]}
    profile: "query:profile"
    labels: {tier: "claim:tier", place: "header:x-place", edge: "yes"}
    change: split
    onLimit: replace-oldest
    onOutage: known
    cookie: {name: sc, path: /vod, maxAge: 1h, sameSite: lax, secure: false}
    cache: 0
`)
	assert.Equal(t, &Profile{
		Name: "vod", From: FromForwarded, OnOutage: AllowKnown, Change: Split, OnLimit: policy.ReplaceOldest,
		templates: []template{
			{{literal: "vod"}, {name: "film"}, {name: "file", rest: true}},
			{{literal: "t"}, {name: "token"}, {literal: "live"}, {name: "film"}, {name: "file", rest: true}},
		},
		unmatched: Denied, only: []string{"m3u8", "mp4"}, entries: []string{"*/start.m3u8"}, countPost: true,
		user: []source{
			{inBearer, ""}, {inQuery, "token"}, {inPath, "token"}, {inCookie, "jwt"}, {inCookie, "sc"}, {inHeader, "X-User"}, {inBasic, ""},
		},
		sessions: []source{
			{inClaim, "https://id.example/sid"}, {inQuery, "sid"}, {inCookie, "tab"}, {inHeader, "X-Session"}, {inDerive, ""},
		},
		bindAgent: true, bindNetwork: true,
		deviceID: source{inHeader, "X-Device"}, deviceName: source{inClaim, "device"}, contentID: source{inPath, "film"},
		attributes: attributeSources{
			deviceType: source{inCookie, "kind"}, profile: source{inQuery, "profile"}, contentType: source{inText, "on demand"},
			contentLabels: []source{{inText, "sport"}, {inPath, "film"}, {inClaim, "pack"}},
			labels:        map[string]source{"tier": {inClaim, "tier"}, "place": {inHeader, "X-Place"}, "edge": {inText, "yes"}},
		},
		claims: []string{"device", "pack", "tier"},
		cookie: &cookieConfig{name: "sc", path: "/vod", maxAge: time.Hour, sameSite: http.SameSiteLaxMode, insecure: true},
	}, p)

	p = parse(t, `{paths: "/{all...}", user: "cookie:sc", cookie: {name: sc}, only: [], entry: [], bind: [], cache: 5s,
    observe: true, onLimit: replace-oldest}`)
	assert.Equal(t, &cookieConfig{name: "sc", path: "/", maxAge: 12 * time.Hour, sameSite: http.SameSiteNoneMode, partitioned: true}, p.cookie)
	assert.Empty(t, p.only)
	assert.Empty(t, p.entries)
	assert.Equal(t, 5*time.Second, p.Cache)
	assert.True(t, p.Observe)
	assert.Equal(t, policy.Deny, p.OnLimit, "a profile that only observes ends no stream")
}

func TestParse_Errors(t *testing.T) {
	t.Parallel()
	member := func(text string) string {
		return `profiles: {vod: {paths: "/a/{content}/{f...}", user: bearer, ` + text + `}}`
	}
	for content, want := range map[string]string{
		"":                                       "want members, this is nothing",
		"profiles: {}":                           "profiles: want at least one profile",
		"profiles: [a]":                          "profiles: want members, this is a list",
		"Profiles: {}":                           `unknown member "Profiles": did you mean "profiles"?`,
		"profiles: {Vod: {}}":                    `profiles: "Vod": want a name of 1 to 32`,
		"profiles: {vod: }":                      "profiles: vod: want members, this is nothing",
		"profiles: {vod: {user: bearer}}":        "profiles: vod: paths: want at least one",
		"profiles: {vod: {paths: /vod}}":         "profiles: vod: user: want at least one source",
		"profiles: {vod: {paths: /, user: []}}":  "profiles: vod: user: want at least one source",
		"profiles: {vod: {path: /}}":             `profiles: vod: unknown member "path": the members are bind, cache`,
		"profiles: {vod: {paths: /}, vod: {}}":   "already set",
		"profiles: {vod: {paths: /, paths: /a}}": "already set",
		"a: 1\n---\nb: 2":                        "several YAML documents",
		"profiles: {vod: " + short + "}\nsources: {m: {type: srs}}": "sources: hooks of media servers are not supported",
		member(`from: proxy`):                                               "vod: from: want forwarded or original or request",
		member(`from: [original]`):                                          "vod: from: want forwarded or original or request",
		`profiles: {vod: {user: bearer, paths: vod}}`:                       `vod: paths: "vod": want a path that begins with /`,
		`profiles: {vod: {user: bearer, paths: "/a/{b"}}`:                   `"{b": want {name} or {name...}`,
		`profiles: {vod: {user: bearer, paths: "/{a...}/b"}}`:               "{a...} must be at the end",
		`profiles: {vod: {user: bearer, paths: "/{a}/{a}"}}`:                "{a} is there twice",
		`profiles: {vod: {user: bearer, paths: "/a/../b"}}`:                 "never in the path that is compared",
		`profiles: {vod: {user: bearer, paths: "/a//b"}}`:                   "never in the path that is compared",
		`profiles: {vod: {user: bearer, paths: "/a%20b"}}`:                  "want a path without",
		`profiles: {vod: {user: bearer, paths: "/a\u0007"}}`:                "a character that no path may have",
		member(`other: allow`):                                              "vod: other: want deny or pass",
		member(`only: "*.ts"`):                                              `vod: only: "*.ts": want the extension`,
		member(`entry: master.m3u8`):                                        "vod: entry: \"master.m3u8\": want a pattern of whole paths",
		member(`post: yes`):                                                 "vod: post: want count or pass",
		`profiles: {vod: {paths: /, user: token}}`:                          `vod: user: "token": want one of bearer, query:NAME, path:NAME, cookie:NAME, header:NAME, basic`,
		`profiles: {vod: {paths: /, user: "bearer:x"}}`:                     `"bearer:x": want one of`,
		`profiles: {vod: {paths: /, user: "query:"}}`:                       `"query:": want one of`,
		`profiles: {vod: {paths: /, user: "claim:sub"}}`:                    `"claim:sub": want one of`,
		`profiles: {vod: {paths: /, user: "header:X User"}}`:                `"header:X User": want one of`,
		`profiles: {vod: {paths: /, user: "path:token"}}`:                   "vod: user: path:token: no path has {token}",
		member(`session: "path:sid"`):                                       "vod: session: path:sid: no path has {sid}",
		member(`session: bearer`):                                           "vod: session: \"bearer\": want one of claim:NAME",
		member(`session: []`):                                               "vod: session: want at least one source",
		member(`session: [derive, "query:sid"]`):                            "vod: session: nothing after derive is ever used: remove query:sid",
		member(`bind: ip`):                                                  `vod: bind: "ip": want ua or ip24`,
		member(`derive: [ua]`):                                              "vod: derive: want [credential] or [credential, ua]",
		member(`derive: [ip]`):                                              `vod: derive: "ip": want credential or ua`,
		member(`device: {kind: "claim:k"}`):                                 `vod: device: unknown member "kind": the members are id, name`,
		member(`device: {id: derive}`):                                      `vod: device: id: "derive": want one of`,
		member(`content: {id: "header:x"}`):                                 `vod: content: id: "header:x": want one of path:NAME, query:NAME`,
		member(`content: {id: "path:film"}`):                                "vod: content: path:film: no path has {film}",
		member(`content: {type: "paths:x"}`):                                `vod: content: type: "paths:x": want one of claim:NAME, query:NAME, path:NAME, cookie:NAME, header:NAME, or a text without a colon`,
		member(`content: {type: [live]}`):                                   "vod: content: type: want",
		member(`content: {type: ` + strings.Repeat("x", 65) + `}`):          "vod: content.type: does not have 1 to 64 characters",
		member(`content: {labels: "path:pack"}`):                            "vod: content: path:pack: no path has {pack}",
		member(`content: {labels: [a, b, c, d, e, f, g, h, i]}`):            "vod: content.labels: more than 8 labels",
		member(`device: {type: "path:kind"}`):                               "vod: device: path:kind: no path has {kind}",
		member(`profile: ` + strings.Repeat("x", 201)):                      "vod: profile: does not have 1 to 200 characters",
		member(`profile: derive:x`):                                         `vod: profile: "derive:x": want one of claim:NAME`,
		member(`labels: tier`):                                              "vod: labels: want members",
		member(`labels: {tier: "query:tier"}`):                              `vod: labels: tier: "query:tier": want one of claim:NAME, header:NAME, or a text`,
		member(`labels: {"a b": x}`):                                        "vod: labels: a key has 1 to 32 characters",
		member(`labels: {tier: 1}`):                                         "vod: labels: tier: want",
		member(`change: stay`):                                              "vod: change: want move or split",
		member(`onLimit: replace-lowest`):                                   "vod: onLimit: want deny or replace-oldest",
		member(`onOutage: open`):                                            "vod: onOutage: want allow or deny or known",
		member(`cache: 1500ms`):                                             "vod: cache: want whole seconds, 0s to 1m",
		member(`cache: 2m`):                                                 "vod: cache: want whole seconds",
		member(`cache: 1`):                                                  "vod: cache: want a duration with a unit",
		member(`cookie: {name: sc}`):                                        "vod: cookie: it would never be read: add cookie:sc to user",
		member(`cookie: {path: /}`):                                         "vod: cookie: name: want 1 to 64",
		member(`cookie: {name: sc, path: vod}`):                             "vod: cookie: path: want a path",
		member(`cookie: {name: sc, path: "/;a"}`):                           "vod: cookie: path: want a path",
		member(`cookie: {name: sc, maxAge: 1s}`):                            "vod: cookie: maxAge: want whole seconds, 1m to 9600h",
		member(`cookie: {name: sc, sameSite: None}`):                        "vod: cookie: sameSite: want lax or none or strict",
		member(`cookie: {name: sc, secure: false}`):                         "vod: cookie: secure: browsers ignore",
		member(`cookie: {name: __host-sc, path: /a}`):                       "vod: cookie: path: browsers ignore",
		member(`cookie: {name: __Host-sc, secure: false, sameSite: lax}`):   "vod: cookie: secure: browsers ignore",
		member(`cookie: {name: __Secure-sc, secure: false, sameSite: lax}`): "vod: cookie: secure: browsers ignore",
		`profiles: {vod: {paths: /, user: "cookie:sc", session: "cookie:sc", cookie: {name: sc}}}`: "vod: session: cookie:sc is the cookie of the profile",
		`profiles: {vod: {paths: ["/a/{content}", /keys], user: bearer, change: split}}`:           "vod: change: split needs {content} in every path",
		`profiles: {vod: {paths: /keys, user: bearer, change: split}}`:                             "vod: change: split needs the content",
		`profiles:
  a: {paths: /, user: "cookie:sc", cookie: {name: sc, path: /a}}
  b: {paths: /, user: "cookie:sc", cookie: {name: sc}}`: "profiles: b: cookie: a has a cookie of the same name for the same paths",
	} {
		_, err := Parse([]byte(content))
		if assert.ErrorContains(t, err, want, content) {
			assert.NotContains(t, err.Error(), "\n")
		}
	}
	_, err := Parse([]byte(`profiles:
  a: {paths: /, user: "cookie:sc", cookie: {name: sc, path: /a}}
  b: {paths: /, user: "cookie:sc", cookie: {name: sc, path: /ab}}`))
	assert.NoError(t, err, "no path has both cookies")
}
