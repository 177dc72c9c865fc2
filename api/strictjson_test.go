package api

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestCheckJSON_Accepts(t *testing.T) {
	for _, doc := range []string{
		`{}`, "\r\n\t {} ", `{"a":"b"}`, `{"a":[],"b":{}}`, `{"a":{"a":{"a":"a"}}}`, `{"a":[{"a":1},{"a":2}]}`,
		`{"a":true,"b":false,"c":-1.5e3}`, `{"a":"\"\\\/\b\f\n\r\t"}`, `{"a":"\\u0000"}`, `{"a":"\u0001"}`,
		`{"\u0061":"b"}`,
		`{"a":"😀"}`, `{"a":"\ud83d\ude00"}`, `{"a":"\ud83d\ude00\ud83d\ude00x"}`, "{\"a\":\"\ufffd\"}",
		`{"a":"{\"a\":1}"}`,
		`{"a":[[[[[[[1]]]]]]]}`, `{"a":"]}[{:,","b":1}`, `{"":""}`,
	} {
		assert.Nil(t, checkJSON([]byte(doc)), doc)
	}
}

func TestCheckJSON_Statuses(t *testing.T) {
	for doc, status := range map[string]int{
		`{"a":1,"a":2}`: 400, `{"a":1,"A":2}`: 400, `{"k":1,"K":2}`: 400, `{"x":{"a":1,"a":2}}`: 400,
		`[{"a":1,"a":2}]`:         422,
		`{"a":[[[[[[[[1]]]]]]]]}`: 400, `{"a":"\u0000"}`: 422, `{"\u0000":1}`: 422, `{"a":"\udead"}`: 422,
		`{"a":null}`:            422,
		`{"a":"\uD83Dx\uDE00"}`: 422, `{"a":1e999}`: 422, `{"a":-1e999}`: 422, `null`: 422, ` 1 `: 422,
		`{}{}`: 400, "\xef\xbb\xbf{}": 400,
		"{\"\xff\":1}": 400, manyFields(33): 422,
	} {
		p := checkJSON([]byte(doc))
		if assert.NotNil(t, p, doc) {
			assert.Equal(t, status, p.Status, doc)
		}
	}
	assert.Nil(t, checkJSON([]byte(manyFields(32))))
}

// The worst body of its size is still cheap: the check is no way to burn CPU.
func TestCheckJSON_IsLinear(t *testing.T) {
	object := manyFields(32)
	worst := []byte(`{"a":[` + strings.Repeat(object+",", maxBatchBody/(len(object)+1)-1) + object + `]}`)
	started := time.Now()
	assert.Nil(t, checkJSON(worst))
	assert.Less(t, time.Since(started), 5*time.Second)
}

// Whatever is accepted means the same to encoding/json, and to whoever reads
// what encoding/json writes of it.
func FuzzBody(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"session":"a","device":{"name":"\ud83c\udfac"}}`,
		`{"heartbeats":[{"userId":"a","streamId":"b"}]}`, `{"a":1,"A":2}`,
		`{"a":"\ud800"}`, `{"a":"\u0000"}`, `null`, `[[[[[[[[[[`, "\xef\xbb\xbf{}", `{"a":1e400}`, `{"\\":"\\"}`,
		`{"a":-0}`,
		`{"ſ":1,"s":2}`, "{\"\xff\":1}", `{"a":[1,2,{"b":[]}]} `, `{"a":{},"b":[[]],"c":"\\\""}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		if len(body) == 0 || checkJSON(body) != nil {
			return
		}
		var first, second map[string]any
		require.NoError(t, json.Unmarshal(body, &first))
		again, err := json.Marshal(first)
		require.NoError(t, err)
		require.Nil(t, checkJSON(again), "%s became %s", body, again)
		require.NoError(t, json.Unmarshal(again, &second))
		require.Equal(t, first, second)
	})
}
