package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// secretText is part of requests. No response may contain it.
const secretText = "hunter2"

// An invalidRequest is a request that must be rejected before the limiter is called.
type invalidRequest struct {
	name string
	raw  string
	want []int // any of
	// foreign means that net/http responds itself, not with a problem.
	foreign bool
}

func is(status ...int) []int { return status }

func TestRejectedInput(t *testing.T) {
	f := &fake{}
	addr, _ := run(t, newServer(t, Config{}, f))
	var all []invalidRequest
	for _, list := range [][]invalidRequest{
		badPaths(), badIDs(), badStarts(), badJSON(), badStops(), badBatches(), badMedia(), badMethods(),
		badFraming(), badHeaders(),
	} {
		all = append(all, list...)
	}
	names := map[string]bool{}
	for _, b := range all {
		require.False(t, names[b.name], "two cases named %s", b.name)
		names[b.name] = true
		t.Run(b.name, func(t *testing.T) {
			a := send(t, addr, b.raw, 5*time.Second)
			require.Contains(t, b.want, a.status, "%s", a.body)
			assert.Empty(t, f.taken(), "calls of the limiter")
			assert.NotContains(t, a.body, secretText)
			assert.Empty(t, a.header.Get("Location"))
			if !b.foreign && !strings.HasPrefix(b.raw, "HEAD") {
				checkProblem(t, a)
			}
		})
	}
	t.Logf("%d bad inputs answered", len(all))
	require.Greater(t, len(all), 180)
}

func badPaths() []invalidRequest {
	var out []invalidRequest
	for name, c := range map[string]struct {
		user string
		want []int
	}{
		"empty": {"", is(404)}, "129": {strings.Repeat("a", 129), is(422)},
		"129_bytes": {strings.Repeat("%c3%a9", 64) + "a", is(422)}, "slash_raw": {"a/b", is(404)},
		"dots": {"..", is(404)}, "dot": {".", is(404)}, "dots_then": {"../noah", is(404)},
		"dot_then": {"./noah", is(404)}, "dots_encoded_then": {"%2e%2e/noah", is(404)},
		"nul": {"a%00b", is(422)}, "newline": {"a%0ab", is(422)}, "c1": {"a%c2%85b", is(422)},
		"trailing_newline": {"a%0a", is(422)}, "cr": {"a%0db", is(422)}, "tab": {"a%09", is(422)}, "del": {"a%7f", is(422)},
		"escape": {"%1b[2J", is(422)}, "bad_utf8": {"%ff", is(422)}, "overlong": {"%c0%af", is(422)},
		"surrogate": {"%ed%a0%80", is(422)}, "slash_and_nul": {"a%2f%00", is(422)},
		"5000": {strings.Repeat("a", 5000), is(414)}, "100000": {strings.Repeat("a", 100_000), is(431)},
		"bad_escape": {"%zz", is(400)}, "half_escape": {"a%2", is(400)}, "raw_space": {"a b", is(400)},
		"raw_nul": {"a\x00b", is(400)}, "raw_del": {"a\x7f", is(400)}, "raw_bytes": {"a\xff\xfe", is(422)},
	} {
		out = append(out, invalidRequest{
			"user_" + name, bare("POST", "/api/v1/streams/users/"+c.user+"/start", "Content-Length: 0"), c.want,
			c.want[0] == 400 || c.want[0] == 431,
		})
	}
	for name, target := range map[string]string{
		"trailing_slash": userBase + "/", "trailing_slash_start": userBase + "/start/",
		"doubled":        "//api/v1/streams/users/maya",
		"doubled_inside": "/api/v1//streams/users/maya", "case": "/API/v1/streams/users/maya",
		"v2":  "/api/v2/streams",
		"api": "/api", "parent": userBase + "/../noah", "nothing": "/nothing", "docs_parent": "/docs/../api",
		"docs_slash": "/docs/", "docs_nothing": "/problems/", "no_call": userBase + "/begin",
		"no_user": "/api/v1/streams/users/",
		"debug":   "/debug/pprof/", "git": "/.git/config", "slash_encoded": "/api/v1/streams%2fusers/maya",
		"slash_in_call": userBase + "%2fstart/", "slash_call": userBase + "/streams%2Fa", "dots_encoded": "/docs/%2e%2e/api",
		"dot_encoded": userBase + "/%2E", "slash_and_bar": userBase + "/streams/a%2Fb|c",
	} {
		out = append(out, invalidRequest{"path_" + name, bare("GET", target), is(404), false})
		out = append(out, invalidRequest{"path_" + name + "_post", post(target, "{}"), is(404), false})
	}
	return out
}

func badIDs() []invalidRequest {
	var out []invalidRequest
	for name, c := range map[string]struct {
		id   string
		want []int
	}{
		"empty": {"", is(404)}, "65": {strings.Repeat("a", 65), is(422)},
		"5000":    {strings.Repeat("a", 5000), is(414)},
		"padding": {"abc%3D%3D", is(422)}, "raw_padding": {"abc==", is(422)}, "plus": {"ab+cd", is(422)},
		"slash": {"ab%2Fcd", is(404)}, "nul": {"ab%00cd", is(422)}, "space": {"ab%20cd", is(422)},
		"dots": {"..", is(404)}, "accent": {"%c3%a9", is(422)}, "newline": {"abc%0a", is(422)},
		"star": {"*", is(422)},
	} {
		target := userBase + "/streams/" + c.id
		out = append(out, invalidRequest{"id_heartbeat_" + name, bare("POST", target+"/heartbeat"), c.want, false})
		out = append(out, invalidRequest{"id_stop_" + name, bare("POST", target+"/stop"), c.want, false})
		out = append(out, invalidRequest{"id_delete_" + name, bare("DELETE", target), c.want, false})
	}
	return out
}

// badStarts are bodies that are JSON, but not valid starts.
func badStarts() []invalidRequest {
	long := strings.Repeat("x", 201)
	var out []invalidRequest
	for name, body := range map[string]string{
		"array": `[]`, "string": `"x"`, "empty_string": `""`, "number": `7`, "true": `true`,
		"unknown_field": `{"hunter2!":1}`, "unknown_value": `{"x":"hunter2"}`, "limit": `{"limit":99}`,
		"role": `{"role":"admin"}`, "ttl": `{"ttl":0}`, "proto": `{"__proto__":{}}`, "user": `{"userId":"noah"}`,
		"upper_case": `{"SESSION":"hunter2"}`, "other_case": `{"Session":"hunter2"}`,
		"long_s":         `{"ſession":"hunter2"}`,
		"session_number": `{"session":7}`, "session_bool": `{"session":true}`,
		"session_array":  `{"session":["hunter2"]}`,
		"session_object": `{"session":{}}`,
		"session_201":    `{"session":"` + long + `"}`,
		"replaces_201":   `{"replaces":"` + long + `"}`, "device_string": `{"device":"hunter2"}`,
		"device_array": `{"device":[]}`, "device_201": `{"device":{"id":"` + long + `"}}`,
		"device_201_accents": `{"device":{"id":"` + strings.Repeat("é", 201) + `"}}`,
		"device_number":      `{"device":{"id":1e3}}`, "content_number": `{"content":5}`,
		"content_201":  `{"content":{"id":"` + long + `"}}`,
		"content_lone": `{"content":{"id":"\ud800"}}`, "device_nul": `{"device":{"id":"\u0000"}}`,
		"title_object": `{"content":{"title":{"en":"hunter2"}}}`, "title_list": `{"content":{"title":["hunter2"]}}`, "on_limit": `{"onLimit":"hunter2"}`,
		"on_limit_empty": `{"onLimit":""}`, "on_limit_case": `{"onLimit":"DENY"}`,
		"on_limit_number": `{"onLimit":1}`,
		"nul":             `{"session":"a\u0000b"}`, "nul_in_key": `{"a\u0000":"b"}`, "lone_high": `{"session":"\ud800"}`,
		"lone_low": `{"session":"\udc00"}`, "swapped": `{"session":"\udc00\ud800"}`,
		"high_then_text":   `{"session":"\ud800ab"}`,
		"high_then_escape": `{"session":"\ud800\n"}`, "two_highs": `{"session":"\ud800\ud800"}`,
		"huge_number": `{"session":1e400}`, "huge_integer": `{"session":9223372036854775808}`,
		"minus_zero": `{"session":-0}`,
		"fraction":   `{"session":1.5}`, "many_fields": manyFields(200),
	} {
		out = append(out, invalidRequest{"start_" + name, post(userBase+"/start", body), is(422), false})
	}
	return out
}

func manyFields(n int) string {
	var fields []string
	for i := range n {
		fields = append(fields, fmt.Sprintf(`"f%d":1`, i))
	}
	return "{" + strings.Join(fields, ",") + "}"
}

// badJSON are bodies that are not one JSON document.
func badJSON() []invalidRequest {
	var out []invalidRequest
	for name, body := range map[string]string{
		"open": `{`, "trailing": `{}x`, "two": `{} {}`, "two_arrays": `[][]`, "spaces": `   `, "newline": "\n",
		"comma": `{"session":"hunter2",}`, "quotes": `{'session':'secretText'}`, "comment": `{/*secretText*/}`,
		"nan": `{"session":NaN}`,
		"hex": `{"session":0x10}`, "bare_key": `{session:"hunter2"}`,
		"duplicate":         `{"session":"hunter2","session":"b"}`,
		"duplicate_case":    `{"session":"a","Session":"hunter2"}`,
		"duplicate_escaped": `{"session":"a","\u0073ession":"b"}`,
		"duplicate_long_s":  `{"session":"a","ſession":"b"}`, "duplicate_inside": `{"device":{"id":"a","ID":"b"}}`,
		"duplicate_device": `{"device":{"id":"a"},"device":{"id":"b"}}`,
		"deep":             strings.Repeat("[", 200_001)[:16000],
		"bad_utf8":         "{\"session\":\"\xff\"}",
		"overlong":         "{\"session\":\"\xc0\xaf\"}",
		"surrogate_bytes":  "{\"session\":\"\xed\xa0\x80\"}", "boms": "\xef\xbb\xbf\xef\xbb\xbf{}", "utf16": "\xff\xfe{\x00}\x00",
		"utf16_no_bom": "{\x00}\x00", "raw_nul": "{\"session\":\"a\x00\"}", "raw_newline": "{\"session\":\"a\nb\"}",
		"bad_escape": `{"session":"\x41"}`, "half_escape": `{"session":"\u12"}`, "form": `session=secretText`,
	} {
		want := is(400)
		out = append(out, invalidRequest{"json_" + name, post(userBase+"/start", body), want, false})
	}
	return append(out,
		invalidRequest{"json_16k_and_one", post(userBase+"/start", strings.Repeat(" ", 16<<10+1)), is(413), false},
		invalidRequest{"json_4m_of_spaces", post(userBase+"/start", strings.Repeat(" ", 4<<20)), is(413), false},
		invalidRequest{"json_200001_deep", post(userBase+"/start", strings.Repeat("[", 200_001)), is(413), false},
		invalidRequest{"json_1m_device", post(userBase+"/start", `{"device":{"name":"`+strings.Repeat("x", 1<<20)+`"}}`),
			is(413), false},
	)
}

func badStops() []invalidRequest {
	stop := userBase + "/stop"
	return []invalidRequest{
		{"stop_empty_id", post(stop, `{"streamId":""}`), is(422), false},
		{"stop_number", post(stop, `{"streamId":7}`), is(422), false},
		{"stop_other_case", post(stop, `{"streamid":"hunter2"}`), is(422), false},
		{"stop_unknown", post(stop, `{"id":"hunter2"}`), is(422), false},
		{"stop_array", post(stop, `["hunter2"]`), is(422), false},
		{"stop_201", post(stop, `{"streamId":"`+strings.Repeat("x", 201)+`"}`), is(422), false},
		{"stop_bad_json", post(stop, `{"streamId":`), is(400), false},
		{"stop_query", post(stop+"?streamId=hunter2", ``), is(422), false},
	}
}

func badBatches() []invalidRequest {
	const target = "/api/v1/streams/heartbeats"
	heartbeat := `{"userId":"a","streamId":"b"}`
	heartbeats := func(n int) string { return `{"heartbeats":[` + strings.Repeat(heartbeat+",", n-1) + heartbeat + `]}` }
	var out []invalidRequest
	for name, body := range map[string]string{
		"none": ``, "empty": `{}`, "top_null": `null`, "no_objects": `{"heartbeats":[` + strings.Repeat(`{},`, 170_000) + `{}]}`, "zero": `{"heartbeats":[]}`, "1001": heartbeats(1001), "null": `{"heartbeats":null}`,
		"object": `{"heartbeats":` + heartbeat + `}`, "array": `[` + heartbeat + `]`, "null_heartbeat": `{"heartbeats":[null]}`,
		"string_heartbeat": `{"heartbeats":["hunter2"]}`, "no_id": `{"heartbeats":[{"userId":"hunter2"}]}`,
		"no_user": `{"heartbeats":[{"streamId":"hunter2"}]}`,
		"number":  `{"heartbeats":[{"userId":1,"streamId":"b"}]}`,
		"case":    `{"heartbeats":[{"userid":"a","streamId":"hunter2"}]}`,
		"unknown": `{"heartbeats":[{"userId":"a","streamId":"b","x":"hunter2"}]}`,
		"201":     `{"heartbeats":[{"userId":"` + strings.Repeat("a", 201) + `","streamId":"b"}]}`,
	} {
		out = append(out, invalidRequest{"batch_" + name, post(target, body), is(422), false})
	}
	return append(out,
		invalidRequest{"batch_get", bare("GET", target), is(405), false},
		invalidRequest{"batch_too_large", post(target, strings.Repeat(" ", 512<<10+1)), is(413), false})
}

func badMedia() []invalidRequest {
	var out []invalidRequest
	for name, header := range map[string]string{
		"text": "Content-Type: text/plain", "xml": "Content-Type: application/xml", "none": "X-None: 1",
		"form":      "Content-Type: application/x-www-form-urlencoded",
		"multipart": "Content-Type: multipart/form-data; boundary=x",
		"utf16":     "Content-Type: application/json; charset=utf-16",
		"latin1":    "Content-Type: application/json;charset=iso-8859-1",
		"problem":   "Content-Type: application/problem+json", "json_suffix": "Content-Type: application/x+json",
		"garbage": "Content-Type: ;;;", "empty": "Content-Type:",
		"twice": "Content-Type: application/json\r\nContent-Type: text/plain",
		"cbor":  "Content-Type: application/cbor", "json_word": "Content-Type: json",
		"gzip":    "Content-Type: application/json\r\nContent-Encoding: gzip",
		"deflate": "Content-Type: application/json\r\nContent-Encoding: identity\r\nContent-Encoding: deflate",
		"br":      "Content-Type: application/json\r\nContent-Encoding: br, identity",
	} {
		raw := fmt.Sprintf("POST %s/start HTTP/1.1\r\nHost: x\r\n%s\r\nContent-Length: 2\r\n\r\n{}", userBase, header)
		out = append(out, invalidRequest{"media_" + name, raw, is(415), false})
	}
	return out
}

func badMethods() []invalidRequest {
	out := []invalidRequest{
		{"method_connect", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", is(405), false},
		{"method_options_star", bare("OPTIONS", "*"), is(405), false},
		{"method_pri", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", is(400), false},
		{"method_get_star", bare("GET", "*"), is(400), true},
		{"method_head_start", bare("HEAD", userBase+"/start"), is(405), false},
		{"method_get_start", bare("GET", userBase+"/start"), is(405), false},
		{"method_post_stats", bare("POST", "/api/v1/stats"), is(405), false},
		{"method_post_users", bare("POST", "/api/v1/streams/users"), is(405), false},
		{"method_post_events", bare("POST", "/api/v1/events"), is(405), false},
		{"method_post_health", bare("POST", "/healthz"), is(405), false},
		{"method_post_home", bare("POST", "/"), is(405), false},
		{"method_token", bare("PO(ST", userBase), is(400), true},
		{"absolute_without_path", bare("GET", "http://evil.example"), is(400), false},
	}
	for _, method := range []string{"PUT", "PATCH", "TRACE", "OPTIONS", "BREW", "post", "PROPFIND", "QUERY"} {
		out = append(out, invalidRequest{"method_" + method, bare(method, userBase+"/start"), is(405), false})
		out = append(out, invalidRequest{"method_user_" + method, bare(method, userBase), is(405), false})
	}
	return out
}

func badHeaders() []invalidRequest {
	many := make([]string, 1000)
	for i := range many {
		many[i] = fmt.Sprintf("X%d: 1", i)
	}
	return []invalidRequest{
		{"header_64k", bare("GET", userBase, "X-Big: "+strings.Repeat("x", 64<<10)), is(431), true},
		{"header_1000", bare("GET", userBase, many...), is(431), false},
		{"header_101", bare("GET", userBase, many[:101]...), is(431), false},
		{"header_4000", bare("GET", userBase, strings.Repeat("X: 1\r\n", 4000)+"Y: 1"), is(431), true},
		{"header_nul", bare("GET", userBase, "X: a\x00b"), is(400), true},
		{"header_cr", bare("GET", userBase, "X: a\rb"), is(400), true},
		{"header_name", bare("GET", userBase, "X Y: 1"), is(400), true},
		{"header_no_colon", bare("GET", userBase, "hunter2"), is(400), true},
		{"header_expect", post(userBase+"/start", "{}", "Expect: foo"), is(http.StatusExpectationFailed), true},
		{"host_none", "GET /healthz HTTP/1.1\r\n\r\n", is(400), true},
		{"host_twice", "GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", is(400), true},
		{"host_bad", "GET /healthz HTTP/1.1\r\nHost: a b\r\n\r\n", is(400), true},
		{"query_semicolon", bare("GET", userBase+"?a=secretText;b=2"), is(400), false},
		{"query_escape", bare("GET", userBase+"?a=%zz"), is(400), false},
		{"query_user", bare("GET", userBase+"?user=noah"), is(422), false},
		{"query_limit", bare("GET", userBase+"?limit=hunter2"), is(422), false},
		{"query_twice", bare("GET", userBase+"?limit=1&limit=2"), is(422), false},
		{"query_name", bare("GET", userBase+"?secretText%20!=1"), is(422), false},
		{"query_stats", bare("GET", "/api/v1/stats?x"), is(422), false},
		{"query_start", post(userBase+"/start?x=1", "{}"), is(422), false},
		{"query_long", bare("GET", userBase+"?"+strings.Repeat("x", 3<<10)), is(414), false},
		{"http_0_9", "GET /healthz\r\n\r\n", is(400), true},
		{"http_3", "GET /healthz HTTP/3.0\r\nHost: x\r\n\r\n", is(505), true},
		{"tls_hello", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03hello\r\n\r\n", is(400), true},
	}
}
