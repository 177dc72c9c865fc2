package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
)

// Unusual user ids are accepted, and reach the limiter unchanged.
func TestAcceptedInput_Users(t *testing.T) {
	f := &fake{count: 1}
	addr, _ := run(t, newServer(t, Config{}, f))
	for _, user := range []string{
		"1", "0", "-1", "00", "1e3", "true", "null", "undefined", "__proto__", "NaN", "auth0|5f7c",
		"maya@example.com",
		"urn:uuid:0b9ce8d1-1f3c-4f4e-9e2d-0d3f5b8c7a61", "a+b=", "~", "...", "a..b", ".a", "Ada", "ada", "start",
		"users",
		strings.Repeat("a", 128), `CORP\ann`, "o'brien@x.example", "müller", "mu\u0308ller", "ann lee", "tom/admin",
		"S//808E9UOiYKKAkagOBLGxvuLUbDCXlp8sZz6ilew8=", "/", "//", "a/", "maya/stop", "..", ".", "../noah", "%", "%2F", "a%252Fb",
		"a+b@x.example", "a b+c", "{user}", "*", "a;x=1", "a?b#c", `"<script>`, "$,&", "\ufeffa", "\u202e", "\u200b", "📺", "İ", "ſ", "\ufffd",
		strings.Repeat("é", 64), strings.Repeat("📺", 32), "maya/streams/" + "a" + "/heartbeat", "a\u2028b", "[::1]",
	} {
		spellings := []string{url.PathEscape(user), everyByteEscaped(user)}
		if plainPath.MatchString(user) && user != "." && user != ".." {
			spellings = append(spellings, user)
		}
		if strings.Contains(spellings[0], "%2F") { // raw bytes elsewhere do not make it two segments
			spellings = append(spellings, strings.NewReplacer("/", "%2F", "%", "%25", "?", "%3F", "#", "%23", " ", "%20").Replace(user))
		}
		if user == "." || user == ".." {
			spellings = spellings[1:]
		}
		for _, spelling := range spellings {
			a := send(t, addr, bare("GET", "/api/v1/streams/users/"+spelling), 5*time.Second)
			require.Equal(t, 200, a.status, "%s: %s", spelling, a.body)
			assert.Equal(t, []string{"list " + user}, f.taken())
			var u apitype.User
			require.NoError(t, json.Unmarshal([]byte(a.body), &u))
			assert.Equal(t, user, u.UserID)
		}
	}
}

var plainPath = regexp.MustCompile(`^[A-Za-z0-9._~@:|+=$,;&!*'()-]+$`)

func everyByteEscaped(s string) string {
	var out strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&out, "%%%02x", s[i])
	}
	return out.String()
}

// Unusual requests that are valid are accepted.
func TestAcceptedInput_Requests(t *testing.T) {
	f := &fake{count: 1}
	addr, _ := run(t, newServer(t, Config{}, f))
	start := userBase + "/start"
	plainStart := "start maya {Session: Replaces:[] OnLimit: Device:{ID: Name: Type:} Content:{ID: Title:} Attributes:{Profile: Network: ContentType: ContentLabels:[] Labels:map[] Priority:<nil>} Join:false Via: Plan: Grant: Limit:<nil> RoutingRevision:0}"
	withSession := strings.Replace(plainStart, "Session:", "Session:s", 1)
	withName := func(name string) string { return strings.Replace(plainStart, "Name:", "Name:"+name, 1) }
	head := "POST " + start + " HTTP/1.1\r\nHost: x\r\n"
	for name, c := range map[string]struct{ raw, call string }{
		"no_body_no_length": {head + "\r\n", plainStart},
		"empty_object":      {post(start, "{}"), plainStart},
		"spaces_around":     {post(start, " \r\n\t{ } \n"), plainStart},
		"no_body_any_type":  {bare("POST", start, "Content-Length: 0", "Content-Type: text/plain"), plainStart},
		"charset":           {head + "Content-Type: application/json; charset=UTF-8\r\nContent-Length: 2\r\n\r\n{}", plainStart},
		"quoted_charset":    {head + "Content-Type: Application/JSON; charset=\"utf-8\"\r\nContent-Length: 2\r\n\r\n{}", plainStart},
		"identity":          {post(start, "{}", "Content-Encoding: identity"), plainStart},
		"any_accept":        {post(start, "{}", "Accept: image/png"), plainStart},
		"accept_json":       {post(start, "{}", "Accept: json"), plainStart},
		"same_lengths":      {post(start, "{}", "Content-Length: 2"), plainStart},
		"full_body":         {post(start, `{"session":"s"}`+strings.Repeat(" ", 16<<10-15)), withSession},
		"200_characters": {post(start, `{"session":"`+strings.Repeat("é", 200)+`"}`),
			strings.Replace(plainStart, "Session:", "Session:"+strings.Repeat("é", 200), 1)},
		"escaped_pair": {post(start, `{"session":"\ud83c\udfac\\u0000"}`), strings.Replace(plainStart,
			"Session:", `Session:🎬\u0000`, 1)},
		"null_body":       {post(start, " null\n"), plainStart},
		"bom":             {post(start, "\xef\xbb\xbf{}"), plainStart},
		"bom_and_null":    {post(start, "\xef\xbb\xbfnull"), plainStart},
		"null_members":    {post(start, `{"session":null,"device":null,"content":{"id":null,"title":null},"plan":null,"onLimit":null}`), plainStart},
		"unknown_inside":  {post(start, `{"session":"s","device":{"os":{"x":[[[[[[[[[[1]]]]]]]]]]},"Name":7},"content":{"x":null}}`), withSession},
		"long_name":       {post(start, `{"device":{"name":"`+strings.Repeat("é", 201)+`"}}`), withName(strings.Repeat("é", 200))},
		"longest_name":    {post(start, `{"device":{"name":"`+strings.Repeat("x", 16_000)+`"}}`), withName(strings.Repeat("x", 200))},
		"long_type":       {post(start, `{"device":{"type":"`+strings.Repeat("x", 201)+`"}}`), strings.Replace(plainStart, "Type:", "Type:"+strings.Repeat("x", 200), 1)},
		"long_title":      {post(start, `{"content":{"title":"`+strings.Repeat("📺", 201)+`"}}`), strings.Replace(plainStart, "Title:", "Title:"+strings.Repeat("📺", 200), 1)},
		"half_an_emoji":   {post(start, `{"device":{"name":"TV \ud83d"}}`), withName("TV \ufffd")},
		"other_half":      {post(start, `{"device":{"name":"\udcfa\ud83d TV"}}`), withName("\ufffd\ufffd TV")},
		"controls":        {post(start, `{"device":{"name":"a\u0000b\nc\u007fd\u0085e"}}`), withName("a b c d e")},
		"bare_line_feeds": {strings.ReplaceAll(post(start, "{}"), "\r\n", "\n"), plainStart},
		"absolute_target": {strings.Replace(bare("GET", "http://evil.example"+userBase), "Host: x",
			"Host: y", 1), "list maya"},
		"100_headers": {bare("GET", userBase, strings.TrimSuffix(strings.Repeat("X: 1\r\n", 100), "\r\n")),
			"list maya"},
		"9k_header":        {bare("GET", userBase, "X: "+strings.Repeat("x", 7<<10)), "list maya"},
		"head":             {bare("HEAD", userBase), "list maya"},
		"odd_header_bytes": {bare("GET", userBase, "X: \xff\xfe"), "list maya"},
		"http_1_0":         {"GET " + userBase + " HTTP/1.0\r\n\r\n", "list maya"},
		"chunked": {head + "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2;ext=1\r\n{}\r\n0\r\nT: x\r\n\r\n",
			plainStart},
		"beacon_any_type": {bare("POST", userBase+"/streams/s/stop", "Content-Encoding: gzip", "Content-Type: x",
			"Content-Length: 1") + "x", "stop maya s"},
		"beacon_no_type": {bare("POST", userBase+"/streams/s/stop", "Content-Length: 4") + "null", "stop maya s"},
		"get_with_body":  {bare("GET", userBase, "Content-Length: 3") + "abc", "list maya"},
		"markup":         {post(userBase+"/stop", `{"streamId":"<script>"}`), "stop maya <script>"},
		"expect":         {post(start, "{}", "Expect: 100-continue"), plainStart},
	} {
		t.Run(name, func(t *testing.T) {
			a := send(t, addr, c.raw, 5*time.Second)
			if name == "expect" {
				assert.Equal(t, http.StatusContinue, a.status)
			} else {
				require.Equal(t, 200, a.status, a.body)
				assert.Equal(t, "application/json", a.header.Get("Content-Type"))
			}
			var calls []string
			require.Eventually(t, func() bool {
				calls = append(calls, f.taken()...)
				return len(calls) > 0
			}, time.Minute, time.Millisecond)
			assert.Equal(t, []string{c.call}, calls)
		})
	}
}

// All common names of UTF-8 are accepted.
func TestAcceptedInput_MediaTypes(t *testing.T) {
	s := newServer(t, Config{}, &fake{})
	for _, kind := range []string{
		"application/json", "Application/JSON ", "application/json;", "application/json; charset=utf8", "application/json; charset=UTF8",
		`application/json; charset="utf8"`, "application/json;charset='utf-8'", "application/json; charset=utf_8",
		"application/json; charset=Unicode-1-1-UTF-8", "application/json; charset=us-ascii", "application/json; CHARSET=Utf-8",
		"application/json; charset=utf8mb4", "application/json; odata=verbose; charset=utf-8", "application/json; charset",
	} {
		w := call(s, "POST", userBase+"/start", `{"device":{"name":"é"}}`, "Content-Type", kind)
		assert.Equal(t, 200, w.Code, "%s: %s", kind, w.Body)
	}
}

// A batch with a few malformed ids is served. A batch with many is rejected, because the
// response would repeat them.
func TestAcceptedInput_BatchWithBadIDs(t *testing.T) {
	s := newServer(t, Config{}, &fake{})
	batch := func(bad int) string {
		return `{"heartbeats":[` + strings.Repeat(`{"userId":"a","streamId":"not/an id"},`, bad) + `{"userId":"a","streamId":"s"}]}`
	}
	assert.Equal(t, 200, call(s, "POST", "/api/v1/streams/heartbeats", batch(20)).Code)
	w := call(s, "POST", "/api/v1/streams/heartbeats", batch(21))
	assert.Equal(t, 422, w.Code)
	assert.Equal(t, 20, strings.Count(w.Body.String(), "body.heartbeats["), w.Body)
}

// The largest batch with the longest ids is accepted.
func TestAcceptedInput_LargestBatch(t *testing.T) {
	s := newServer(t, Config{}, &fake{})
	heartbeat := `{"userId":"` + strings.Repeat("u", 128) + `","streamId":"` + strings.Repeat("s", 64) + `"}`
	w := call(s, "POST", "/api/v1/streams/heartbeats", `{"heartbeats":[`+strings.Repeat(heartbeat+",", 999)+heartbeat+`]}`)
	require.Equal(t, 200, w.Code, w.Body)
	assert.JSONEq(t, `{"alive":1000,"ended":[]}`, w.Body.String())
}

func TestHead_IsGetWithoutBody(t *testing.T) {
	addr, _ := run(t, newServer(t, Config{}, &fake{count: 1}))
	for _, path := range []string{userBase, "/api/v1/stats", "/healthz", "/readyz", "/docs", "/openapi.json"} {
		head, full := send(t, addr, bare("HEAD", path), 5*time.Second), send(t, addr, bare("GET", path), 5*time.Second)
		assert.Equal(t, full.status, head.status, path)
		assert.Empty(t, head.body, path)
		assert.NotEmpty(t, full.body, path)
		assert.Equal(t, full.header.Get("Content-Type"), head.header.Get("Content-Type"), path)
	}
}
