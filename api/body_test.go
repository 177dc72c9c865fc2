package api

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/internal/openapi"
	"streamcount/api/internal/problem"
)

// readAs checks a body against a named schema, and returns the members that are kept.
func readAs(s *Server, schema, body string) (string, *problem.Problem) {
	out, p := s.checkJSON([]byte(body), s.schemas.Map()[schema])
	return strings.ReplaceAll(string(out), " ", ""), p
}

func TestCheckJSON_Accepts(t *testing.T) {
	s := newServer(t, Config{}, &fake{})
	for _, c := range []struct{ schema, body, want string }{
		{"Start", `{}`, `{}`},
		{"Start", "\r\n\t {} ", `{}`},
		{"Start", "\xef\xbb\xbf{}", `{}`},
		{"Start", `{"session":"a\\u0000"}`, `{"session":"a\\u0000"}`},
		{"Start", `{"session":"\u0001"}`, `{"session":"\u0001"}`},
		{"Start", `{"\u0073ession":"b"}`, `{"\u0073ession":"b"}`},
		{"Start", `{"session":"\ud83d\ude00x","replaces":"]}[{:,"}`, `{"session":"\ud83d\ude00x","replaces":"]}[{:,"}`},
		{"Start", `{"session":null}`, `{}`},
		{"Start", `{"session":null,"device":null,"plan":"a"}`, `{"plan":"a"}`},
		{"Start", `{"plan":"a", "session" : null , "device":null}`, `{"plan":"a"}`},
		{"Start", `{"plan":"a","session":null,"replaces":"b"}`, `{"plan":"a","replaces":"b"}`},
		{"Start", `{"device":{"id":null,"name":"x","type":null}}`, `{"device":{"name":"x"}}`},
		{"Start", `{"device":{"os":{"a":[null,{"b":"}"}],"a":1e999},"name":"x"}}`, `{"device":{"name":"x"}}`},
		{"Start", `{"device":{"name":"x","os":"\ud800","\udead":[]}}`, `{"device":{"name":"x"}}`},
		{"Start", `{"device":{"Name":7,"a":1,"a":2,"A":3}}`, `{"device":{}}`},
		{"Start", `{"device":{"a":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}}`, `{"device":{}}`},
		{"Start", `{"content":{"title":"\u0000\ud800"}}`, `{"content":{"title":"\u0000\ud800"}}`},
		{"RuleSet", `{"users":{"Ada":{"limit":1,"plan":null},"ada":{"limit":2}}}`,
			`{"users":{"Ada":{"limit":1},"ada":{"limit":2}}}`},
		{"RuleSet", `{"users":null,"removeUsers":null,"dryRun":true}`, `{"dryRun":true}`},
	} {
		left, p := readAs(s, c.schema, c.body)
		require.Nil(t, p, c.body)
		require.True(t, json.Valid([]byte(left)), left)
		assert.Equal(t, c.want, left, c.body)
	}
}

func TestCheckJSON_Statuses(t *testing.T) {
	s := newServer(t, Config{}, &fake{})
	many := func(n int, each string) string { return strings.Repeat(each+",", n-1) + each }
	rules := func(n int) string {
		var out []string
		for i := range n {
			out = append(out, fmt.Sprintf(`"u%d":{"limit":1}`, i))
		}
		return `{"users":{` + strings.Join(out, ",") + `}}`
	}
	for _, c := range []struct {
		schema, body string
		status       int
		where        string
	}{
		{"Start", `{"session":"a","session":"b"}`, 400, "body"},
		{"Start", `{"session":"a","Session":"b"}`, 400, "body"},
		{"Start", `{"device":{"id":"a","ID":"b"}}`, 400, "body.device"},
		{"Start", `{"device":{"id":null,"id":"b"}}`, 400, "body.device"},
		{"Start", `{}{}`, 400, "body"},
		{"Start", "{\"\xff\":1}", 400, "body"},
		{"Start", `[{}]`, 422, "body"},
		{"Start", ` 1 `, 422, "body"},
		{"Start", `null`, 422, "body"},
		{"Start", `{"a":1}`, 422, "body.a"},
		{"Start", `{"` + strings.Repeat("a", 16000) + `":1}`, 422, "body"},
		{"Start", `{"session":["a"]}`, 422, "body.session"},
		{"Start", `{"session":{"a":1}}`, 422, "body.session"},
		{"Start", `{"device":"a"}`, 422, "body.device"},
		{"Start", `{"session":"a\u0000"}`, 422, "body.session"},
		{"Start", `{"content":{"id":"\uD83Dx\uDE00"}}`, 422, "body.content.id"},
		{"Start", `{"\u0000":1}`, 422, "body"},
		{"PlanRule", `{"limit":1e999}`, 422, "body.limit"},
		{"PlanRule", `{"limit":[1]}`, 422, "body.limit"},
		{"Heartbeats", `{"heartbeats":[` + many(1001, `{}`) + `]}`, 422, "body.heartbeats"},
		{"Heartbeats", `{"heartbeats":[` + many(1001, `null`) + `]}`, 422, "body.heartbeats[0]"},
		{"Heartbeats", `{"heartbeats":[{},` + many(10_000, `[]`) + `]}`, 422, "body.heartbeats[1]"},
		{"Heartbeats", `{"heartbeats":[{"userId":["a"]}]}`, 422, "body.heartbeats[0].userId"},
		{"RuleSet", rules(1001), 422, "body.users"},
		{"RuleSet", `{"removeUsers":[` + many(1001, `"a"`) + `]}`, 422, "body.removeUsers"},
		{"RuleSet", `{"users":{"a":null}}`, 422, "body.users.a"},
		{"RuleSet", `{"users":{"a":{},"a":{}}}`, 400, "body.users"},
	} {
		_, p := readAs(s, c.schema, c.body)
		if assert.NotNil(t, p, c.body[:min(80, len(c.body))]) {
			assert.Equal(t, c.status, p.Status, "%.80s", c.body)
			require.Len(t, p.Errors, 1)
			assert.Equal(t, c.where, p.Errors[0].Location, "%.80s", c.body)
		}
	}
	_, p := readAs(s, "RuleSet", rules(1000))
	assert.Nil(t, p)
}

// The check takes linear time, also for the most expensive bodies of the maximum size.
func TestCheckJSON_IsLinear(t *testing.T) {
	s := newServer(t, Config{}, &fake{})
	var names []string
	for i := range openapi.MaxBatchBody / 16 {
		names = append(names, fmt.Sprintf(`"%06d":null`, i))
	}
	for _, worst := range []string{
		`{"device":{` + strings.Join(names, ",") + `}}`,
		`{"device":{"a":` + strings.Repeat(`[`, 9000) + strings.Repeat("]", 9000) + strings.Repeat(`,"b":[{}]`, 40_000) + `}}`,
	} {
		started := time.Now()
		_, p := readAs(s, "Start", worst)
		assert.Nil(t, p)
		assert.Less(t, time.Since(started), patience)
	}
}

// Problems have a limited size. An accepted body has the same value after encoding/json has
// decoded and encoded it.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"session":"a","device":{"name":"\ud83c\udfac"}}`, `{"heartbeats":[{"userId":"a","streamId":"b"}]}`,
		`{"session":1,"SESSION":2}`, `{"session":"\ud800"}`, `{"device":{"name":"\ud800\u0000","x":[null]}}`, `null`,
		`[[[[[[[[[[`, "\xef\xbb\xbf{}", `{"limit":1e400}`, `{"\\":"\\"}`, `{"limit":-0}`, `{"ſ":1,"s":2}`, "{\"\xff\":1}",
		`{"users":{"a":{"limit":null,"plan":"b"}},"removeUsers":["c",null]}`, `{"device":{},"content":null,"plan":"\\\""}`,
		`{"device":{"x":{"y":1},"id":"a","z":2},"content":{"x":1}}`, `{"session":null,"device":{"id":null}}`,
	} {
		f.Add([]byte(seed))
	}
	s := newServer(f, Config{}, &fake{})
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, name := range []string{"Start", "Stop", "Heartbeats", "RuleSet", "LimitRule", "PlanRule"} {
			if len(body) == 0 {
				return
			}
			schema := s.schemas.Map()[name]
			left, p := s.checkJSON(body, schema)
			if p != nil {
				b, err := json.Marshal(p)
				require.NoError(t, err)
				require.Less(t, len(b), 4<<10)
				continue
			}
			var first, second map[string]any
			require.NoError(t, json.Unmarshal(left, &first), "%s as %s", body, name)
			again, err := json.Marshal(first)
			require.NoError(t, err)
			more, p := s.checkJSON(again, schema)
			require.Nil(t, p, "%s became %s", body, again)
			require.NoError(t, json.Unmarshal(more, &second))
			require.Equal(t, first, second)
		}
	})
}
