package plainjson

import (
	"bytes"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
	"streamcount/api/internal/openapi"
	"streamcount/api/internal/strictjson"
)

// FuzzAppend compares what is appended with encoding/json.
func FuzzAppend(f *testing.F) {
	for _, text := range []string{"", "maya", "<b>&", `"\`, "\x00\x1f\x7f\x80", "é\u2028\u2029", "\xff\xc3", "😀"} {
		f.Add(text, "b", "c", int64(0), 1, uint16(0xffff))
		f.Add("a", text, text, int64(1767323045678), -7, uint16(0x5555))
		f.Add(text, text, "", int64(-62135596800000), 0, uint16(0))
	}
	f.Fuzz(func(t *testing.T, a, b, c string, ms int64, n int, present uint16) {
		has := func(bit int) bool { return present>>bit&1 == 1 }
		at := apitype.At(time.UnixMilli(ms % (1 << 47)).In(time.FixedZone("", n%50000)))
		s := apitype.Stream{ID: a, StartedAt: at, TTLSeconds: n, HeartbeatSeconds: n / 3, Region: b, Session: c, Via: a, Degraded: has(0)}
		if has(1) {
			s.ID, s.Handle, s.ExpiresAt = "", c, at
		}
		if has(2) {
			s.Device = &apitype.Device{ID: b, Name: c, Type: a}
		}
		if has(3) {
			s.Content = &apitype.Content{ID: c, Title: a}
		}
		if has(8) {
			s.Content = &apitype.Content{Type: c, Labels: []string{a, b}}
			s.Profile, s.Labels, s.Priority = b, apitype.Labels{a: c, "k": b}, &n
		}
		if has(9) {
			s.Blocks, s.Enough = []string{}, new(has(10))
		}
		u := apitype.User{UserID: b, Streams: n, Limit: 3, Message: a}
		if has(4) {
			u.Counted = &n
		}
		if has(5) {
			u.Stream = &s
		}
		if has(6) {
			u.Active = []apitype.Stream{s, {}}
		}
		heartbeats := apitype.HeartbeatsResult{Alive: n, Ended: []apitype.EndedHeartbeat{}}
		if has(7) {
			heartbeats.Degraded, heartbeats.Ended = n, []apitype.EndedHeartbeat{{UserID: a, StreamID: b, Reason: c}, {}}
		}
		requireJSON(t, &s, AppendStream(nil, &s))
		requireJSON(t, &u, AppendUser([]byte("before"), &u)[6:])
		requireJSON(t, &heartbeats, AppendHeartbeatsResult(nil, &heartbeats))
	})
}

func requireJSON(t *testing.T, value any, got []byte) {
	t.Helper()
	want, err := json.Marshal(value)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got))
}

// A member that is added to a type has to be added to its writer and reader.
func TestMembers(t *testing.T) {
	for _, v := range []any{new(apitype.Stream), new(apitype.User), new(apitype.HeartbeatsResult)} {
		fill(reflect.ValueOf(v).Elem())
		switch v := v.(type) {
		case *apitype.Stream:
			requireJSON(t, v, AppendStream(nil, v))
		case *apitype.User:
			requireJSON(t, v, AppendUser(nil, v))
		case *apitype.HeartbeatsResult:
			requireJSON(t, v, AppendHeartbeatsResult(nil, v))
		}
	}
	start, heartbeats, stop := new(apitype.Start), new(apitype.Heartbeats), new(apitype.Stop)
	for _, v := range []any{start, heartbeats, stop} {
		fill(reflect.ValueOf(v).Elem())
	}
	start.OnLimit, start.Replaces = "deny", apitype.StreamIDs{"text"}
	for _, value := range []any{start, heartbeats, stop} {
		body, err := json.Marshal(value)
		require.NoError(t, err)
		got, ok := read(reflect.TypeOf(value), body)
		require.True(t, ok, "%s is in the plain form", body)
		require.Equal(t, value, got)
	}
}

// fill gives all members a value that is not left out.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("text")
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0))
		fill(v.Index(1))
	case reflect.Map:
		if v.Type() == reflect.TypeFor[map[string]string]() {
			v.Set(reflect.ValueOf(map[string]string{"key": "text"}))
			return
		}
		v.Set(reflect.ValueOf(apitype.Labels{"key": "text"}))
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[apitype.Time]() {
			v.Set(reflect.ValueOf(apitype.Time{Time: time.UnixMilli(1767323045678)}))
			return
		}
		for i := range v.NumField() {
			if v.Type().Field(i).Name != "_" {
				fill(v.Field(i))
			}
		}
	default:
		panic("fill: unknown kind " + v.Kind().String())
	}
}

// read calls the reader of a type.
func read(typ reflect.Type, body []byte) (value any, ok bool) {
	switch typ {
	case reflect.TypeFor[*apitype.Start]():
		return ReadStart(body)
	case reflect.TypeFor[*apitype.Stop]():
		return ReadStop(body)
	default:
		return ReadHeartbeats(body)
	}
}

// general decodes a body as it is decoded when it is not in the plain form. It returns nil
// for a body that is rejected.
func general(t *testing.T, schemas huma.Registry, typ reflect.Type, body []byte) any {
	t.Helper()
	schema := schemas.Schema(typ, true, "")
	checked, fault := strictjson.Check(body, schema, schemas)
	if fault != nil {
		return nil
	}
	var doc any
	require.NoError(t, json.Unmarshal(checked, &doc))
	path, result := huma.NewPathBuffer([]byte{}, 0), huma.ValidateResult{}
	huma.Validate(schemas, schema, path, huma.ModeWriteToServer, doc, &result)
	if len(result.Errors) > 0 {
		return nil
	}
	out := reflect.New(typ.Elem())
	require.NoError(t, json.Unmarshal(checked, out.Interface()))
	return out.Interface()
}

func bodies() []string {
	long := func(n int, text string) string { return `"` + strings.Repeat(text, n) + `"` }
	out := []string{
		"", "null", "{}", "{} ", "[]", "{", "\ufeff{}", `{"heartbeats":[]}`, `{"heartbeats":[{}]}`, `{"heartbeats":[{"userId":"a","streamId":"b"},]}`,
		`{"heartbeats":[{"streamId":"b","userId":"a"}]}`, `{"heartbeats":[{"userId":"a","userId":"b"}]}`, `{"heartbeats":[{"userId":"","streamId":""}]}`,
		"{ \"heartbeats\"\t:\n[ {\r\"userId\" : \"é\" , \"streamId\" : \"b\" } , {\"userId\":\"c\",\"streamId\":\"d\"} ] } ", `{"heartbeats":[{"userId":"a","streamId":"b"}]}{}`,
		`{"heartbeats":[{"userId":"a","streamId":"b"}],"heartbeats":[]}`, `{"heartbeats":[{"userId":"a","streamId":"b","x":1}]}`, `{"heartbeats":[{"userId":"\u0061","streamId":"b"}]}`,
		`{"heartbeats":[{"userId":` + long(200, "é") + `,"streamId":` + long(201, "b") + `}]}`, `{"heartbeats":[{"userId":` + long(201, "é") + `,"streamId":` + long(200, "b") + `}]}`,
		"{\"heartbeats\":[{\"userId\":\"\x01\",\"streamId\":\"\xff\"}]}", "{\"heartbeats\":[{\"userId\":\"\x7f\u0085\",\"streamId\":\"\xc3\"}]}",
		`{"heartbeats":[` + strings.Repeat(`{"userId":"a","streamId":"b"},`, 999) + `{"userId":"a","streamId":"b"}]}`, `{"heartbeats":[` + strings.Repeat(`{"userId":"a","streamId":"b"},`, 1000) + `{"userId":"a","streamId":"b"}]}`,
		`{"session":"s","replaces":"r","onLimit":"deny","plan":"p","device":{"id":"d","name":"n","type":"t"},"content":{"id":"c","title":"ü"}}`,
		`{"onLimit":"replace-oldest"}`, `{"onLimit":"evict"}`, `{"onLimit":""}`, `{"session":""}`, `{"session":"","session":"b"}`, `{"session":"a","session":"b"}`, `{"Session":"a"}`, `{"session":null}`, `{"session":1}`,
		`{"device":{}}`, `{"device":{},"device":{}}`, `{"content":{},"content":{"id":"a"}}`, `{"device":null}`, `{"device":{"x":1}}`, `{"device":{"name":` + long(300, "n") + `}}`, `{"device":{"id":` + long(201, "n") + `}}`, `{"content":{"id":` + long(201, "n") + `}}`,
		`{"session":` + long(200, "é") + `}`, `{"session":` + long(201, "e") + `}`, `{"plan":` + long(64, "p") + `}`, `{"plan":` + long(65, "p") + `}`, `{"session":"a" "plan":"b"}`, `{"session":"a",}`, `{,}`, `{"a"}`, "{\v}",
		`{"labels":{"a":"b","c":"d"},"priority":0,"network":"n","profile":"p","content":{"type":"live","labels":["x","y"]}}`, `{"labels":{}}`, `{"labels":{"a":""}}`, `{"labels":{"a":"b","a":"b"}}`,
		`{"labels":{"a":"b"},"labels":{"a":"b"}}`, `{"labels":{"a":` + long(65, "x") + `}}`, `{"labels":{"1":"a","2":"a","3":"a","4":"a","5":"a","6":"a","7":"a","8":"a","9":"a"}}`, `{"labels":null}`, `{"labels":["a"]}`,
		`{"priority":9 }`, `{"priority":10}`, `{"priority":-1}`, `{"priority":1.0}`, `{"priority":1e0}`, `{"priority":5,"priority":5}`, `{"priority":"5"}`, `{"priority":null}`,
		`{"replaces":["a","b"]}`, `{"replaces":[]}`, `{"replaces":""}`, `{"replaces":{"not":"a"}}`, `{"replaces":7}`, `{"content":{"labels":[]}}`, `{"content":{"labels":["a","a"]}}`, `{"content":{"labels":[""]}}`,
		`{"content":{"labels":["1","2","3","4","5","6","7","8","9"]}}`, `{"content":{"labels":[` + long(65, "x") + `]}}`, `{"content":{"type":` + long(65, "x") + `}}`,
		`{"streamId":"a"}`, `{"streamId":""}`, `{"streamId":` + long(200, "é") + `}`, `{"streamId":` + long(201, "e") + `}`, `{"streamId":"","streamId":"a"}`, `{"streamid":"a"}`, `{"streamId":"a\/b"}`,
	}
	return out
}

// FuzzRead compares the readers with the general decoder: a body in the plain form is
// accepted by both, with the same value.
func FuzzRead(f *testing.F) {
	huma.ValidateStrictCasing, huma.DefaultArrayNullable = true, false // as package api sets them
	for _, body := range bodies() {
		f.Add([]byte(body))
	}
	schemas := huma.NewMapRegistry("#/components/schemas/", huma.DefaultSchemaNamer)
	openapi.RegisterSchemas(schemas)
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, typ := range []reflect.Type{reflect.TypeFor[*apitype.Start](), reflect.TypeFor[*apitype.Stop](), reflect.TypeFor[*apitype.Heartbeats]()} {
			before := bytes.Clone(body)
			if got, ok := read(typ, body); ok {
				require.Equal(t, general(t, schemas, typ, body), got, "%q", body)
			}
			require.Equal(t, before, body)
		}
	})
}

// Bodies as common encoders write them are in the plain form.
func TestRead_PlainForm(t *testing.T) {
	for _, body := range []string{
		`{"heartbeats":[{"userId":"a","streamId":"b"}]}`, `{"heartbeats": [{"streamId": "b", "userId": "a"}, {"userId": "é", "streamId": "d"}]}`,
		"{\n  \"heartbeats\": [\n    {\"userId\": \"a\", \"streamId\": \"b\"}\n  ]\n}\n",
	} {
		_, ok := ReadHeartbeats([]byte(body))
		assert.True(t, ok, body)
	}
	_, ok := ReadStart([]byte(`{"session": "s", "onLimit": "deny", "device": {"name": "Büro"}, "content": {"title": "映画"}}`))
	assert.True(t, ok)
}

func BenchmarkReadHeartbeats(b *testing.B) {
	body := []byte(`{"heartbeats":[` + strings.Repeat(`{"userId":"viewer-123456","streamId":"`+strings.Repeat("x", 52)+`"},`, 499) +
		`{"userId":"viewer-123456","streamId":"` + strings.Repeat("x", 52) + `"}]}`)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := ReadHeartbeats(body); !ok {
			b.Fatal("not in the plain form")
		}
	}
}
