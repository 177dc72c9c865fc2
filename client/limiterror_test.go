package client

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"streamcount/api/apitype"
)

func TestLimitError_Enough(t *testing.T) {
	const active = `"active":[{"id":"a"},{"id":"b"}]`
	for problem, want := range map[string]struct {
		ids     []string
		message string
		text    string
	}{
		`{"limit":2,"streams":2,` + active + `}`:             {[]string{"a", "b"}, "", "2 of 2"},
		`{"limit":1,"streams":2,` + active + `}`:             {nil, "", "2 of 1"},
		`{"limit":1,"streams":2,"counted":1,` + active + `}`: {[]string{"a", "b"}, "", "2 of 1"},
		`{"limit":0,"streams":2,` + active + `}`:             {nil, "", "2 of 0"},
		`{` + active + `}`:                                   {[]string{"a", "b"}, "", "2 of 2"},
		`{"limit":1,"streams":2,"counted":1,"limits":[{"name":"tv","limit":1,"counted":1},{"name":"uhd","limit":1,"counted":1,"message":"One in 4K"}],
		  "active":[{"id":"a","blocks":["tv","uhd"],"enough":true},{"id":"b","blocks":[],"enough":false}]}`: {[]string{"a"}, "One in 4K", "limit tv: 1 of 1"},
		`{"limit":0,"streams":2,"limits":[{"name":"uhd","limit":0,"counted":0}],
		  "active":[{"id":"a","blocks":[],"enough":false},{"id":"b","blocks":[],"enough":false}]}`: {nil, "", "limit uhd: 0 of 0"},
	} {
		var p apitype.Problem
		require.NoError(t, json.Unmarshal([]byte(problem), &p), problem)
		e := newLimitError(p, 0)
		var ids []string
		for _, s := range e.Enough() {
			ids = append(ids, s.ID)
		}
		assert.Equal(t, want.ids, ids, problem)
		assert.Equal(t, want.message, e.Message())
		require.EqualError(t, e, "maximum number of streams reached: "+want.text)
		require.ErrorIs(t, e, ErrLimit)
	}
}
